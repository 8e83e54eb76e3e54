"""What every store must do: one suite over local disk, memory and S3."""

from __future__ import annotations

import multiprocessing
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from lichen.errors import CorruptArchive, MissingObject, StoreError, UsageError
from lichen.pipeline.archive.store import LocalStore, Store, open_store


@pytest.fixture
def bare(place: Any) -> Store:
    return place.store()


def test_create_is_put_if_absent(bare: Store) -> None:
    assert bare.create("a/b.json", b"first")
    assert not bare.create("a/b.json", b"second")
    assert bare.read("a/b.json") == b"first"
    assert bare.probe() is True


def test_places_that_cannot_hold_an_archive_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="name of the archive is empty"):
        open_store("")  # and not the working directory
    (tmp_path / "b.jpg").write_bytes(b"mine")
    for url in ("b.jpg", str(tmp_path / "b.jpg"), f"file://{tmp_path}/b.jpg"):
        with pytest.raises(UsageError, match="an archive is a folder"):
            open_store(url)
    assert os.listdir() == ["b.jpg"]


def test_writing_where_nothing_can_be_says_what_to_do(s3_options: dict[str, Any]) -> None:
    for store in (open_store("s3://no-bucket-of-this-name/archive", s3_options), open_store("/proc/archive")):
        for write in (store.create, store.put):
            with pytest.raises(StoreError, match="make it first") as caught:
                write("a/b.json", b"data")
            assert not isinstance(caught.value, MissingObject)


def test_racing_creators_have_one_winner(bare: Store) -> None:
    racers = 8
    for race in range(6):
        barrier = threading.Barrier(racers)

        def attempt(number: int, race: int = race, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return bare.create(f"race/{race}", b"%d" % number * 1000)

        with ThreadPoolExecutor(racers) as pool:
            won = list(pool.map(attempt, range(racers)))
        assert won.count(True) == 1
        assert bare.read(f"race/{race}") == b"%d" % won.index(True) * 1000


def _race(root: str, races: int, number: int, barrier: Any, results: Any) -> None:
    store = open_store(root)
    won = []
    for race in range(races):
        barrier.wait(timeout=60)
        if store.create(f"race/{race}", b"%d" % number * 5000):
            won.append(race)
    results.put((number, won))


def test_racing_processes_on_a_local_disk_have_one_winner(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    racers, races = 3, 100
    barrier, results = context.Barrier(racers), context.Queue()
    arguments = [(str(tmp_path), races, number, barrier, results) for number in range(racers)]
    processes = [context.Process(target=_race, args=one) for one in arguments]
    for process in processes:
        process.start()
    answers = dict(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(timeout=60)
    winners = sorted(race for won in answers.values() for race in won)
    assert winners == list(range(races))
    for number, won in answers.items():
        for race in won:
            assert (tmp_path / f"race/{race}").read_bytes() == b"%d" % number * 5000
    assert list((tmp_path / ".tmp").iterdir()) == []


def test_a_lost_answer_is_no_lost_race(s3_url: str, s3_options: dict[str, Any]) -> None:
    """A client that repeats a request whose answer was lost is told that the object exists: its own."""
    store = open_store(s3_url, s3_options)
    assert store.create("x", b"attempt 1")
    assert store.create("x", b"attempt 1")
    assert not store.create("x", b"attempt 2")


def test_reading(bare: Store) -> None:
    data = bytes(range(256)) * 10
    bare.put("f/x.bin", data)
    assert bare.exists("f/x.bin") and not bare.exists("f/y.bin")
    assert bare.size("f/x.bin") == len(data)
    assert bare.read("f/x.bin") == data
    assert bare.read_range("f/x.bin", 250, 20) == data[250:270]
    assert bare.read_range("f/x.bin", len(data), 0) == b""
    with bare.open("f/x.bin") as file:
        file.seek(-10, os.SEEK_END)
        assert file.read() == data[-10:]
        file.seek(5)
        assert (file.read(3), file.tell()) == (data[5:8], 8)


def test_ranges_of_many_files_are_joined_and_come_in_order(bare: Store) -> None:
    files = {f"d/{n}.bin": os.urandom(5000) for n in range(3)}
    for path, data in files.items():
        bare.put(path, data)
    wanted = [(path, start, length) for start, length in ((4000, 900), (0, 10), (20, 0), (8, 50)) for path in files]
    assert bare.read_ranges(wanted) == [files[path][a : a + n] for path, a, n in wanted]
    assert bare.read_ranges([]) == []


def test_put_overwrites_and_takes_empty_data(bare: Store) -> None:
    bare.put("x", b"old and long")
    bare.put("x", b"new")
    bare.put("empty", b"")
    assert (bare.read("x"), bare.read("empty"), bare.size("empty")) == (b"new", b"", 0)


@pytest.mark.parametrize("size", [0, 1000, 40 * 1024 * 1024])
def test_files_of_any_size_are_uploaded(bare: Store, tmp_path: Path, size: int) -> None:
    local = tmp_path / "spool"
    local.write_bytes(os.urandom(size))
    bare.put_file("shards/big.bin", local)
    assert bare.size("shards/big.bin") == size
    assert bare.read("shards/big.bin") == local.read_bytes()


def test_listing_and_deleting(bare: Store) -> None:
    assert bare.entries("nothing") == []
    for path in ("a/2", "a/1", "a/sub/3", "b/4"):
        bare.put(path, path.encode())
    assert [(entry.path, entry.size) for entry in bare.entries("a")] == [
        ("a/1", 3),
        ("a/2", 3),
        ("a/sub/3", 7),
    ]
    assert len(bare.entries()) == 4
    assert all(entry.modified > 1.7e9 for entry in bare.entries())
    bare.delete(["a/1", "a/never"])
    assert not bare.exists("a/1")
    assert [entry.path for entry in bare.entries("a")] == ["a/2", "a/sub/3"]


def test_a_second_client_sees_writes_at_once(place: Any) -> None:
    one, two = place.store(), place.store()
    assert two.entries("a") == []
    one.put("a/x", b"1")
    assert [entry.path for entry in two.entries("a")] == ["a/x"]
    one.put("a/y", b"2")
    assert [entry.path for entry in two.entries("a")] == ["a/x", "a/y"]


def test_errors_are_ours(bare: Store, tmp_path: Path) -> None:
    with pytest.raises(MissingObject):
        bare.read("none")
    with pytest.raises(MissingObject):
        bare.size("none")
    with pytest.raises(MissingObject):
        bare.read_range("none", 0, 1)
    with pytest.raises(MissingObject):
        bare.put_file("x", tmp_path / "no such file")
    bare.put("ten", b"0123456789")
    for offset, length in ((5, 6), (10, 1), (100, 5), (-1, 2), (2, -1)):
        with pytest.raises(StoreError):
            bare.read_range("ten", offset, length)
    with pytest.raises(CorruptArchive):
        bare.read("ten", limit=9)
    assert bare.read("ten", limit=10) == b"0123456789"
    bare.put("empty", b"")
    assert bare.read("empty", limit=9) == b""


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "a//b", "", ".", "a\\..\\b", "a\0b"])
def test_no_path_leads_out(bare: Store, path: str) -> None:
    for operation in (bare.read, bare.exists, lambda p: bare.put(p, b""), lambda p: bare.create(p, b"")):
        with pytest.raises(StoreError):
            operation(path)


def test_unreachable_and_refused_places() -> None:
    options = {
        "key": "x",
        "secret": "x",
        "client_kwargs": {"endpoint_url": "http://127.0.0.1:9", "region_name": "us-east-1"},
        "config_kwargs": {"connect_timeout": 1, "retries": {"max_attempts": 0}},
    }
    with pytest.raises(StoreError):
        open_store("s3://nobody/x", options).read("x")
    with pytest.raises(UsageError):
        open_store("nosuchprotocol://x")


def test_a_missing_bucket_is_an_error(s3_url: str, s3_options: dict[str, Any]) -> None:
    store = open_store("s3://no-such-bucket-here/x", s3_options)
    with pytest.raises(StoreError):
        store.create("a", b"")


def test_nothing_half_written_on_a_full_or_broken_disk(tmp_path: Path) -> None:
    """A write that fails midway leaves no name and no temporary file."""
    store = open_store(str(tmp_path))
    assert isinstance(store, LocalStore)

    def chunks() -> Any:
        yield b"half"
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        store._write(chunks())
    assert store.entries() == []


def test_stores_without_conditional_create_say_so(tmp_path: Path) -> None:
    """A file system that fsspec knows but that gives no such guarantee: check, then write."""
    store = Store(fsspec.filesystem("file", auto_mkdir=True), str(tmp_path), "plain")
    assert store.probe() is False
    assert store.create("x", b"1") and not store.create("x", b"2")
    assert store.read("x") == b"1"


def test_a_folder_that_cannot_be_listed_is_not_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(str(tmp_path))
    store.put("a/b", b"1")

    def broken(path: Any) -> Any:
        raise OSError(24, "too many open files", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", broken)
        with pytest.raises(StoreError, match="too many open files"):
            store.entries()
    assert [entry.path for entry in store.entries()] == ["a/b"]
    assert store.entries("c") == []
    real = os.scandir

    def refused(path: Any) -> Any:
        if os.path.basename(path) in ("lost+found", "commits"):
            raise PermissionError(13, "permission denied", str(path))
        return real(path)

    (tmp_path / "lost+found").mkdir()
    monkeypatch.setattr(os, "scandir", refused)
    assert [entry.path for entry in store.entries()] == ["a/b"]  # that one is none of ours
    (tmp_path / "commits").mkdir()
    with pytest.raises(StoreError, match="permission denied"):
        store.entries()
