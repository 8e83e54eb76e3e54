"""Commits, splits, plans and job files as an enemy might write them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from lichen.errors import (
    CorruptArchive,
    StoreError,
    UnsupportedArchive,
)
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.commit import (
    commit_shard,
    job_state,
    list_commits,
    read_commit,
    split_shard,
)
from lichen.pipeline.archive.job import (
    read_done,
    read_job,
)
from lichen.pipeline.archive.manifest import SEAL, dump
from lichen.pipeline.archive.plan import (
    Grouping,
    PlannedShard,
    read_plan,
    read_summary,
    write_plan,
)
from lichen.pipeline.archive.snapshot_writer import write_snapshot
from lichen.pipeline.archive.store import Store
from lichen.pipeline.sources import Source

SMALL = Grouping(target_bytes=100, max_sources=4)


def sources(count: int) -> list[Source]:
    return [Source(key=f"k{n:04d}", uri=f"file:///x/{n}", size=30) for n in range(count)]


def sealed(record: dict[str, Any]) -> bytes:
    """A record with the right checksum, as an enemy would write it."""
    return dump({name: value for name, value in record.items() if name != SEAL})


def planned_shard(job: str, count: int) -> PlannedShard:
    return PlannedShard(shard=layout.shard_id(job, 0), sources=tuple(sources(count)))


@pytest.mark.parametrize(
    "change",
    [
        {"format": 0},
        {"format": "1"},
        {"kind": "other"},
        {"shard": "20260101T000000-aaaaaa.00009"},
        {"attempt": "../../x"},
        {"attempt": 5},
        {"sources": 2},
        {"sources": -1},
        {"sources": True},
        {"payload": None},
        {"payload": {"file": "../../../etc/passwd", "size": 1, "sha256": "00" * 32, "rows": 1}},
        {"index": []},
        {"totals": {}},
        {"totals": {"pictures": -1}},
        {"summary": 7},
        {"quarantine": {"file": "x", "size": 1, "sha256": "00" * 32, "rows": 0}},
    ],
)
def test_hostile_commits_are_refused(memory: Store, new_job: Any, publish: Any, change: dict[str, Any]) -> None:
    job = new_job(memory)
    commit = publish(memory, layout.shard_id(job, 0), {"k": b"x"})
    commit_shard(memory, commit)
    path = layout.commit_path(commit.shard)
    record = json.loads(memory.read(path))
    memory.put(path, sealed({**record, **change}))
    with pytest.raises(CorruptArchive):
        read_commit(memory, commit.shard)
    with pytest.raises(CorruptArchive):
        write_snapshot(memory, job)


@pytest.mark.parametrize(
    "children",
    [
        [],
        [(0, 9)],
        [(0, 4), (5, 9)],
        [(0, 5), (4, 9)],
        [(1, 4), (4, 9)],
        [(0, 0), (0, 9)],
        [(0, 4), (4, 10**30)],
        [(0, 4), (4, -9)],
        [(0, 4), (4, 8)],
    ],
)
def test_hostile_splits_are_refused(memory: Store, new_job: Any, children: list[tuple[int, int]]) -> None:
    job = new_job(memory)
    parent = planned_shard(job, 9)
    split_shard(memory, parent, "x")
    path = layout.commit_path(parent.shard)
    record = json.loads(memory.read(path))
    record["children"] = [
        {"shard": f"{parent.shard}.{n}", "begin": begin, "end": end} for n, (begin, end) in enumerate(children)
    ]
    memory.put(path, sealed(record))
    with pytest.raises(CorruptArchive):
        job_state([parent], list_commits(memory, job))


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"[" * 100_000, b"9" * 10_000])
def test_json_that_is_no_manifest_is_refused(memory: Store, new_job: Any, data: bytes) -> None:
    job = new_job(memory)
    memory.put(layout.job_path(job, "job.json"), data)
    with pytest.raises(CorruptArchive):
        read_job(memory, job)


def test_newer_formats_are_told_apart(memory: Store, new_job: Any) -> None:
    job = new_job(memory)
    memory.put(layout.job_path(job, "done.json"), b'{"format": 3}')
    with pytest.raises(UnsupportedArchive):
        read_done(memory, job)


def test_hostile_plans_are_refused(memory: Store, new_job: Any) -> None:
    job = new_job(memory)
    list(write_plan(memory, job, sources(3), SMALL))
    path = layout.plan_path(job, 0)
    good = memory.read(path)
    for data in (b"", b"PAR1" + bytes(50) + b"PAR1", good[: len(good) // 2]):
        memory.put(path, data)
        with pytest.raises(CorruptArchive):
            list(read_plan(memory, job))
    memory.put(path, good)
    other = new_job(memory)
    memory.put(layout.plan_path(other, 0), good)  # the plan of another job
    with pytest.raises(CorruptArchive):
        list(read_plan(memory, other))


@pytest.mark.parametrize("job", ["../x", "", "x/y", "20260101T000000-AAAAAA", "20260101T000000-aaaaaa\n"])
def test_job_names_do_not_lead_out(memory: Store, job: str) -> None:
    for operation in (read_job, read_done, list_commits, write_snapshot, read_summary):
        with pytest.raises((CorruptArchive, StoreError)):
            operation(memory, job)  # type: ignore[operator]
