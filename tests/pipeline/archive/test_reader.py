"""Archives with real pictures: what goes in comes out, by key, in batches, from every store."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from lichen.errors import (
    ArchiveError,
    ArchiveNotFound,
    CorruptArchive,
    InvalidCodec,
    KeyNotFound,
    UndecodablePicture,
    UnsupportedArchive,
    UsageError,
)
from lichen.models.classical import ClassicalCodec
from lichen.pipeline.archive import decoding, layout
from lichen.pipeline.archive.codecs import put_codec
from lichen.pipeline.archive.commit import commit_shard
from lichen.pipeline.archive.index import COLUMNS, PLACEMENT_COLUMNS, SCHEMA, IndexRow, index_bytes
from lichen.pipeline.archive.index_file import IndexFile
from lichen.pipeline.archive.job import create_job, finish_job
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.shard import ShardWriter
from lichen.pipeline.archive.snapshot_writer import write_snapshot
from lichen.pipeline.archive.store import Store, open_store
from lichen.pipeline.images import Picture, pack_side, read_picture

EXIF = Image.Exif()
EXIF[0x0112] = 6  # turned by 90 degrees


def _files() -> dict[str, bytes]:
    """Small picture files of every mode, and three that no codec takes."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:40, 0:56]
    base = np.stack([x * 2, y * 3, x + y], axis=2) + rng.integers(0, 8, (40, 56, 3))
    colour = Image.fromarray(base.clip(0, 255).astype(np.uint8))
    alpha = Image.fromarray((x * 4).astype(np.uint8))
    transparent = colour.copy()
    transparent.putalpha(alpha)
    grey_alpha = Image.merge("LA", (colour.convert("L"), alpha))

    def data(image: Image.Image, file_format: str, **options: Any) -> bytes:
        buffer = BytesIO()
        image.save(buffer, file_format, **options)
        return buffer.getvalue()

    return {
        "a/rgb.jpg": data(colour, "JPEG", quality=95, exif=EXIF),
        "a/grey.png": data(colour.convert("L"), "PNG"),
        "b/alpha.png": data(transparent, "PNG"),
        "b/grey-alpha.png": data(grey_alpha, "PNG"),
        "b/icc.png": data(colour.crop((0, 0, 9, 5)), "PNG", icc_profile=b"\0" * 200),
        "one pixel.png": data(colour.resize((1, 1)), "PNG"),
        "s/cmyk.jpg": data(colour.convert("CMYK"), "JPEG"),
        "s/sixteen.png": data(Image.fromarray((x * 1000).astype(np.uint16)), "PNG"),
        "s/broken.jpg": data(colour, "JPEG")[:300],
    }


FILES = _files()
STORED = {"s/cmyk.jpg", "s/sixteen.png", "s/broken.jpg"}


def compress(writer: ShardWriter, codec: ClassicalCodec, key: str, data: bytes) -> IndexRow:
    """What a worker does with one picture, without floors."""
    common: dict[str, Any] = {
        "key": key,
        "source_bytes": len(data),
        "source_sha256": hashlib.sha256(data).digest(),
    }
    if key in STORED:
        return IndexRow(status="stored", reason="test", **common, **writer.append(data).columns())
    picture: Picture = read_picture(data, name=key)
    [encoded] = codec.encode([picture.pixels], 90)
    location = writer.append(encoded.bitstream, pack_side(picture))
    return IndexRow(
        status="compressed",
        codec=codec.digest,
        quality=90,
        width=picture.pixels.shape[1],
        height=picture.pixels.shape[0],
        mode=picture.mode,
        source_format=picture.source_format,
        symbols_digest=encoded.symbols,
        **common,
        **location.columns(),
    )


def build(store: Store) -> None:
    """Two shards with two codecs, a snapshot, a finished job."""
    codecs = [ClassicalCodec("webp", threads=1), ClassicalCodec("jpeg", threads=1)]
    for codec in codecs:
        put_codec(store, codec)
    job = create_job(store, {}, [codec.digest for codec in codecs]).job
    for number, codec in enumerate(codecs):
        with ShardWriter(store, layout.shard_id(job, number)) as writer:
            for key in list(FILES)[number::2]:
                writer.add(compress(writer, codec, key, FILES[key]))
            commit_shard(store, writer.publish())
    finish_job(store, job, write_snapshot(store, job).number)


@pytest.fixture
def archive(place: Any) -> Archive:
    build(Archive.create(place.url, place.options).store)
    return Archive.open(place.url, place.options)


@pytest.fixture
def local(tmp_path: Path) -> Archive:
    build(Archive.create(str(tmp_path)).store)
    return Archive.open(str(tmp_path))


def assert_like_the_source(key: str, image: Image.Image) -> None:
    source = Image.open(BytesIO(FILES[key]))
    assert (image.mode, image.size) == (source.mode, source.size)
    if key in STORED:
        assert np.array_equal(np.asarray(image), np.asarray(source))
        return
    ours, theirs = (np.asarray(one).astype(float) for one in (image, source))
    assert np.mean((ours - theirs) ** 2) < 30
    if image.mode in ("LA", "RGBA"):
        assert np.array_equal(ours[..., -1], theirs[..., -1])
    assert image.getexif().get(0x0112) == source.getexif().get(0x0112)
    assert image.info.get("icc_profile") == source.info.get("icc_profile")


def test_a_mapping_of_pictures(archive: Archive) -> None:
    assert len(archive) == len(FILES)
    assert list(archive) == sorted(FILES)
    assert "a/rgb.jpg" in archive and "a/rgb" not in archive and 5 not in archive and "\ud800" not in archive
    for key in FILES:
        if key != "s/broken.jpg":
            assert_like_the_source(key, archive[key])
    assert archive.get("none") is None
    with pytest.raises(KeyNotFound):
        archive["none"]
    assert archive.array("a/grey.png").shape == (40, 56)
    assert archive.array("b/alpha.png").shape == (40, 56, 4)


def test_originals(archive: Archive) -> None:
    for key in STORED:
        assert archive.original(key) == FILES[key]
    with pytest.raises(ArchiveError, match="compressed"):
        archive.original("a/rgb.jpg")
    with pytest.raises(UndecodablePicture):
        archive["s/broken.jpg"]


def test_many_pictures_in_order(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [key for key in reversed(FILES) if key != "s/broken.jpg"] * 2
    for limit in (64, 3):
        monkeypatch.setattr(decoding, "WINDOW_PICTURES", limit)
        found = list(archive.get_many(wanted))
        assert [key for key, _ in found] == wanted
        for key, image in found:
            assert_like_the_source(key, image)
    assert list(archive.get_many([])) == []
    with pytest.raises(KeyNotFound):
        list(archive.get_many(["a/rgb.jpg", "none"]))


def test_storage_order(archive: Archive) -> None:
    with pytest.raises(UndecodablePicture):
        list(archive.pictures())
    seen = [key for key, _ in archive.pictures(skip_undecodable=True)]
    assert sorted([*seen, "s/broken.jpg"]) == sorted(FILES)
    places = [archive.place(key) for key in seen]
    assert [(p.shard, p.offset) for p in places] == sorted((p.shard, p.offset) for p in places)


def test_index_access(archive: Archive) -> None:
    row = archive.row("b/alpha.png")
    place = archive.place("b/alpha.png")
    assert {name: getattr(row, name) for name in PLACEMENT_COLUMNS} == {
        name: getattr(place, name) for name in PLACEMENT_COLUMNS
    }
    assert row.source_sha256 == hashlib.sha256(FILES["b/alpha.png"]).digest()
    assert [row.key for row in archive.rows()] == sorted(FILES)
    table = archive.table(["key", "source_bytes"])
    assert dict(zip(*(column.to_pylist() for column in table.columns), strict=True)) == {
        key: len(data) for key, data in FILES.items()
    }
    assert tuple(archive.table().column_names) == COLUMNS
    with pytest.raises(UsageError):
        archive.table(["nonsense"])
    with pytest.raises(KeyNotFound):
        archive.row("none")


def test_info(archive: Archive) -> None:
    info = archive.info()
    assert (info.pictures, info.compressed, info.stored) == (9, 6, 3)
    assert info.source_bytes == sum(map(len, FILES.values()))
    entries = archive.store.entries()
    payloads = sum(entry.size for entry in entries if entry.path.endswith(".bin"))
    assert info.payload_file_bytes == info.payload_bytes == payloads
    assert info.index_bytes == sum(entry.size for entry in entries if entry.path.endswith((".parquet", ".payloads")))
    assert info.codec_bytes == sum(entry.size for entry in entries if entry.path.startswith("codecs/"))
    assert info.savings == pytest.approx(1 - info.archive_bytes / info.source_bytes)
    assert "9 pictures" in repr(archive)


def test_opening(tmp_path: Path, place: Any) -> None:
    with pytest.raises(ArchiveNotFound):
        Archive.open(place.url, place.options)
    made = Archive.create(place.url, place.options)
    with pytest.raises(ArchiveError, match="already"):
        Archive.create(place.url, place.options)
    again = Archive.create(place.url, place.options, exist_ok=True)
    assert again.marker == made.marker
    empty = Archive.open(place.url, place.options)
    assert (len(empty), list(empty), empty.info().pictures) == (0, [], 0)
    with pytest.raises(KeyNotFound):
        empty["x"]
    with pytest.raises(ArchiveNotFound):
        Archive.open(place.url, place.options, snapshot=7)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", CorruptArchive),
        (b"not json", CorruptArchive),
        (b'{"format":1}', CorruptArchive),
        (b'{"format":1,"kind":"zip","id":"x","created":"","writer":""}', CorruptArchive),
        (b'{"format":1,"kind":"lichen-archive","id":7,"created":"","writer":""}', CorruptArchive),
        (b'{"format":-1,"kind":"lichen-archive"}', CorruptArchive),
        (b'{"format":3,"kind":"lichen-archive"}', UnsupportedArchive),
    ],
)
def test_hostile_markers(tmp_path: Path, data: bytes, error: type[Exception]) -> None:
    (tmp_path / "lichen.json").write_bytes(data)
    with pytest.raises(error):
        Archive.open(str(tmp_path))


def test_an_absurdly_large_marker_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "lichen.json").open("wb") as file:
        file.truncate(1 << 36)
    with pytest.raises(CorruptArchive, match="larger"):
        Archive.open(str(tmp_path))


def test_every_flipped_byte_is_noticed(local: Archive, tmp_path: Path) -> None:
    for key in ("a/rgb.jpg", "s/cmyk.jpg"):
        place = local.place(key)
        path = tmp_path / "shards" / place.shard
        good = path.read_bytes()
        spots = [place.offset, place.offset + place.length - 1]
        if place.side_offset is not None:
            spots.append(place.side_offset)
        for spot in spots:
            path.write_bytes(good[:spot] + bytes([good[spot] ^ 1]) + good[spot + 1 :])
            with pytest.raises(CorruptArchive, match="checksum"):
                local[key]
        path.write_bytes(good)
        assert_like_the_source(key, local[key])


def test_a_wrong_size_or_mode_in_the_index_is_noticed(local: Archive) -> None:
    place = local.place("a/rgb.jpg")
    for wrong in (
        replace(place, width=57),
        replace(place, height=1),
        replace(place, mode="CMYK"),
        replace(place, mode="RGBA"),
        replace(place, mode=None),
        replace(place, codec="00" * 32),
    ):
        with pytest.raises(CorruptArchive):
            local.decode([wrong])


def test_codecs_are_put_once_and_checked(local: Archive, tmp_path: Path) -> None:
    codec = ClassicalCodec("webp", threads=1)
    path = tmp_path / "codecs" / f"{codec.digest}.json"
    before = path.stat().st_mtime_ns
    assert put_codec(local.store, codec) == {"json": path.stat().st_size}
    assert path.stat().st_mtime_ns == before
    assert local.codec(codec.digest) is local.codec(codec.digest)
    good = path.read_bytes()
    for bad in (good.replace(b"webp", b"jpeg"), good[:-1], b"x" * len(good)):
        path.write_bytes(bad)
        with pytest.raises((CorruptArchive, InvalidCodec)):
            Archive.open(str(tmp_path))["a/rgb.jpg"]
    path.unlink()
    with pytest.raises(CorruptArchive, match="missing"):
        Archive.open(str(tmp_path))["a/rgb.jpg"]


def test_a_lookup_reads_little_of_a_large_index(tmp_path: Path) -> None:
    """200,000 rows with digests that do not compress: one row group, and of it some columns."""
    count = 200_000
    rng = np.random.default_rng(1)
    name = "20260101T000000-aaaaaa.00000-0123456789ab.bin"
    lengths = rng.integers(5_000, 60_000, count)

    def binary(width: int) -> pa.Array:
        buffer = pa.py_buffer(rng.bytes(width * count))
        return pa.Array.from_buffers(pa.binary(width), count, [None, buffer])

    columns = {
        "key": [f"album-{n // 1000:03d}/IMG_{n:06d}.jpg" for n in range(count)],
        "status": ["compressed"] * count,
        "shard": [name] * count,
        "offset": np.cumsum(lengths) - lengths,
        "length": lengths,
        "crc32c": rng.integers(0, 2**32, count).astype(np.uint32),
        "codec": ["ab" * 32] * count,
        "width": np.full(count, 4032, np.int32),
        "height": np.full(count, 3024, np.int32),
        "mode": ["RGB"] * count,
        "source_bytes": lengths * 4,
        "source_sha256": binary(32),
        "symbols_digest": binary(16),
        "pixels_digest": binary(16),
    }
    arrays = [columns.get(field.name, pa.nulls(count, field.type)) for field in SCHEMA]
    table = pa.table([pa.array(a) if not isinstance(a, pa.Array) else a for a in arrays], names=SCHEMA.names)
    data = index_bytes(table.cast(SCHEMA), {}, {})
    (tmp_path / "x.parquet").write_bytes(data)
    file = IndexFile(open_store(str(tmp_path)), "x.parquet", size=len(data), rows=count)
    [group] = file.groups_with("album-123/IMG_123456.jpg")
    found = file.read(group, PLACEMENT_COLUMNS)
    assert "album-123/IMG_123456.jpg" in found.column("key").to_pylist()
    read = file.file.bytes_read
    assert read < 400_000 < len(data) / 20
    assert file.groups_with("zzz") == [] == file.groups_with("")
    assert pq.read_metadata(tmp_path / "x.parquet").num_row_groups == 20


def _range_requests(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    seen: list[str] = []
    original = Store.read_range

    def counting(self: Store, path: str, offset: int, length: int) -> bytes:
        if length:
            seen.append(path)
        return original(self, path, offset, length)

    monkeypatch.setattr(Store, "read_range", counting)
    return seen


def test_neighbours_are_read_together(local: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    places = local.places(sorted(FILES))
    seen = _range_requests(local.store, monkeypatch)
    local.payloads(places)
    assert sorted(seen) == sorted({f"shards/{place.shard}" for place in places})
