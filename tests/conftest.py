"""Fixtures for all tests: an S3 server of our own, and archives of pictures."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lichen.jobs.leaving import leave

if TYPE_CHECKING:
    from lichen.models.codec import Codec

STATUS = pytest.StashKey[int]()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    session.config.stash[STATUS] = int(session.exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    config.get_terminal_writer().flush()
    leave(config.stash.get(STATUS, 0))


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of an S3 server (moto over HTTP on a free port), with credentials in the environment."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.delenv("AWS_PROFILE", raising=False)
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def s3_options(s3_endpoint: str) -> dict[str, Any]:
    """fsspec storage options for that server; they can be pickled to other processes."""
    return {
        "key": "testing",
        "secret": "testing",
        "client_kwargs": {"endpoint_url": s3_endpoint, "region_name": "us-east-1"},
    }


@pytest.fixture(scope="session")
def _s3_bucket(s3_options: dict[str, Any]) -> str:
    import boto3

    client = boto3.client(
        "s3",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        **s3_options["client_kwargs"],
    )
    client.create_bucket(Bucket="lichen-tests")
    return "lichen-tests"


@pytest.fixture
def s3_url(_s3_bucket: str) -> str:
    """A fresh prefix in a bucket of that server."""
    return f"s3://{_s3_bucket}/{uuid.uuid4().hex}"


def _write_archive(
    url: str | Path,
    pictures: Mapping[str, bytes],
    *,
    quality: float = 75.0,
    codec: Codec | None = None,
    unreadable: Mapping[str, str] | None = None,
    shards: int = 1,
) -> str:
    """An archive of picture files, compressed (with WebP unless told otherwise) where possible, stored where not.

    Goes through the archive's own writers, without the engine. Files that are no pictures are skipped;
    ``unreadable`` maps keys to messages for the quarantine.
    """
    from lichen.errors import NotAPicture, SourceUnreadable, UndecodablePicture, UnsupportedPicture
    from lichen.models.codec import symbol_digest
    from lichen.models.registry import load_codec
    from lichen.pipeline.archive import layout
    from lichen.pipeline.archive.codecs import put_codec
    from lichen.pipeline.archive.commit import commit_shard
    from lichen.pipeline.archive.index import IndexRow
    from lichen.pipeline.archive.job import create_job, finish_job
    from lichen.pipeline.archive.reader import Archive
    from lichen.pipeline.archive.shard import ShardWriter
    from lichen.pipeline.archive.snapshot_writer import write_snapshot
    from lichen.pipeline.images import pack_side, read_picture
    from lichen.pipeline.quality import measure

    archive = Archive.create(str(url), exist_ok=True)
    codec = codec or load_codec("webp")
    put_codec(archive.store, codec)
    after = None if archive.snapshot is None else archive.snapshot.job
    job = create_job(archive.store, {}, [codec.digest], after=after).job
    for number in range(shards):
        with ShardWriter(archive.store, layout.shard_id(job, number)) as writer:
            for key in list(pictures)[number::shards]:
                data = pictures[key]
                common: dict[str, Any] = {"key": key, "source_bytes": len(data)}
                common["source_sha256"] = hashlib.sha256(data).digest()
                try:
                    picture = read_picture(data, name=key)
                except NotAPicture as error:
                    writer.skip(key, f"/sources/{key}", str(error))
                    continue
                except (UnsupportedPicture, UndecodablePicture) as error:
                    place = writer.append(data)
                    writer.add(IndexRow(**place.columns(), **common, status="stored", reason=str(error)))
                    continue
                encoded = codec.encode([picture.pixels], quality)[0]
                decoded = codec.decode([encoded.bitstream])[0]
                measured = measure(picture.pixels, decoded.pixels, picture.mode)
                side = pack_side(picture)
                height, width = picture.pixels.shape[:2]
                writer.add(
                    IndexRow(
                        **writer.append(encoded.bitstream, side).columns(),
                        **common,
                        status="compressed",
                        codec=codec.digest,
                        quality=quality,
                        width=width,
                        height=height,
                        mode=picture.mode,
                        bit_depth=picture.bit_depth,
                        source_format=picture.source_format,
                        bpp=8 * (len(encoded.bitstream) + len(side)) / (width * height),
                        psnr=measured.psnr,
                        ms_ssim=measured.ms_ssim,
                        ssimulacra2=measured.ssimulacra2,
                        block_psnr=measured.block_psnr,
                        symbols_digest=encoded.symbols,
                        pixels_digest=symbol_digest(decoded.pixels),
                    )
                )
            if number == 0:
                for key, message in (unreadable or {}).items():
                    writer.quarantine(key, f"/sources/{key}", SourceUnreadable(message))
            commit_shard(archive.store, writer.publish({codec.digest: tuple(sorted(codec.decoder_files()))}))
    finish_job(archive.store, job, write_snapshot(archive.store, job).number)
    return str(url)


@pytest.fixture(scope="session")
def write_archive() -> Callable[..., str]:
    """Write an archive from picture files in memory: ``write_archive(url, {key: bytes}, ...)``."""
    return _write_archive


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The pictures of the tests."""
    return Path(__file__).parent / "data"


@pytest.fixture(scope="session")
def photo_files(data_folder: Path) -> dict[str, bytes]:
    """A small and varied data set: photographs, grey, alpha, EXIF, and files that are stored or skipped."""
    names = {
        "photos/budgie.jpg": "samples/budgie_a6d68c32b3a3.jpg",
        "photos/rotated.jpg": "messy/pil_hopper_orientation_6.jpg",
        "grey.png": "messy/pil_bw_gradient.png",
        "alpha.png": "messy/pil_pil123rgba.png",
        "wide/deep.png": "messy/pngsuite_basn0g16.png",
        "wide/cut.jpg": "messy/pil_truncated_jpeg.jpg",
        "notes/credits.csv": "samples/credits.csv",
    }
    return {key: (data_folder / name).read_bytes() for key, name in names.items()}


@pytest.fixture(scope="session")
def photo_archive(
    write_archive: Callable[..., str], photo_files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory
) -> str:
    """An archive of those, with one source that could not be read. Copy it before changing anything in it."""
    url = tmp_path_factory.mktemp("photos") / "archive"
    return write_archive(url, photo_files, unreadable={"gone.jpg": "no such file"}, shards=2)
