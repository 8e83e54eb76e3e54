"""Jobs, plans, shards, commits, splits: whatever races or dies, one result is visible."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from lichen.errors import (
    CorruptArchive,
    DuplicateKey,
    LeaseLost,
    StoreError,
    VerificationFailed,
)
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.commit import (
    commit_shard,
    read_commit,
)
from lichen.pipeline.archive.index_file import open_index
from lichen.pipeline.archive.job import (
    create_job,
    finish_job,
    list_jobs,
    read_job,
    read_progress,
    unfinished_jobs,
    write_progress,
)
from lichen.pipeline.archive.plan import (
    Grouping,
    PlannedShard,
    group_sources,
    read_plan,
    read_summary,
    write_plan,
)
from lichen.pipeline.archive.rejects import Quarantined, Skipped, read_table
from lichen.pipeline.archive.shard import ShardWriter, crc32c
from lichen.pipeline.archive.snapshot_writer import write_snapshot
from lichen.pipeline.archive.store import Store, open_store
from lichen.pipeline.sources import Source

SMALL = Grouping(target_bytes=100, max_sources=4)


def sources(count: int, size: int | None = 30) -> list[Source]:
    return [
        Source(key=f"k{n:04d}", uri=f"file:///x/{n}", size=size, mtime=1.5 + n, etag=None, offset=None)
        for n in range(count)
    ]


# --- jobs -------------------------------------------------------------------------------------------


def test_job_records(store: Store) -> None:
    config = {"source": "s3://x", "quality": 50, "nested": {"a": [1, None]}}
    one = create_job(store, config, ["cd" * 32])
    two = create_job(store, {}, [], after="29990101T000000-ffffff")
    assert read_job(store, one.job) == one
    assert one.config == config
    assert two.job > "29990101T000000-ffffff"
    assert list_jobs(store) == [one.job, two.job]
    assert [job.job for job in unfinished_jobs(store)] == [one.job, two.job]
    assert finish_job(store, one.job, 3).snapshot == 3
    assert finish_job(store, one.job, None, "abandoned").state == "finished"
    assert [job.job for job in unfinished_jobs(store)] == [two.job]
    assert read_progress(store, two.job) is None
    write_progress(store, two.job, {"done": 1})
    write_progress(store, two.job, {"done": 2})
    assert (read_progress(store, two.job) or {})["done"] == 2


# --- plans ------------------------------------------------------------------------------------------


def test_grouping_by_bytes_and_by_count() -> None:
    job = layout.new_job_id()
    shards = list(group_sources(sources(10), job, Grouping(target_bytes=90, max_sources=100)))
    assert [len(shard.sources) for shard in shards] == [3, 3, 3, 1]
    assert [shard.shard for shard in shards] == [f"{job}.{n:05d}" for n in range(4)]
    assert [len(s.sources) for s in group_sources(sources(9), job, Grouping(max_sources=4))] == [4, 4, 1]
    unknown = Grouping(target_bytes=100, unknown_size=60)
    assert [len(s.sources) for s in group_sources(sources(3, None), job, unknown)] == [2, 1]
    huge = [*sources(1, 10**9), Source(key="z", uri="u", size=1, mtime=None, etag=None, offset=5)]
    assert [len(s.sources) for s in group_sources(huge, job, SMALL)] == [1, 1]
    assert list(group_sources([], job)) == []


def test_every_shard_is_in_the_archive_before_it_is_handed_out(store: Store, new_job: Callable[..., str]) -> None:
    job = new_job(store)
    handed_out = []
    for shard in write_plan(store, job, iter(sources(40)), SMALL):
        handed_out.append(shard)
        assert shard in list(read_plan(store, job))
        if len(handed_out) == 1:
            assert len(list(read_plan(store, job))) == 1  # work begins after one shard is listed
    assert handed_out == list(read_plan(store, job)) == list(group_sources(sources(40), job, SMALL))
    summary = read_summary(store, job)
    assert summary is not None
    assert (summary.shards, summary.sources, summary.bytes) == (10, 40, 1200)


def test_a_plan_goes_on_where_its_driver_died(store: Store, new_job: Callable[..., str]) -> None:
    job = new_job(store)

    class Died(Exception):
        pass

    def dying() -> Iterator[Source]:
        yield from sources(17)
        raise Died

    with pytest.raises(Died):
        list(write_plan(store, job, dying(), SMALL))
    frozen = list(read_plan(store, job))
    assert 0 < len(frozen) < 10 and read_summary(store, job) is None
    # The folder has changed meanwhile: one file more in front, another order.
    again = [Source(key="new", uri="u", size=1, mtime=None, etag=None, offset=None), *reversed(sources(40))]
    shards = list(write_plan(store, job, again, SMALL))
    assert shards[: len(frozen)] == frozen
    keys = [source.key for shard in shards for source in shard.sources]
    assert sorted(keys) == sorted(source.key for source in again)

    def never() -> Iterator[Source]:
        raise AssertionError("a complete plan is not listed again")
        yield

    assert list(write_plan(store, job, never(), SMALL)) == shards


def test_two_drivers_cannot_write_one_plan(memory: Store, new_job: Callable[..., str]) -> None:
    job = new_job(memory)
    rival: list[PlannedShard] = []

    def interrupted() -> Iterator[Source]:
        yield from sources(20)
        rival.extend(write_plan(memory, job, sources(40), SMALL))
        yield from sources(40)[20:]

    with pytest.raises(LeaseLost):
        list(write_plan(memory, job, interrupted(), SMALL))
    assert list(read_plan(memory, job)) == rival
    assert sum(len(shard.sources) for shard in rival) == 40


def test_an_empty_plan(memory: Store, new_job: Callable[..., str]) -> None:
    job = new_job(memory)
    assert list(write_plan(memory, job, [])) == []
    summary = read_summary(memory, job)
    assert summary is not None and summary.shards == 0


# --- shards -----------------------------------------------------------------------------------------


def test_a_shard_writes_what_it_was_given(store: Store, new_job: Callable[..., str], row: Any) -> None:
    job = new_job(store)
    with ShardWriter(store, layout.shard_id(job, 0)) as writer:
        one = writer.append(b"payload", b"side")
        two = writer.append(b"")
        assert (one.offset, one.length, one.side_offset, one.side_length) == (0, 7, 7, 4)
        assert (two.offset, two.length, two.side_offset) == (11, 0, None)
        assert (one.crc32c, two.crc32c) == (crc32c(b"payload"), 0)
        assert writer.read(7, 4) == b"side"
        writer.add(row(one, "b", b"original", width=3, height=2, mode="RGB"))
        writer.add(row(two, "a", b""))
        writer.quarantine("q", "file:///q", PermissionError("no"), size=5)
        writer.skip("s", "file:///s.txt", "not a picture")
        for add in (
            lambda: writer.add(row(one, "a", b"")),
            lambda: writer.skip("q", "u", "twice"),
            lambda: writer.quarantine("b", "u", OSError()),
        ):
            with pytest.raises(DuplicateKey):
                add()
        commit = writer.publish(summary={"seconds": 1.5})
    assert commit.sources == 4
    assert commit.totals == {
        "pictures": 2,
        "compressed": 0,
        "packed": 0,
        "stored": 2,
        "source_bytes": 8,
        "payload_bytes": 11,
        "side_bytes": 4,
        "pixels": 6,
    }
    assert store.read(f"shards/{commit.payload.file}") == b"payloadside"
    assert commit.payload.sha256 == hashlib.sha256(b"payloadside").hexdigest()
    assert commit.quarantine is not None and commit.skipped is not None
    table = read_table(store, f"jobs/{job}/quarantine/{commit.quarantine.file}", Quarantined)
    assert table.to_pylist()[0]["error"] == "PermissionError"
    table = read_table(store, f"jobs/{job}/skipped/{commit.skipped.file}", Skipped)
    assert table.to_pylist()[0]["reason"] == "not a picture"
    commit_shard(store, commit)
    assert read_commit(store, commit.shard) == commit


def test_the_spool_is_removed_and_memory_holds_no_payloads(memory: Store, tmp_path: Path) -> None:
    import tracemalloc

    chunk = os.urandom(1 << 20)
    with ShardWriter(memory, "20260101T000000-aaaaaa.00000", spool=tmp_path) as writer:
        tracemalloc.start()
        for _ in range(64):
            writer.append(chunk)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert os.fstat(writer._spool.fileno()).st_size >= 63 << 20
        assert list(tmp_path.iterdir()) == []  # nothing that a killed process could leave behind
    assert peak < 2 << 20
    assert writer._spool.closed


def test_a_full_disk_is_an_error_of_the_store(memory: Store) -> None:
    with ShardWriter(memory, "20260101T000000-aaaaaa.00000") as writer:
        writer._spool.close()
        writer._spool = open("/dev/full", "w+b")  # noqa: SIM115
        with pytest.raises(StoreError, match="space"):
            writer.append(bytes(1 << 20))
        writer.append(b"little")  # still in the buffer
        with pytest.raises(StoreError, match="space"):
            writer.read(0, 1)
        with pytest.raises(StoreError, match="space"):
            writer.publish()


def test_threads_may_append(memory: Store, new_job: Callable[..., str], row: Any) -> None:
    job = new_job(memory)
    originals = {f"k{n}": os.urandom(n * 10) for n in range(200)}
    with ShardWriter(memory, layout.shard_id(job, 0)) as writer:

        def add(key: str) -> None:
            writer.add(row(writer.append(originals[key]), key, originals[key]))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(add, originals))
        commit = writer.publish()
    data = memory.read(f"shards/{commit.payload.file}")
    assert len(data) == sum(map(len, originals.values()))
    commit_shard(memory, commit)
    snapshot = write_snapshot(memory, job)
    [file] = open_index(memory, snapshot)
    for found in file.read_all().to_pylist():
        assert data[found["offset"] : found["offset"] + found["length"]] == originals[found["key"]]


def test_a_store_that_loses_bytes_is_caught(tmp_path: Path, row: Any) -> None:
    """A real file system whose writes are cut: the device at fault, not the code."""
    store = open_store(str(tmp_path / "archive"))
    with ShardWriter(store, "20260101T000000-aaaaaa.00000") as writer:
        writer.add(row(writer.append(b"x" * 1000), "k", b"x" * 1000))
        writer._spool.flush()
        # Between spool and store one byte changes.
        with writer._path.open("r+b") as spool:
            spool.seek(500)
            spool.write(b"y")
        with pytest.raises(VerificationFailed):
            writer.publish()
        assert not store.exists(f"shards/{writer.file}")


def test_rows_must_fit_the_payload(memory: Store, row: Any) -> None:
    from dataclasses import replace

    with ShardWriter(memory, "20260101T000000-aaaaaa.00000") as writer:
        location = writer.append(b"12345")
        writer.add(row(replace(location, length=6), "k", b""))
        with pytest.raises(CorruptArchive):
            writer.publish()
        with pytest.raises(ValueError, match="located"):
            writer.add(row(replace(location, shard="20260101T000000-aaaaaa.00001-0123456789ab.bin"), "l", b""))
