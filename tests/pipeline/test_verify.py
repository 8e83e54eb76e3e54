"""Verification of archives that are sound, and of archives with one thing wrong."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lichen.errors import CorruptArchive, UsageError
from lichen.pipeline.archive.index import IndexRow, to_rows, to_table
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.shard import crc32c
from lichen.pipeline.images import pack_side, unpack_side
from lichen.pipeline.verify import verify_archive

PICTURES = 6


@pytest.fixture
def archive(photo_archive: str, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    shutil.copytree(photo_archive, tmp_path / "archive")
    return tmp_path / "archive"


@pytest.fixture
def sources(photo_files: dict[str, bytes], tmp_path: Path) -> Path:
    """The files that the archive was made from."""
    for key, data in photo_files.items():
        path = tmp_path / "sources" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "sources"


def flip(archive: Path, key: str, *, side: bool = False, at: int = 40) -> None:
    """Flip one bit of a picture's payload or side data."""
    row = Archive.open(str(archive)).row(key)
    offset = row.side_offset if side else row.offset
    assert offset is not None
    path = archive / "shards" / row.shard
    data = bytearray(path.read_bytes())
    data[offset + at] ^= 4
    path.write_bytes(data)


class Altered(Archive):
    """An archive whose index rows are altered after they were read: what an enemy could write."""

    change: Callable[[IndexRow], IndexRow]

    def tables(self, columns: object = None) -> Iterator[object]:  # type: ignore[override]
        for table in super().tables():
            yield to_table(type(self).change(row) for row in to_rows(table))


def altered(archive: Path, change: Callable[[IndexRow], IndexRow]) -> Archive:
    kind = type("AlteredHere", (Altered,), {"change": staticmethod(change)})
    opened: Archive = kind.open(str(archive))
    return opened


def test_a_sound_archive(archive: Path) -> None:
    seen: list[int] = []
    result = verify_archive(Archive.open(str(archive)), progress=seen.append)
    assert result.ok and result.exit_code == 0 and result.failures == ()
    assert (result.pictures, result.compressed, result.stored) == (PICTURES, 4, 2)
    assert sum(seen) == PICTURES and result.pixels_differ == 0
    # two payload files with their index parts, the codec's file, the index of the snapshot, its list
    assert result.files == 2 + 2 + 1 + 1 + 1
    assert result.bytes_read == sum(path.stat().st_size for path in archive.glob("shards/*.bin"))
    assert json.loads(json.dumps(result.to_json()))["ok"] is True


@pytest.mark.parametrize("key", ["photos/budgie.jpg", "grey.png", "wide/deep.png"])
def test_a_flipped_bit_names_its_picture_and_no_other(archive: Path, key: str) -> None:
    flip(archive, key)
    result = verify_archive(Archive.open(str(archive)))
    assert result.exit_code == 4 and result.failed == 1
    assert (result.failures[0].key, result.failures[0].check) == (key, "payload")
    assert "checksum" in result.failures[0].message
    assert result.pictures == PICTURES


def test_a_flipped_bit_of_side_data(archive: Path) -> None:
    flip(archive, "alpha.png", side=True)
    result = verify_archive(Archive.open(str(archive)))
    assert [failure.key for failure in result.failures] == ["alpha.png"]


def test_chosen_pictures_only(archive: Path) -> None:
    flip(archive, "grey.png")
    opened = Archive.open(str(archive))
    assert verify_archive(opened, ["photos/*"]).ok
    result = verify_archive(opened, ["*.png", "photos/budgie.jpg"])
    assert result.pictures == 4 and [failure.key for failure in result.failures] == ["grey.png"]
    with pytest.raises(UsageError, match="nothing-like-it"):
        verify_archive(opened, ["nothing-like-it"])
    with pytest.raises(UsageError, match="nothing"):
        verify_archive(opened, ["nothing*"])


def test_a_file_that_is_cut_short_or_missing(archive: Path) -> None:
    opened = Archive.open(str(archive))
    payloads = sorted(archive.glob("shards/*.bin"))
    keys = [{row.key for row in opened.rows() if row.shard == path.name} for path in payloads]
    os.truncate(payloads[0], 0)
    payloads[1].unlink()
    result = verify_archive(opened)
    files = {failure.file for failure in result.failures if failure.key is None}
    assert files == {f"shards/{path.name}" for path in payloads}
    assert {failure.key for failure in result.failures if failure.key} == keys[0] | keys[1]


def test_a_damaged_index_is_a_failure_and_not_an_exception(archive: Path) -> None:
    path = next(archive.glob("snapshots/*.parquet"))
    opened = Archive.open(str(archive))
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)
    result = verify_archive(opened)
    assert not result.ok and {failure.check for failure in result.failures if failure.key is None} >= {"index"}


def test_an_index_that_reads_well_and_is_not_what_was_written(archive: Path) -> None:
    path = next(archive.glob("snapshots/*.parquet"))
    data = path.read_bytes()
    path.write_bytes(data.replace(b"lichen.format", b"lichen.formaT"))
    assert path.stat().st_size == len(data) and path.read_bytes() != data
    result = verify_archive(Archive.open(str(archive)))
    assert [(failure.check, "SHA-256" in failure.message) for failure in result.failures] == [("index", True)]


def test_an_index_part_that_is_not_what_was_committed(archive: Path) -> None:
    """Nothing reads it while there is a snapshot; without one it is all that is left."""
    part = sorted((archive / "shards").glob("*.parquet"))[0]
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    result = verify_archive(Archive.open(str(archive)))
    assert [(failure.file, failure.check) for failure in result.failures] == [(f"shards/{part.name}", "index")]
    assert result.exit_code == 4


def test_an_index_of_another_length_is_not_read(archive: Path) -> None:
    """Even where Parquet would not mind: there is nothing else by which a reader tells another file."""
    path = next(archive.glob("snapshots/*.parquet"))
    data = path.read_bytes()
    path.write_bytes(data[:4] + b"\0" + data[4:])
    with pytest.raises(CorruptArchive, match=rf"{len(data) + 1} bytes instead of {len(data)}"):
        list(Archive.open(str(archive)))


def test_a_missing_codec_fails_every_compressed_picture(archive: Path) -> None:
    next(archive.glob("codecs/*.json")).unlink()
    result = verify_archive(Archive.open(str(archive)))
    assert sum(failure.key is not None for failure in result.failures) == 4
    assert any(failure.key is None and failure.file.startswith("codecs/") for failure in result.failures)


def test_other_symbols_than_were_encoded(archive: Path) -> None:
    def change(row: IndexRow) -> IndexRow:
        return replace(row, symbols_digest=bytes(16)) if row.key == "photos/budgie.jpg" else row

    result = verify_archive(altered(archive, change), ["*"])
    assert [(one.key, one.check) for one in result.failures] == [("photos/budgie.jpg", "symbols")]


def test_other_pixels_than_were_written_are_only_counted(archive: Path) -> None:
    def change(row: IndexRow) -> IndexRow:
        return replace(row, pixels_digest=bytes(16)) if row.status == "compressed" else row

    result = verify_archive(altered(archive, change), ["*"])
    assert result.ok and result.pixels_differ == 4


def test_a_stored_file_that_is_not_its_source(archive: Path) -> None:
    def change(row: IndexRow) -> IndexRow:
        return replace(row, source_sha256=bytes(32)) if row.key == "wide/cut.jpg" else row

    result = verify_archive(altered(archive, change), ["*"])
    assert [(one.key, one.check) for one in result.failures] == [("wide/cut.jpg", "original")]


def test_an_index_that_lies_about_sizes(archive: Path) -> None:
    def change(row: IndexRow) -> IndexRow:
        return replace(row, width=7) if row.key == "grey.png" else row

    result = verify_archive(altered(archive, change), ["*"])
    assert [one.key for one in result.failures] == ["grey.png"] and "7x" in result.failures[0].message


def test_sources_are_compared_again(archive: Path, sources: Path) -> None:
    opened = Archive.open(str(archive))
    result = verify_archive(opened, source=str(sources))
    assert result.ok
    assert (result.sources_compared, result.sources_missing, result.sources_changed) == (PICTURES, 0, 0)

    (sources / "grey.png").unlink()
    (sources / "alpha.png").write_bytes(b"something else")
    result = verify_archive(opened, source=str(sources))
    assert result.ok
    assert (result.sources_compared, result.sources_missing, result.sources_changed) == (PICTURES - 2, 1, 1)
    assert result.sources_not_archived == 0

    (sources / "photos" / "new.png").write_bytes(b"later")
    result = verify_archive(opened, source=str(sources))
    assert result.ok and result.sources_not_archived == 1
    result = verify_archive(opened, source=str(sources / "photos"))  # keys are others from there
    assert not result.ok and "what the archive was made from" in result.failures[0].message


def test_side_data_that_are_not_the_sources(archive: Path, sources: Path) -> None:
    opened = Archive.open(str(archive))
    place, rotated = opened.row("alpha.png"), opened.row("photos/rotated.jpg")
    side = unpack_side(opened.side(place))
    assert side.alpha is not None and rotated.side_length and place.side_offset is not None and place.side_length
    other = pack_side(replace(side, alpha=np.zeros_like(side.alpha)))
    assert len(other) <= place.side_length
    path = archive / "shards" / place.shard
    data = bytearray(path.read_bytes())
    data[place.side_offset : place.side_offset + len(other)] = other
    path.write_bytes(data)

    def change(row: IndexRow) -> IndexRow:
        if row.key == "alpha.png":
            return replace(row, side_length=len(other), side_crc32c=crc32c(other))
        none = {"side_offset": None, "side_length": None, "side_crc32c": None}
        return replace(row, **none) if row.key == "photos/rotated.jpg" else row

    assert verify_archive(altered(archive, change), ["*"]).ok  # nothing tells without the sources
    result = verify_archive(altered(archive, change), ["*"], source=str(sources))
    said = {one.key: one.message for one in result.failures}
    assert said == {
        "alpha.png": "its alpha plane is not the source's",
        "photos/rotated.jpg": "its EXIF is not the source's",
    }


def test_a_picture_worse_than_recorded_fails_against_its_source(archive: Path, sources: Path) -> None:
    def change(row: IndexRow) -> IndexRow:
        better = {"photos/budgie.jpg": 0.5, "photos/rotated.jpg": 0.02}.get(row.key, 0.0)
        return replace(row, psnr=row.psnr + better) if row.psnr is not None else row

    result = verify_archive(altered(archive, change), ["*"], source=str(sources))
    assert [(one.key, one.check) for one in result.failures] == [("photos/budgie.jpg", "source")]
    strict = verify_archive(altered(archive, change), ["*"], source=str(sources), tolerance=0.001)
    assert [one.key for one in strict.failures] == ["photos/budgie.jpg", "photos/rotated.jpg"]


def test_an_empty_archive_is_not_all_good(tmp_path: Path) -> None:
    result = verify_archive(Archive.create(str(tmp_path / "empty")))
    assert result.ok and result.pictures == 0 and result.exit_code == 1
