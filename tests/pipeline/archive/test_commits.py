"""Commits: of many attempts one counts, and a late parent never beside its children."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from lichen.errors import (
    CommitConflict,
)
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.commit import (
    ShardCommit,
    ShardSplit,
    children_of,
    commit_shard,
    counting_commits,
    job_state,
    list_commits,
    read_commit,
    split_shard,
)
from lichen.pipeline.archive.index_file import open_index
from lichen.pipeline.archive.plan import (
    PlannedShard,
)
from lichen.pipeline.archive.snapshot_writer import write_snapshot
from lichen.pipeline.archive.store import Store
from lichen.pipeline.sources import Source


def sources(count: int, size: int | None = 30) -> list[Source]:
    return [
        Source(key=f"k{n:04d}", uri=f"file:///x/{n}", size=size, mtime=1.5 + n, etag=None, offset=None)
        for n in range(count)
    ]


def test_one_of_many_attempts_counts(store: Store, new_job: Callable[..., str], publish: Any) -> None:
    job = new_job(store)
    shard = layout.shard_id(job, 0)
    attempts = [publish(store, shard, {"k": b"%d" % n}) for n in range(6)]
    barrier = threading.Barrier(len(attempts))

    def run(commit: ShardCommit) -> bool:
        barrier.wait()
        try:
            commit_shard(store, commit)
        except CommitConflict:
            return False
        return True

    with ThreadPoolExecutor(len(attempts)) as pool:
        won = list(pool.map(run, attempts))
    assert won.count(True) == 1
    winner = attempts[won.index(True)]
    commit_shard(store, winner)  # once more is harmless
    assert read_commit(store, shard) == winner
    assert [commit.attempt for commit in counting_commits(list_commits(store, job), job)] == [winner.attempt]


def planned_shard(job: str, count: int, number: int = 0) -> PlannedShard:
    return PlannedShard(shard=layout.shard_id(job, number), sources=tuple(sources(count)))


def test_a_late_parent_cannot_commit_beside_its_children(
    store: Store, new_job: Callable[..., str], publish: Any
) -> None:
    job = new_job(store)
    parent = planned_shard(job, 5)
    originals = {source.key: source.key.encode() for source in parent.sources}
    late = publish(store, parent.shard, originals)
    split = split_shard(store, parent, "its worker was killed twice")
    assert isinstance(split, ShardSplit)
    with pytest.raises(CommitConflict):
        commit_shard(store, late)
    children = children_of(parent, split)
    assert [source for child in children for source in child.sources] == list(parent.sources)
    first, second = children
    # The second child is split again; one grandchild is still open.
    again = split_shard(store, second, "and again")
    assert isinstance(again, ShardSplit)
    grandchildren = children_of(second, again)
    for shard in (first, grandchildren[1]):
        commit_shard(store, publish(store, shard.shard, {s.key: b"child" for s in shard.sources}))
    state = job_state([parent], list_commits(store, job))
    assert [shard.shard for shard in state.open] == [f"{parent.shard}.1.0"]
    assert [commit.shard for commit in state.committed] == [f"{parent.shard}.0", f"{parent.shard}.1.1"]
    only = grandchildren[0]
    commit_shard(store, publish(store, only.shard, {s.key: b"child" for s in only.sources}))
    snapshot = write_snapshot(store, job)
    assert snapshot.rows == 5
    rows = open_index(store, snapshot)[0].read_all(["key", "shard"]).to_pylist()
    assert {row["key"] for row in rows} == set(originals)
    assert all(late.attempt not in row["shard"] for row in rows)


def test_a_split_that_comes_too_late_gives_way(store: Store, new_job: Callable[..., str], publish: Any) -> None:
    job = new_job(store)
    parent = planned_shard(job, 4)
    done = publish(store, parent.shard, {source.key: b"" for source in parent.sources})
    commit_shard(store, done)
    assert split_shard(store, parent, "too late") == done
    assert job_state([parent], list_commits(store, job)).committed == (done,)


def test_two_drivers_that_split_differently_follow_one_split(store: Store, new_job: Callable[..., str]) -> None:
    job = new_job(store)
    parent = planned_shard(job, 9)
    barrier = threading.Barrier(2)

    def run(parts: int) -> Any:
        barrier.wait()
        return split_shard(store, parent, "race", parts)

    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(run, (2, 3))
    assert one == two
    assert isinstance(one, ShardSplit)
    assert sum(len(child.sources) for child in children_of(parent, one)) == 9


def test_a_single_source_cannot_be_split(memory: Store, new_job: Callable[..., str]) -> None:
    with pytest.raises(ValueError, match="cannot be split"):
        split_shard(memory, planned_shard(new_job(memory), 1), "x")


def test_children_without_a_split_do_not_count(store: Store, new_job: Callable[..., str], publish: Any) -> None:
    job = new_job(store)
    shard = layout.shard_id(job, 0)
    commit_shard(store, publish(store, f"{shard}.0", {"stray": b"x"}))
    commit_shard(store, publish(store, shard, {"k": b"y"}))
    assert [commit.shard for commit in counting_commits(list_commits(store, job), job)] == [shard]
    assert write_snapshot(store, job).rows == 1


def test_drivers_commit_for_workers_where_creates_are_not_atomic(tmp_path: Path, publish: Any) -> None:
    store = Store(fsspec.filesystem("file", auto_mkdir=True), str(tmp_path), "plain")
    assert not store.probe()
    shard = "20260101T000000-aaaaaa.00000"
    one, two = (publish(store, shard, {"k": data}) for data in (b"1", b"2"))
    commit_shard(store, one)
    with pytest.raises(CommitConflict):
        commit_shard(store, two)
