"""Reading: limits, regular files alone, and bytes that were damaged on their way."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sources_support import Bucket, Damage, tar_bytes

from lichen.errors import SourceUnreadable
from lichen.pipeline.sources import Source, list_sources, read_again, read_source
from lichen.pipeline.sources.fetch import part_sizes

DATA = hashlib.shake_256(b"a picture").digest(10_000)


# --- only regular files --------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [None, 0])
def test_pipes_and_devices_are_not_waited_for(tmp_path: Path, offset: int | None) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path, kind in ((tmp_path / "pipe.jpg", "a pipe"), (Path("/dev/zero"), "a device"), (tmp_path, "a folder")):
        source = Source(key="x", uri=str(path), size=5, offset=offset)
        for read in (read_source, lambda source: read_again(source, b"x")):
            with pytest.raises(SourceUnreadable, match=f"{path.name} is {kind}"):
                read(source)


def test_a_pipe_in_the_place_of_a_listed_file(tmp_path: Path) -> None:
    for name, data in (("a.jpg", b"A"), ("s.tar", tar_bytes({"b.jpg": b"B"}))):
        (tmp_path / name).write_bytes(data)
    sources = list(list_sources(str(tmp_path)))
    for name in ("a.jpg", "s.tar"):
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
    for source in sources:
        with pytest.raises(SourceUnreadable, match="is a pipe"):
            read_source(source)


def test_a_pipe_between_looking_and_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``stat`` saw a file; opening must not wait for a writer all the same."""
    path = tmp_path / "a.jpg"
    path.write_bytes(b"A")
    status = os.stat(path)
    path.unlink()
    os.mkfifo(path)
    real = os.stat
    monkeypatch.setattr(os, "stat", lambda name, **kw: status if str(name) == str(path) else real(name, **kw))
    with pytest.raises(SourceUnreadable, match="is a pipe"):
        read_source(Source(key="x", uri=str(path)))


# --- limits --------------------------------------------------------------------------------------


def peak_of(read: Callable[[], object]) -> int:
    tracemalloc.start()
    with pytest.raises(SourceUnreadable, match="--max-source-bytes"):
        read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_large_local_files(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    with path.open("wb") as file:
        file.truncate(3 << 30)  # without taking room on the disk
    [source] = list_sources(str(path))
    for size in (source.size, None):  # as listed, and as a manifest of elsewhere would bring it
        assert peak_of(lambda size=size: read_source(dataclasses.replace(source, size=size))) < 1 << 20  # type: ignore[misc]
    path.write_bytes(b"x" * 1000)
    [source] = list_sources(str(path))
    assert len(read_source(source, max_bytes=1000)) == 1000
    with pytest.raises(SourceUnreadable, match="1,000 bytes, and sources may have 999"):
        read_source(source, max_bytes=999)
    path.write_bytes(b"x" * 5000)  # it has grown since
    with pytest.raises(SourceUnreadable, match="5,000 bytes"):
        read_source(source, max_bytes=1000)


def test_files_without_a_size() -> None:
    """Files of the kernel are regular, say that they are empty, and may be long."""
    source = Source(key="x", uri="/proc/self/maps", size=0)
    assert len(read_source(source)) > 1000
    assert peak_of(lambda: read_source(source, max_bytes=1000)) < 4 << 20


def test_members_over_the_limit(tmp_path: Path) -> None:
    (tmp_path / "s.tar").write_bytes(tar_bytes({"a.jpg": b"a" * 2000, "b.jpg": b"b"}))
    large, small = list_sources(str(tmp_path))
    assert read_source(small, max_bytes=1000) == b"b"
    with pytest.raises(SourceUnreadable, match="--max-source-bytes"):
        read_source(large, max_bytes=1000)


def test_large_objects(bucket: Bucket, memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe_file("/x/a.jpg", bytes(20 << 20))
    bucket.file_system.pipe_file(f"{bucket.name}/a.jpg", bytes(20 << 20))
    for url in ("memory://x/a.jpg", f"{bucket.url}/a.jpg"):
        for size in (20 << 20, 10, None):  # true, a lie, and unknown
            source = Source(key="x", uri=url, size=size)
            with pytest.raises(SourceUnreadable, match="--max-source-bytes"):
                read_source(source, storage_options=bucket.options, max_bytes=1 << 20)
            if size != 10 or url.startswith("s3"):
                assert len(read_source(source, storage_options=bucket.options, max_bytes=20 << 20)) == 20 << 20


def test_an_answer_without_end(damage: Damage, s3_endpoint: str, bucket: Bucket) -> None:
    """A web server that sends more than it announced by its other answers, or than the listing told."""
    bucket.file_system.call_s3("put_object", Bucket=bucket.name, Key="a.jpg", Body=b"x", ACL="public-read")
    damage.change = lambda _path, _body, _headers: bytes(50 << 20)
    source = Source(key="x", uri=f"{damage.url}/{bucket.name}/a.jpg", size=1)
    assert peak_of(lambda: read_source(source, max_bytes=1 << 20)) < 100 << 20  # the proxy itself has 50 MiB
    damage.change = lambda _path, body, _headers: body
    assert read_source(source) == b"x"


# --- damage on the way ---------------------------------------------------------------------------

Change = Callable[[str, bytes, Mapping[str, str]], bytes]


def flip_one(place: int = 77) -> Change:
    """The same bit of every answer, wherever it lies in the object."""

    def change(_path: str, body: bytes, _headers: Mapping[str, str]) -> bytes:
        data = bytearray(body)
        if data:
            data[place % len(data)] ^= 1
        return bytes(data)

    return change


def flip_another() -> Change:
    """A bit of every answer, another one each time."""
    places = itertools.count(100, 37)

    def change(path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
        return flip_one(next(places))(path, body, headers)

    return change


def flip_first(times: int = 1) -> Change:
    """The first answers are damaged, the others are whole."""
    numbers = itertools.count()
    return lambda path, body, headers: flip_another()(path, body, headers) if next(numbers) < times else body


@pytest.fixture
def s3(damage: Damage, bucket: Bucket) -> dict[str, Any]:
    """Options of S3 behind the proxy, which drops the checksums that only some stores have."""
    damage.drop = lambda name: name.startswith("x-amz-checksum")
    bucket.file_system.pipe_file(f"{bucket.name}/a.jpg", DATA)
    return {**bucket.options, "client_kwargs": {**bucket.options["client_kwargs"], "endpoint_url": damage.url}}


def test_whole_answers_are_read_once(damage: Damage, bucket: Bucket, s3: dict[str, Any]) -> None:
    [source] = list_sources(f"{bucket.url}/a.jpg", storage_options=s3)
    assert source.etag == hashlib.md5(DATA).hexdigest()
    assert read_source(source, storage_options=s3) == DATA
    assert len(damage.reads) == 1


def flip_middle() -> Change:
    """The bit in the middle of every answer."""
    return lambda path, body, headers: flip_one(len(body) // 2)(path, body, headers)


def flip_end() -> Change:
    """A bit at the end of every answer."""
    return lambda path, body, headers: flip_one(max(0, len(body) - 9))(path, body, headers)


@pytest.mark.parametrize("size", [10_000, 9_999, 9_998, 50, 7])
@pytest.mark.parametrize("change", [flip_one, flip_another, flip_middle, flip_end])
def test_what_is_damaged_in_every_answer_is_never_taken(
    damage: Damage, bucket: Bucket, s3: dict[str, Any], change: Callable[[], Change], size: int
) -> None:
    """Also if every answer has the same damage: other pieces are asked for the second time."""
    bucket.file_system.pipe_file(f"{bucket.name}/a.jpg", DATA[:size])
    [source] = list_sources(f"{bucket.url}/a.jpg", storage_options=s3)
    damage.change = change()
    with pytest.raises(SourceUnreadable, match="different bytes"):
        read_source(source, storage_options=s3)


def test_checksums_of_the_store_count_too(damage: Damage, bucket: Bucket, s3: dict[str, Any]) -> None:
    """What uploads with a CRC is checked by the client; the ETag may say nothing then."""
    damage.drop = lambda name: name == "etag"
    source = Source(key="a", uri=f"{bucket.url}/a.jpg")
    damage.change = flip_first(2)
    assert read_source(source, storage_options=s3) == DATA
    damage.change = flip_one()
    with pytest.raises(SourceUnreadable, match="checksum"):
        read_source(source, storage_options=s3)


def test_a_second_read_gives_what_the_etag_tells(damage: Damage, bucket: Bucket, s3: dict[str, Any]) -> None:
    [source] = list_sources(f"{bucket.url}/a.jpg", storage_options=s3)
    for times in (1, 2, 3, 4):  # of the second read, one to three pieces, so that a third one is needed
        damage.change = flip_first(times)
        assert read_source(source, storage_options=s3) == DATA


def test_an_etag_need_not_be_an_md5(damage: Damage, bucket: Bucket, s3: dict[str, Any]) -> None:
    """Stores that encrypt or deduplicate have ETags that look like one: bytes that come twice are believed."""
    other = hashlib.md5(bytes(len(DATA))).hexdigest()
    bucket.file_system.call_s3("put_object", Bucket=bucket.name, Key="b.jpg", Body=bytes(len(DATA)))
    damage.change = lambda _path, _body, headers: DATA if "Range" not in headers else part(DATA, headers["Range"])
    source = Source(key="b", uri=f"{bucket.url}/b.jpg", etag=other)
    assert read_source(source, storage_options=s3) == DATA
    assert len(damage.reads) == 4


def test_objects_in_parts(damage: Damage, bucket: Bucket, s3: dict[str, Any]) -> None:
    """Their ETag is the MD5 of MD5s."""
    data = DATA * 1300
    for size in (5, 6, 12):
        bucket.file_system.pipe_file(f"{bucket.name}/large.jpg", data, chunksize=size << 20)
        [source] = list_sources(f"{bucket.url}/large.jpg", storage_options=s3)
        assert source.etag is not None and source.etag.endswith("" if size == 12 else "-3")
        damage.change, damage.reads[:] = flip_first(0), []
        assert read_source(source, storage_options=s3) == data and len(damage.reads) == 1
        damage.change = flip_first()
        assert read_source(source, storage_options=s3) == data and len(damage.reads) == 5


@given(st.integers(1, 1 << 32), st.integers(1, 500))
def test_sizes_of_parts(length: int, size: int) -> None:
    parts = -(-length // (size << 20))
    guessed = part_sizes(length, parts)
    assert all(-(-length // guess) == parts for guess in guessed) and len(guessed) <= 24
    if parts > 1 and size in (5, 8, 16, 50):
        assert size << 20 in guessed


def part(data: bytes, wanted: str) -> bytes:
    start, _, end = wanted.removeprefix("bytes=").partition("-")
    return data[int(start) : int(end) + 1 if end else None]


def test_over_http_too(damage: Damage, bucket: Bucket, s3: dict[str, Any]) -> None:
    bucket.file_system.call_s3("put_object_acl", Bucket=bucket.name, Key="a.jpg", ACL="public-read")
    source = Source(key="a", uri=f"{damage.url}/{bucket.name}/a.jpg")
    damage.change = flip_first()
    assert read_source(source) == DATA
    damage.change = flip_one()
    with pytest.raises(SourceUnreadable, match="different bytes"):
        read_source(source)


def test_an_answer_that_is_cut_is_asked_for_again(
    damage: Damage, bucket: Bucket, s3: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="lichen")
    numbers = itertools.count()
    damage.change = lambda _path, body, _headers: body[:5000] if next(numbers) == 0 else body
    [source] = list_sources(f"{bucket.url}/a.jpg", storage_options=s3)
    assert read_source(source, storage_options=s3) == DATA
    [told] = [one for one in caplog.records if one.name.startswith("lichen.")]
    assert told.getMessage().endswith("reading it again") and told.key == source.key  # type: ignore[attr-defined]


def test_reading_again_decides(damage: Damage, bucket: Bucket, s3: dict[str, Any]) -> None:
    """Where no checksum is known, such as of members of tar files, whoever finds damage asks again."""
    bucket.file_system.pipe_file(f"{bucket.name}/s.tar", tar_bytes({"m.jpg": DATA}))
    [member] = list_sources(f"{bucket.url}/s.tar", storage_options=s3)
    damage.change = flip_first()
    damaged = read_source(member, storage_options=s3)
    assert damaged != DATA
    assert read_again(member, damaged, storage_options=s3) == DATA
    damage.change = lambda _path, body, _headers: body
    count = len(damage.reads)
    assert read_again(member, DATA, storage_options=s3) == DATA  # the source itself is what it is
    assert len(damage.reads) == count + 3
    for change in (flip_one(), flip_another()):
        damage.change = change
        with pytest.raises(SourceUnreadable, match="different bytes"):
            read_again(member, read_source(member, storage_options=s3), storage_options=s3)


def test_reading_again_locally(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"true")
    [source] = list_sources(str(tmp_path))
    assert read_again(source, b"true") == b"true"
    assert read_again(source, b"false") == b"true"
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(SourceUnreadable, match=r"a\.jpg"):
        read_again(source, b"true")


@pytest.mark.parametrize("size", [0, 1, 2, 3])
def test_tiny_objects_again(bucket: Bucket, size: int) -> None:
    bucket.file_system.pipe_file(f"{bucket.name}/a.jpg", DATA[:size])
    source = Source(key="a", uri=f"{bucket.url}/a.jpg")
    assert read_source(source, storage_options=bucket.options) == DATA[:size]
    assert read_again(source, DATA[:size], storage_options=bucket.options) == DATA[:size]
