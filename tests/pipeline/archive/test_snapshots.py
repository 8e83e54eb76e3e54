"""Snapshots, updates, crashes and garbage."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from archive_support import contents, opened

from lichen.errors import (
    ArchiveNotFound,
    CorruptArchive,
    DuplicateKey,
    StoreError,
    UsageError,
)
from lichen.pipeline.archive import layout, snapshot_writer
from lichen.pipeline.archive.commit import commit_shard
from lichen.pipeline.archive.gc import collect
from lichen.pipeline.archive.job import finish_job
from lichen.pipeline.archive.lease import acquire
from lichen.pipeline.archive.manifest import SEAL, dump
from lichen.pipeline.archive.payload_list import read_payloads
from lichen.pipeline.archive.snapshot import snapshot_numbers
from lichen.pipeline.archive.snapshot_writer import write_snapshot
from lichen.pipeline.archive.store import Store, open_store
from lichen.pipeline.archive.update import KNOWN_COLUMNS, diff_sources, diff_table
from lichen.pipeline.sources import Source

Fill = Callable[..., str]


# --- snapshots --------------------------------------------------------------------------------------


def test_jobs_add_up_and_old_snapshots_stay(store: Store, fill: Fill) -> None:
    first = fill(store, {"b": b"1", "d": b"2"}, {"a": b"3"})
    assert write_snapshot(store, first).number == 1
    second = fill(store, {"c": b"4", "b": b"new"}, {"e": b"5"}, after=first)
    two = write_snapshot(store, second)
    assert (two.number, two.parent, two.jobs, two.rows) == (2, 1, (first, second), 5)
    assert contents(store) == {"a": b"3", "b": b"new", "c": b"4", "d": b"2", "e": b"5"}
    assert contents(store, 1) == {"a": b"3", "b": b"1", "d": b"2"}
    assert two.totals["source_bytes"] == two.totals["payload_bytes"] == 7
    assert [payload.record.rows for payload in read_payloads(store, two)] == [1, 1, 2, 1]
    assert write_snapshot(store, second) == two  # nothing new, nothing written
    assert snapshot_numbers(store) == [1, 2]


def test_a_running_job_can_be_read(store: Store, fill: Fill, publish: Any) -> None:
    job = fill(store, {"a": b"1"})
    assert write_snapshot(store, job).rows == 1
    commit_shard(store, publish(store, layout.shard_id(job, 1), {"b": b"2"}))
    assert write_snapshot(store, job).number == 2
    assert contents(store) == {"a": b"1", "b": b"2"}


def test_the_newer_job_wins_whatever_the_order_of_snapshots(store: Store, fill: Fill) -> None:
    older = fill(store, {"k": b"old", "x": b"x"})
    newer = fill(store, {"k": b"new"}, after=older)
    write_snapshot(store, newer)
    write_snapshot(store, older)
    assert contents(store) == {"k": b"new", "x": b"x"}


def test_a_second_data_set_may_keep_what_is_there(store: Store, fill: Fill) -> None:
    one = fill(store, {"k": b"first"})
    write_snapshot(store, one)
    two = fill(store, {"k": b"second", "l": b"more"}, after=one, source="another")
    write_snapshot(store, two, existing="keep")
    assert contents(store) == {"k": b"first", "l": b"more"}
    three = fill(store, {"k": b"third", "l": b"other"}, after=two)  # of the same source as the first
    write_snapshot(store, three, existing="keep")
    assert contents(store) == {"k": b"third", "l": b"more"}


def test_racing_snapshots_lose_nothing(store: Store, fill: Fill) -> None:
    jobs = [fill(store, {f"job{n}": b"%d" % n}) for n in range(3)]
    barrier = threading.Barrier(len(jobs))

    def run(job: str) -> int:
        barrier.wait()
        return write_snapshot(store, job).number

    with ThreadPoolExecutor(len(jobs)) as pool:
        numbers = list(pool.map(run, jobs))
    assert sorted(numbers) == [1, 2, 3]
    assert contents(store) == {f"job{n}": b"%d" % n for n in range(3)}
    # The losers cleaned up behind them.
    files = [entry.path for entry in store.entries("snapshots")]
    assert len(files) == 9  # of each its JSON file, one of the index, and the list of payload files


def test_an_empty_job_makes_an_empty_snapshot(store: Store, new_job: Any) -> None:
    done = write_snapshot(store, new_job(store))
    assert (done.rows, done.index, read_payloads(store, done)) == (0, (), ())
    assert len(opened(store)) == 0 and list(opened(store)) == [] and "x" not in opened(store)


def test_a_key_twice_in_a_job_is_an_error(memory: Store, fill: Fill) -> None:
    job = fill(memory, {"k": b"1"}, {"k": b"2"})
    with pytest.raises(DuplicateKey):
        write_snapshot(memory, job)


def test_snapshots_of_many_files_and_row_groups(memory: Store, fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_writer, "PART_ROWS", 7)
    monkeypatch.setattr(snapshot_writer, "LEAST_ROWS", 3)
    originals = {f"k{n:03d}": b"%d" % n for n in range(30)}
    first = fill(memory, dict(list(originals.items())[::2]))
    write_snapshot(memory, first)
    second = fill(memory, dict(list(originals.items())[1::2]), after=first)
    done = write_snapshot(memory, second)
    assert len(done.index) > 2
    assert contents(memory) == originals
    assert "k0005" not in opened(memory) and "zzz" not in opened(memory) and "" not in opened(memory)


def test_a_snapshot_without_its_codec_is_not_written(memory: Store, new_job: Any, row: Any) -> None:
    from lichen.pipeline.archive.shard import ShardWriter

    job = new_job(memory)
    with ShardWriter(memory, layout.shard_id(job, 0)) as writer:
        values = {"status": "compressed", "codec": "cd" * 32, "width": 1, "height": 1, "mode": "L"}
        writer.add(row(writer.append(b"x"), "k", b"x", **values))
        commit_shard(memory, writer.publish())
    with pytest.raises(CorruptArchive, match="not in the archive"):
        write_snapshot(memory, job)


@pytest.mark.parametrize(
    "change",
    [
        {"format": None},
        {"snapshot": 2},
        {"rows": 7},
        {"rows": -1},
        {"job": "../x"},
        {"jobs": [1]},
        {"index": {}},
        {"payloads": [{"file": "../../x.bin", "size": 1, "sha256": "00" * 32, "rows": 1, "index_size": 1}]},
        {"codecs": {"../x": {"json": 1}}},
        {"codecs": {"ab" * 32: {"../json": 1}}},
        {"codecs": {"ab" * 32: {"json": -1}}},
        {"totals": {"pictures": "many"}},
        {"payloads": []},
    ],
)
def test_hostile_snapshots_are_refused(memory: Store, fill: Fill, change: dict[str, Any]) -> None:
    write_snapshot(memory, fill(memory, {"k": b"x"}))
    path = layout.snapshot_path(1)
    record = {name: value for name, value in json.loads(memory.read(path)).items() if name != SEAL}
    memory.put(path, dump({**record, **change}))
    with pytest.raises(CorruptArchive):
        opened(memory).row("k")


# --- updates ----------------------------------------------------------------------------------------


def source(key: str, size: int | None = None, mtime: float | None = None, etag: str | None = None) -> Source:
    return Source(key=key, uri=f"file:///{key}", size=size, mtime=mtime, etag=etag, offset=None)


def test_diff_of_sources() -> None:
    known = pa.table(
        {
            "key": ["a", "b", "c", "d", "e", "f", "g"],
            "source_bytes": [10] * 7,
            "source_mtime": pa.array([1_500_000, 1_500_000, None, 1_500_000, None, 7, 7], pa.timestamp("us", "UTC")),
            "source_etag": ["x", "x", None, None, None, None, None],
        }
    )
    assert set(known.column_names) == set(KNOWN_COLUMNS)
    found = diff_table(
        known,
        [
            source("new", 1),
            source("a", 10, 9.9, "x"),  # touched, but the same content
            source("b", 10, 1.5, "y"),
            source("c", 11),
            source("d", 10, 1.500001),
            source("e", 10, 3.3, "z"),  # nothing to compare but the size
            source("f", None, 7e-6),
        ],
    )
    assert [one.key for one in found.new] == ["new"]
    assert [one.key for one in found.changed] == ["b", "c", "d"]
    assert (found.unchanged, found.missing) == (3, ("g",))
    assert len(found.work) == 4


def test_what_was_skipped_is_not_new_again(store: Store, new_job: Any, row: Any) -> None:
    from lichen.pipeline.archive.shard import ShardWriter

    job = new_job(store)
    with ShardWriter(store, layout.shard_id(job, 0)) as writer:
        writer.add(row(writer.append(b"x"), "picture", b"x"))
        writer.skip("notes.txt", "u", "no picture", size=5, mtime=1.5)
        writer.skip("list.csv", "u", "no picture", size=6, etag="e")
        writer.quarantine("unreadable.jpg", "u", OSError("gone"), size=7)
        commit_shard(store, writer.publish())
    write_snapshot(store, job)
    listed = [
        source("picture", 1),
        source("notes.txt", 5, 1.5),
        source("list.csv", 6, etag="another"),
        source("unreadable.jpg", 7),
    ]
    found = diff_sources(opened(store), listed)
    assert (found.unchanged, found.skipped) == (1, 1)
    assert [one.key for one in found.new] == ["list.csv", "unreadable.jpg"]
    assert len(diff_sources(opened(store), listed, retry_skipped=True).new) == 3


def test_times_survive_the_index(memory: Store, new_job: Any, row: Any) -> None:
    from lichen.pipeline.archive.shard import ShardWriter

    job = new_job(memory)
    times = {f"k{n}": 1.76e9 + n * 1234.567891 for n in range(200)}
    with ShardWriter(memory, layout.shard_id(job, 0)) as writer:
        for key, mtime in times.items():
            writer.add(row(writer.append(b"x"), key, b"x", source_mtime=mtime))
        commit_shard(memory, writer.publish())
    write_snapshot(memory, job)
    for odd in (float("nan"), float("inf"), -1e300, 1e15):
        assert diff_sources(opened(memory), [source("k0", 1, odd)]).unchanged == 1
    same = [source(key, 1, mtime) for key, mtime in times.items()]
    assert diff_sources(opened(memory), same).unchanged == 200
    later = [source(key, 1, mtime + 2e-6) for key, mtime in times.items()]
    assert len(diff_sources(opened(memory), later).changed) == 200


# --- crashes and garbage ----------------------------------------------------------------------------


def test_what_was_never_committed_is_invisible_and_swept_later(
    store: Store, fill: Fill, publish: Any, new_job: Any
) -> None:
    job = fill(store, {"a": b"1"})
    # A worker died after its files, before its commit; another died between payload and index.
    dead = publish(store, layout.shard_id(job, 1), {"b": b"2"})
    store.put(layout.shard_path(layout.payload_file(layout.shard_id(job, 2), layout.new_attempt())), b"half")
    # A local writer died in the middle of a file.
    store.put(layout.temporary_path(), b"half")
    snapshot = write_snapshot(store, job)
    assert snapshot.rows == 1
    # A snapshot writer died before its JSON.
    index = store.read(layout.snapshot_file_path(snapshot.index[0].record.file))
    store.put("snapshots/00000001-0123456789ab-00000.parquet", index)
    assert contents(store) == {"a": b"1"}
    finish_job(store, job, 1)
    assert collect(store).garbage == ()  # all too young
    sweep = collect(store, older_than=-60, dry_run=True)
    assert len(sweep.garbage) == 5 and not sweep.deleted
    assert sweep.bytes > 10
    assert store.exists(layout.shard_path(dead.payload.file))
    assert len(collect(store, older_than=-60).garbage) == 5
    assert not store.exists(layout.shard_path(dead.payload.file))
    assert contents(store) == {"a": b"1"}
    assert collect(store, older_than=-60).garbage == ()


def test_unfinished_jobs_and_live_leases_are_spared(store: Store, fill: Fill, publish: Any) -> None:
    job = fill(store, {"a": b"1"})
    running = publish(store, layout.shard_id(job, 1), {"b": b"2"})
    with acquire(store, job):
        assert collect(store, older_than=-60).garbage == ()
    assert {entry.path for entry in collect(store, older_than=-60).garbage} == {
        layout.shard_path(running.payload.file),
        layout.shard_path(running.index.file),
    }
    write_snapshot(store, job)
    assert contents(store) == {"a": b"1"}


def test_replaced_payloads_go_with_the_snapshots_that_name_them(store: Store, fill: Fill) -> None:
    first = fill(store, {"a": b"old"}, {"b": b"stays"})
    finish_job(store, first, write_snapshot(store, first).number)
    second = fill(store, {"a": b"new"}, after=first)
    finish_job(store, second, write_snapshot(store, second).number)
    assert collect(store, older_than=-60).garbage == ()  # snapshot 1 needs them all
    assert contents(store, 1)["a"] == b"old"
    gone = collect(store, older_than=-60, keep_snapshots=1).garbage
    assert gone[0].path == "snapshots/00000001.json"  # the name goes before what it names
    assert len(gone) == 3 + 2  # its files, and the payload file of the old picture with its index part
    assert snapshot_numbers(store) == [2]
    assert contents(store) == {"a": b"new", "b": b"stays"}


def test_abandoned_jobs_are_swept(store: Store, fill: Fill) -> None:
    job = fill(store, {"a": b"1"})
    assert collect(store, older_than=-60).garbage == ()
    finish_job(store, job, None, "abandoned")
    assert len(collect(store, older_than=-60).garbage) == 2


def test_nothing_but_an_archive_is_ever_swept(tmp_path: Path, memory: Store) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "photo.jpg").write_bytes(b"precious")
    with pytest.raises(ArchiveNotFound):
        collect(open_store(str(tmp_path)), older_than=-60)
    assert (tmp_path / "shards" / "photo.jpg").exists()
    with pytest.raises(UsageError):
        collect(memory, keep_snapshots=0)
    memory.put("notes/of/mine.txt", b"kept")
    assert collect(memory, older_than=-60).garbage == ()


def test_a_lost_payload_file_is_reported(store: Store, fill: Fill) -> None:
    write_snapshot(store, fill(store, {"a": b"1"}))
    archive = opened(store)
    place = archive.place("a")
    store.delete([layout.shard_path(place.shard)])
    with pytest.raises(CorruptArchive):
        archive.payload(place)
    store.put(layout.shard_path(place.shard), b"")
    with pytest.raises(StoreError):
        archive.payload(replace(place))
