"""Originals that come back byte for byte in fewer bytes: every one with ``lossless``, else what the codec leaves."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from lichen.errors import CorruptArchive, UsageError
from lichen.jobs.cli import build_app
from lichen.models.registry import load_codec
from lichen.pipeline.archive.commit import read_commit
from lichen.pipeline.archive.gc import collect
from lichen.pipeline.archive.index import SCHEMA, IndexRow
from lichen.pipeline.archive.index_file import IndexFile
from lichen.pipeline.archive.job import create_job, list_jobs, read_job
from lichen.pipeline.archive.manifest import dump, require
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.shard import crc32c
from lichen.pipeline.archive.snapshot import read_snapshot
from lichen.pipeline.archive.store import open_store
from lichen.pipeline.engine.compress import LARGER, LOSSLESS, SMALLER
from lichen.pipeline.engine.config import JobConfig
from lichen.pipeline.engine.driver import run_job
from lichen.pipeline.packing import Packed, pack
from lichen.pipeline.report import make_report
from lichen.pipeline.verify import verify_archive

DATA = Path(__file__).parents[2] / "data"
PHOTO = DATA / "samples" / "bep_4f75e72d1769.jpg"
Make = Callable[..., JobConfig]
Pictures = Callable[..., Path]


def run(*arguments: str | Path, code: int = 0) -> str:
    result = CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.output


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pictures of the tests, without poison, and a text."""
    folder = tmp_path_factory.mktemp("album") / "photos"
    for name in ("samples", "messy", "cases/colour", "cases/tiff", "cases/jpeg"):
        ignore = shutil.ignore_patterns("jpeg_progressive_scans.jpg", "README.md")
        shutil.copytree(DATA / name, folder / name, ignore=ignore)
    return folder


@pytest.fixture(scope="module")
def kept(album: Path) -> Path:
    """Its archive without loss. To be copied before anything in it is changed."""
    archive = album.parent / "kept"
    said = run("compress", "--local", "--lossless", "--store-others", album, archive)
    assert "0 compressed" in said and " packed, " in said
    return archive


def test_every_file_comes_back_byte_for_byte(album: Path, kept: Path, tmp_path: Path) -> None:
    before = files(album)
    assert "as the original file" in run("decode", kept, "--to", tmp_path / "back")
    assert files(tmp_path / "back") == before
    run("decode", kept, "--original", "--to", tmp_path / "originals")
    assert files(tmp_path / "originals") == before
    archive = Archive.open(str(kept))
    assert {key: archive.original(key) for key in archive} == before
    assert "all good" in run("verify", kept, "--source", album)


def test_all_is_told(album: Path, kept: Path) -> None:
    archive = Archive.open(str(kept))
    rows = {row.key: row for row in archive.rows()}
    packed = [row for row in rows.values() if row.status == "packed"]
    stored = [row for row in rows.values() if row.status == "stored"]
    assert len(packed) + len(stored) == len(rows) == len(files(album)) and packed and stored
    assert all(row.packing is None and row.length == row.source_bytes for row in stored)
    assert all(row.length <= 0.99 * row.source_bytes for row in packed)
    assert {row.packing for row in packed} == {"jxl-jpeg", "zstd"}
    photo = rows["samples/bep_4f75e72d1769.jpg"]
    assert (photo.status, photo.packing, photo.reason, photo.mode) == ("packed", "jxl-jpeg", LOSSLESS, "RGB")
    assert (photo.codec, photo.quality, photo.psnr, photo.symbols_digest) == (None, None, None, None)
    info, report = archive.info(), make_report(archive)
    assert (info.compressed, info.packed, info.stored) == (0, len(packed), len(stored))
    assert (report.compressed, report.packed, report.stored) == (0, len(packed), len(stored))
    assert sum(reason.count for reason in report.packed_reasons) == len(packed)
    assert sum(reason.count for reason in report.stored_reasons) == len(stored)
    [group] = [group for group in report.by_status if group.name == "packed"]
    assert (group.pictures, group.bytes) == (len(packed), sum(row.length for row in packed))
    assert group.savings is not None and 0.1 < group.savings < 0.9
    said = run("report", kept)
    assert f"Packed without loss: {len(packed)}" in said and LOSSLESS in said
    assert f"(0 compressed, {len(packed)} packed, {len(stored)} stored)" in run("info", kept)
    listed = {row["key"]: row for row in json.loads(run("ls", kept, "--json"))}
    assert listed["samples/bep_4f75e72d1769.jpg"]["packing"] == "jxl-jpeg"
    assert "packed" in run("ls", "--long", kept, "samples/bep*")


def test_there_is_no_codec_and_gc_takes_nothing(kept: Path) -> None:
    archive = Archive.open(str(kept))
    assert archive.info().codecs == () and archive.info().codec_bytes == 0
    assert not (kept / "codecs").exists()
    [job] = list_jobs(archive.store)
    assert read_job(archive.store, job).codecs == ()
    before = files(kept)
    collect(archive.store, older_than=0)
    assert files(kept) == before


def test_pictures_are_what_they_were(kept: Path, album: Path) -> None:
    """One by one, in the order of the files, many together, and through places."""
    archive = Archive.open(str(kept))
    for key in ("samples/bep_4f75e72d1769.jpg", "messy/pil_flower.jpg", "messy/pil_hopper_lzw.tif"):
        with Image.open(album / key) as image:
            assert np.array_equal(archive.array(key), np.asarray(image))
    keys = [row.key for row in archive.rows() if row.source_format == "JPEG" and not row.damaged and row.width]
    places = archive.places(keys)
    assert all(isinstance(place, IndexRow) == (place.status == "packed") for place in places)
    assert [image.size for image in archive.decode(places[:3])] == [(p.width, p.height) for p in places[:3]]
    assert len(dict(archive.pictures(skip_undecodable=True))) > len(keys)


def test_other_peoples_tools_undo_what_lies_in_the_payload_file(kept: Path, album: Path, tmp_path: Path) -> None:
    """By section 2 of the format alone: a range of bytes, and the tool that made the format."""
    tools = {"jxl-jpeg": ("djxl", ".jxl"), "zstd": ("zstd", ".zst")}
    done = set()
    for row in Archive.open(str(kept)).rows():
        if row.packing is None or row.packing in done or shutil.which(tools[row.packing][0]) is None:
            continue
        tool, ending = tools[row.packing]
        cut, out = tmp_path / f"cut{ending}", tmp_path / f"{row.packing}.jpg"
        payloads = (kept / "shards" / row.shard).read_bytes()
        cut.write_bytes(payloads[row.offset : row.offset + row.length])
        how = [str(cut), str(out)] if tool == "djxl" else ["-d", str(cut), "-o", str(out)]
        subprocess.run([tool, *how], check=True, capture_output=True, timeout=60)
        assert out.read_bytes() == (album / row.key).read_bytes()
        done.add(row.packing)
    if not done:
        pytest.skip("neither djxl nor zstd is installed")


def test_no_network_is_loaded(tmp_path: Path) -> None:
    program = """
import sys
from lichen.pipeline.engine.config import EngineConfig, JobConfig, QualityConfig
from lichen.pipeline.engine.driver import run_job
lossless, local = QualityConfig(lossless=True), EngineConfig(executor="local")
print(run_job(JobConfig(source=sys.argv[1], archive=sys.argv[2], quality=lossless, engine=local)).counts.packed)
print(sorted({"torch", "numba"} & sys.modules.keys()))
"""
    source = tmp_path / "photos"
    source.mkdir()
    shutil.copy(PHOTO, source)
    command = [sys.executable, "-c", program, str(source), str(tmp_path / "archive")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[0] == "1"
    assert "torch" not in done.stdout.splitlines()[1]


@pytest.mark.parametrize("executor", ["process", "local"])
def test_updates_and_mixtures(config: Make, tmp_path: Path, executor: str) -> None:
    source = tmp_path / "photos"
    source.mkdir()
    for name in ("azure_7e8f50229cdd.jpg", "bep_4f75e72d1769.jpg"):
        shutil.copy(DATA / "samples" / name, source)
    job = config(source, lossless=True, executor=executor)
    assert run_job(job).counts.packed == 2
    again = run_job(job)
    assert (again.job, again.unchanged, again.not_applied) == (None, 2, {})
    shutil.copy(DATA / "samples" / "aosc_a50bf6482c0a.jpg", source)
    lossy = run_job(config(source, quality=20.0, psnr_floor=0, block_psnr_floor=0))
    assert (lossy.counts.compressed, lossy.archived) == (1, 3)
    assert lossy.not_applied["lossless"] == (True, False)
    archive = Archive.open(job.archive)
    assert [row.status for row in archive.rows()] == ["compressed", "packed", "packed"]
    assert len(archive.info().codecs) == 1
    assert verify_archive(archive, source=str(source)).exit_code == 0


def test_what_the_codec_leaves_is_packed_unless_told_otherwise(config: Make, pictures: Pictures) -> None:
    source = pictures(1)
    shutil.copy(DATA / "samples" / "bep_4f75e72d1769.jpg", source / "photo.jpg")
    job = config(source, quality=100.0, psnr_floor=90.0)
    summary = run_job(job)
    row = Archive.open(job.archive).row("photo.jpg")
    assert (row.status, row.packing) == ("packed", "jxl-jpeg") and row.reason != LOSSLESS
    assert summary.counts.packed >= 1 and summary.counts.seconds["pack"] > 0
    assert summary.counts.payload_bytes < summary.counts.source_bytes
    plain = config(source, job.archive + "-plain", quality=100.0, psnr_floor=90.0, store_plain=True)
    assert run_job(plain).counts.stored == 2
    plain_row = Archive.open(plain.archive).row("photo.jpg")
    assert (plain_row.status, plain_row.packing, plain_row.length) == ("stored", None, PHOTO.stat().st_size)
    assert plain_row.reason == row.reason or LARGER in (plain_row.reason or "", row.reason or "")
    told = run_job(config(source, plain.archive, quality=100.0, psnr_floor=90.0)).not_applied
    assert told == {"store_plain": (True, False)}


def test_what_is_no_smaller_with_loss_is_kept_without(config: Make, tmp_path: Path) -> None:
    """A JPEG that becomes hardly smaller, in WebP of a quality that its floor demands."""
    source = tmp_path / "photos"
    source.mkdir()
    shutil.copy(PHOTO, source)
    size = PHOTO.stat().st_size
    plain = config(source, f"{tmp_path}/plain", quality=93.0, store_plain=True)
    run_job(plain)
    lossy = Archive.open(plain.archive).row(PHOTO.name)
    job = config(source, quality=93.0)
    run_job(job)
    row = Archive.open(job.archive).row(PHOTO.name)
    assert lossy.status == "compressed" and lossy.length > row.length > 0.7 * size
    assert (row.status, row.packing, row.reason, row.psnr) == ("packed", "jxl-jpeg", SMALLER, None)


@pytest.mark.parametrize("wish", [{"min_psnr": 40.0}, {"target_bpp": 1.0}, {"store_plain": True}])
def test_wishes_that_mean_nothing_without_loss_are_refused(config: Make, wish: dict[str, object]) -> None:
    with pytest.raises(UsageError, match="lossless keeps every picture"):
        config("x", lossless=True, **wish)


def test_packing_that_hangs_costs_one_picture_its_savings(
    config: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, release = tmp_path / "photos", threading.Event()
    source.mkdir()
    for name in ("azure_7e8f50229cdd.jpg", "bep_4f75e72d1769.jpg"):
        shutil.copy(DATA / "samples" / name, source)

    def hangs(data: bytes, *, max_pixels: int) -> Packed | None:
        if data == PHOTO.read_bytes():
            release.wait(60)
        return pack(data, max_pixels=max_pixels)

    monkeypatch.setattr("lichen.pipeline.engine.worker.pack", hangs)
    try:
        summary = run_job(config(source, lossless=True, picture_timeout=1.0))
    finally:
        release.set()
    assert (summary.counts.packed, summary.counts.stored) == (1, 1)
    archive = Archive.open(str(tmp_path / "archive"))
    assert archive.row(PHOTO.name).status == "stored"
    assert archive.original(PHOTO.name) == PHOTO.read_bytes()


# --- damage ---


@pytest.mark.parametrize("packing", ["jxl-jpeg", "zstd"])
def test_a_damaged_payload_is_named_and_stops_no_other(kept: Path, album: Path, tmp_path: Path, packing: str) -> None:
    """With a checksum that is wrong, and with one that somebody made right."""
    row = next(row for row in Archive.open(str(kept)).rows() if row.packing == packing and row.length > 1000)
    for right in (False, True):
        copy = tmp_path / f"copy-{right}"
        shutil.copytree(kept, copy)
        path = copy / "shards" / row.shard
        data = bytearray(path.read_bytes())
        at = row.offset + row.length // 2
        data[at : at + 8] = bytes(byte ^ 255 for byte in data[at : at + 8])
        path.write_bytes(data)
        if right:
            _state_crc(copy, row.key, crc32c(bytes(data[row.offset : row.offset + row.length])))
        archive = Archive.open(str(copy))
        with pytest.raises(CorruptArchive, match=row.key.rpartition("/")[2]):
            archive.original(row.key)
        with pytest.raises(CorruptArchive):
            _ = archive[row.key]
        found = verify_archive(archive, source=str(album))
        assert (found.exit_code, found.failed) == (4, 2 if right else 1)  # the index file is not what it was, either
        assert row.key in {failure.key for failure in found.failures}
        assert [one.key for one in found.keep] == [row.key]
        said = run("decode", copy, "--to", tmp_path / f"back-{right}", code=1)
        assert row.key in said
        before = files(album)
        del before[row.key]
        assert files(tmp_path / f"back-{right}") == before


def _state_crc(archive: Path, key: str, crc: int) -> None:
    """Another checksum in the index of the snapshot."""
    [part] = (archive / "snapshots").glob("*.parquet")
    opened = Archive.open(str(archive))
    table = opened.table()
    number = table.column("key").to_pylist().index(key)
    values = table.column("crc32c").to_pylist()
    values[number] = crc
    position = SCHEMA.get_field_index("crc32c")
    field = SCHEMA.field(position)
    table = table.set_column(position, field, pa.array(values, field.type)).cast(SCHEMA)
    pq.write_table(table.replace_schema_metadata(pq.read_schema(part).metadata), part)
    snapshot = json.loads((archive / "snapshots" / "00000001.json").read_text())
    snapshot["index"][0]["size"] = part.stat().st_size
    stated = {name: value for name, value in snapshot.items() if name not in ("crc32c", "format")}
    (archive / "snapshots" / "00000001.json").write_bytes(dump(stated))


# --- versions before packing ---


def test_archives_of_earlier_versions_stay_readable(config: Make, pictures: Pictures, tmp_path: Path) -> None:
    """Without the column, without a total for it, and without the settings."""
    source = pictures(2)
    job = config(source, store_plain=True, psnr_floor=90.0, shard_pictures=5)
    assert run_job(job).counts.stored == 2
    store = open_store(job.archive)
    archive = Archive.open(job.archive)
    [part] = (Path(job.archive) / "snapshots").glob("*.parquet")
    old = tmp_path / "old.parquet"
    table = pq.read_table(part)
    pq.write_table(table.drop_columns(["packing", "ssimulacra2"]), old)
    file = IndexFile(open_store(str(tmp_path)), "old.parquet", size=old.stat().st_size, rows=2)
    assert file.read_all().equals(archive.table())
    [name] = list_jobs(store)
    for path in (f"jobs/{name}/job.json", f"commits/{name}/{name}.00000.json", "snapshots/00000001.json"):
        stated = {key: value for key, value in require(store, path).values.items() if key not in ("format", "crc32c")}
        if "totals" in stated:
            del stated["totals"]["packed"]
        if "config" in stated:
            del stated["config"]["store_plain"], stated["config"]["lossless"]
        (Path(job.archive) / path).write_bytes(dump(stated))
    assert getattr(read_commit(store, f"{name}.00000"), "totals", {})["packed"] == 0
    assert read_snapshot(store, 1).totals["packed"] == 0
    assert Archive.open(job.archive).info().stored == 2
    assert run_job(job).not_applied == {}
    told = run_job(config(source, psnr_floor=90.0, shard_pictures=5)).not_applied
    assert told == {"store_plain": (True, False)}


def test_an_unfinished_job_of_an_earlier_version_goes_on_as_it_was(config: Make, pictures: Pictures) -> None:
    source = pictures(2)
    job = config(source, store_plain=True, shard_bytes=1 << 20)
    stated = {key: value for key, value in job.frozen(1 << 20).items() if key not in ("lossless", "store_plain")}
    create_job(Archive.create(job.archive).store, stated, [load_codec("webp").digest])
    with pytest.raises(UsageError, match="begun with store_plain True"):
        run_job(config(source, shard_bytes=1 << 20))
    assert run_job(job).resumed
