"""Lanes that decode: order, what is on the way at once, large pictures, and what goes wrong in one of them."""

from __future__ import annotations

import io
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from learned_support import new_network, photograph
from PIL import Image

from lichen.errors import UsageError
from lichen.models.classical import CLASSICAL_NAMES
from lichen.models.codec import Codec
from lichen.models.device import find_device
from lichen.models.registry import export as export_codec
from lichen.models.registry import load_codec, load_files
from lichen.pipeline import unpack as unpacking
from lichen.pipeline.archive.decoding import other_size
from lichen.pipeline.archive.index import IndexRow, Placement
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.export import export
from lichen.pipeline.unpack import Unpacked, unpack
from lichen.pipeline.verify import verify_archive

SIDE = 48
COUNT = 40
LARGE = ("07", "08", "21", "39")
"""Of twice the side."""


def picture(seed: int, side: int = SIDE) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photograph()[seed : seed + side, seed : seed + side]).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def many(write_archive: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """Compressed pictures of which some are larger, and two stored originals."""
    names = [f"{n:02d}" for n in range(COUNT)]
    files = {name: picture(n, 2 * SIDE if name in LARGE else SIDE) for n, name in enumerate(names)}
    files["11"] = files["12"] = b"\xff\xd8\xff no picture"
    files = {f"{name}.jpg": data for name, data in files.items()}
    return write_archive(tmp_path_factory.mktemp("many") / "archive", files, shards=3)


@pytest.fixture
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every picture is a group of its own."""
    monkeypatch.setattr(unpacking, "group_pixels", lambda _codec: 1)


def opened(url: str | Path) -> tuple[Archive, list[IndexRow]]:
    archive = Archive.open(str(url))
    return archive, list(archive.rows())


def key(item: Unpacked[IndexRow]) -> str:
    return item.place.key


@pytest.mark.parametrize("lanes", [1, 3, None])
def test_results_come_in_the_order_of_the_places(many: str, one_by_one: None, lanes: int | None) -> None:
    archive, rows = opened(many)
    rows = rows[::-1]
    found = list(unpack(archive, rows, key, lanes=lanes))
    assert [one for some in found for one in some] == [row.key for row in rows]
    assert len(found) == COUNT
    assert list(unpack(archive, [], key)) == []


def test_a_lane_takes_what_the_codec_runs_together(many: str, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, rows = opened(many)
    assert list(map(len, unpack(archive, rows, key))) == [COUNT]
    monkeypatch.setattr(unpacking, "group_pixels", lambda _codec: 4 * SIDE**2)
    sizes = [(row.width or 0) * (row.height or 0) if row.status == "compressed" else row.length for row in rows]
    start = 0
    for some in unpack(archive, rows, key):
        stop = start + len(some)
        assert sum(sizes[start:stop]) <= 4 * SIDE**2
        assert stop == COUNT or sum(sizes[start : stop + 1]) > 4 * SIDE**2
        start = stop
    assert start == COUNT


def test_lanes_work_side_by_side(many: str, one_by_one: None) -> None:
    archive, rows = opened(many)
    meeting = threading.Barrier(4)

    def work(_item: Unpacked[IndexRow]) -> int:
        return meeting.wait(timeout=30)  # breaks unless four lanes get here

    found = [one for some in unpack(archive, rows, work, lanes=4) for one in some]
    assert sorted(found) == sorted(list(range(4)) * (COUNT // 4))


@pytest.mark.parametrize(("most_bytes", "most"), [(None, 2 * unpacking.AHEAD_GROUPS + 1), (1, 2)])
def test_no_more_is_on_its_way_than_fits(
    many: str, one_by_one: None, monkeypatch: pytest.MonkeyPatch, most_bytes: int | None, most: int
) -> None:
    if most_bytes is not None:
        monkeypatch.setattr(unpacking, "AHEAD_BYTES", most_bytes)
    archive, rows = opened(many)
    worked: list[str] = []
    taken = 0
    for _ in unpack(archive, rows, lambda item: worked.append(item.place.key), lanes=2):
        assert len(worked) - taken <= most
        taken += 1
    assert taken == COUNT


def test_large_pictures_are_alone(many: str, one_by_one: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "LARGE_PIXELS", SIDE**2)
    archive, rows = opened(many)
    inside: list[str] = []
    crowds: list[list[str]] = []
    lock = threading.Lock()
    scene = photograph()[:128, :128]

    def work(item: Unpacked[IndexRow]) -> None:
        with lock:
            inside.append(item.place.key[:2])
        with io.BytesIO() as file:  # takes a while without the GIL
            Image.fromarray(scene).save(file, "PNG", compress_level=6)
        with lock:
            crowds.append(list(inside))
            inside.remove(item.place.key[:2])

    list(unpack(archive, rows, work, lanes=3))
    assert len(crowds) == COUNT
    assert any(len(crowd) > 1 for crowd in crowds)
    assert all(len(crowd) == 1 for crowd in crowds if set(crowd) & set(LARGE))


def test_a_damaged_picture_is_told_apart_from_its_group(many: str, tmp_path: Path) -> None:
    url = tmp_path / "archive"
    shutil.copytree(many, url)
    archive, rows = opened(url)
    for row in (rows[3], rows[12]):
        path = url / "shards" / row.shard
        data = bytearray(path.read_bytes())
        data[row.offset + 5] ^= 1
        path.write_bytes(data)
    items = [item for some in unpack(archive, rows, lambda item: item, lanes=2) for item in some]
    assert [n for n, item in enumerate(items) if item.error is not None] == [3, 12]
    assert {n for n, item in enumerate(items) if item.decoded is None} == {3, 11, 12}
    assert items[11].payload == b"\xff\xd8\xff no picture"


def test_without_the_codec_originals_still_come(many: str, tmp_path: Path) -> None:
    url = tmp_path / "archive"
    shutil.copytree(many, url)
    archive, rows = opened(url)
    for path in (url / "codecs").iterdir():
        path.unlink()
    result = export(archive, [rows], tmp_path / "out", lanes=2)
    assert (result.written, result.originals) == (2, 2)
    stored_order = sorted(rows, key=lambda row: (row.shard, row.offset))
    assert [problem.key for problem in result.problems] == [r.key for r in stored_order if r.status == "compressed"]
    assert all("missing" in problem.message for problem in result.problems)


def test_what_work_raises_ends_it(many: str, one_by_one: None) -> None:
    archive, rows = opened(many)
    worked: list[str] = []

    def work(item: Unpacked[IndexRow]) -> None:
        worked.append(item.place.key)
        if item.place.key == "02.jpg":
            raise ZeroDivisionError

    threads = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        list(unpack(archive, rows, work, lanes=2))
    assert len(worked) < COUNT
    assert threading.active_count() == threads


def test_who_stops_listening_stops_the_lanes(many: str, one_by_one: None) -> None:
    archive, rows = opened(many)
    worked: list[str] = []
    threads = threading.active_count()
    found = unpack(archive, rows, lambda item: worked.append(item.place.key), lanes=2)
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert len(worked) < COUNT
    assert threading.active_count() == threads


def test_no_lanes_are_refused(many: str) -> None:
    archive, rows = opened(many)
    with pytest.raises(UsageError, match="0 lanes"):
        list(unpack(archive, rows, key, lanes=0))


def test_files_are_the_same_whatever_the_lanes(many: str, one_by_one: None, tmp_path: Path) -> None:
    archive, rows = opened(many)
    written: list[dict[str, bytes]] = []
    for lanes in (1, 3):
        folder = tmp_path / str(lanes)
        assert export(archive, [rows], folder, lanes=lanes).problems == ()
        written.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert written[0] == written[1]
    assert len(written[0]) == COUNT
    with Image.open(tmp_path / "3" / "00.png") as image:
        assert np.array_equal(np.asarray(image), archive.array("00.jpg"))


def test_networks_in_lanes_decode_the_symbols_that_were_encoded(
    write_archive: Callable[..., str], tmp_path: Path, one_by_one: None
) -> None:
    codec: Codec = load_files(export_codec(new_network(), "small", {}), find_device("cpu", "float32"))
    files = {f"{n}.png": picture(n, 70 + n) for n in range(6)}
    url = write_archive(tmp_path / "archive", files, codec=codec)
    result = verify_archive(Archive.open(url), lanes=3)
    assert result.ok
    assert (result.pictures, result.compressed) == (6, 6)
    assert result.pixels == sum((70 + n) ** 2 for n in range(6))


def test_a_bitstream_of_another_size_than_its_row_is_not_decoded(
    write_archive: Callable[..., str], tmp_path: Path
) -> None:
    """Groups are cut by the index, so what a header says beyond it must not be allocated."""
    codec: Codec = load_files(export_codec(new_network(), "small", {}), find_device("cpu", "float32"))
    url = write_archive(tmp_path / "archive", {"a.png": picture(1, 90), "b.png": picture(2, 80)}, codec=codec)
    archive, rows = opened(url)
    honest = next(row for row in rows if row.key == "b.png")
    lying = replace(next(row for row in rows if row.key == "a.png"), width=1, height=1)
    (items,) = unpack(archive, [lying, honest], lambda item: item)
    assert "90x90" in str(items[0].error) and items[0].decoded is None
    assert items[1].error is None and items[1].decoded is not None


@pytest.mark.parametrize("name", sorted({*CLASSICAL_NAMES} - {"avif", "avif-psnr"}))
def test_nor_is_one_of_a_classical_codec(name: str) -> None:
    """Of half a bitstream, whose size nobody can tell by decoding it."""
    [encoded] = load_codec(name).encode([photograph()[:90, :90]], 90)
    half = encoded.bitstream[: len(encoded.bitstream) // 2]
    place = Placement(
        key="a",
        status="compressed",
        shard="x",
        offset=0,
        length=len(half),
        crc32c=0,
        width=90,
        height=90,
        source_bytes=1,
    )
    assert other_size(place, half) is None
    assert "90x90" in str(other_size(replace(place, width=1, height=1), half))
