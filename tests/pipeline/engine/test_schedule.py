"""Decisions without workers: what follows a death, how nodes are divided."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping

import pytest
from jobs_support import job_config

from lichen.errors import SourceUnreadable, StoreError, TooManyFailures, UsageError
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.commit import ShardCommit, ShardSplit, commit_shard, read_commit, split_shard
from lichen.pipeline.archive.marker import create_marker
from lichen.pipeline.archive.plan import Grouping, PlannedShard, read_plan
from lichen.pipeline.archive.shard import ShardWriter
from lichen.pipeline.archive.store import Store, open_store
from lichen.pipeline.engine.executor import Blame, Died, Failed, Finished
from lichen.pipeline.engine.messages import Counts, ShardResult, ShardTask
from lichen.pipeline.engine.planner import Planner
from lichen.pipeline.engine.resources import Resources, plan_resources
from lichen.pipeline.engine.schedule import LAST_DEATHS, ROOT_DEATHS, SPLIT_PARTS, Schedule
from lichen.pipeline.sources import Source

POISON = "k13"


@pytest.fixture
def store() -> Store:
    store = open_store(f"memory://{uuid.uuid4().hex}")
    create_marker(store)
    return store


def planned(count: int) -> PlannedShard:
    sources = tuple(Source(key=f"k{n:02d}", uri=f"/none/{n}", size=1) for n in range(count))
    return PlannedShard(shard=layout.shard_id(layout.new_job_id(), 0), sources=sources)


def published(store: Store, task: ShardTask) -> ShardCommit:
    with ShardWriter(store, task.shard, attempt=task.attempt) as writer:
        for source in task.sources:
            writer.quarantine(source.key, source.uri, SourceUnreadable("gone"))
        return writer.publish()


def died(task: ShardTask, blame: Blame = Blame.YES) -> Died:
    return Died(task=task, blame=blame, message="killed")


def test_the_poison_picture_is_found_and_stored(store: Store) -> None:
    schedule = Schedule(store, max_failures=3)
    schedule.add(planned(30))
    deaths = 0
    alone: list[ShardTask] = []
    while len(schedule):
        task = schedule.next_task()
        if any(source.key == POISON for source in task.sources) and not task.store_only:
            deaths += 1
            schedule.handle(died(task))
            continue
        if task.store_only:
            alone.append(task)
        schedule.handle(Finished(task=task, result=ShardResult(commit=published(store, task), committed=None)))
    assert [source.key for task in alone for source in task.sources] == [POISON]
    assert deaths <= ROOT_DEATHS + 3  # 30 sources, then 8, 2 and 1
    assert schedule.splits == 3
    assert schedule.counts.sources == schedule.fresh.sources == 30


def test_a_worker_that_was_taken_away_is_nobodys_fault(store: Store) -> None:
    schedule = Schedule(store, max_failures=3)
    schedule.add(planned(2))
    for _ in range(20):
        schedule.handle(died(schedule.next_task(), Blame.NO))
    assert (len(schedule), schedule.splits) == (1, 0)


def test_of_two_suspects_each_gets_a_worker_for_itself(store: Store) -> None:
    schedule = Schedule(store, max_failures=3)
    schedule.add(planned(2))
    schedule.add(planned(2))
    one, two = schedule.next_task(), schedule.next_task()
    assert not one.solo and not two.solo
    for task in (one, two):
        schedule.handle(died(task, Blame.PERHAPS))
    assert schedule.next_is_solo
    assert schedule.next_task().solo and schedule.next_task().solo
    assert schedule.splits == 0


def test_a_dead_workers_commit_counts(store: Store) -> None:
    schedule = Schedule(store, max_failures=3)
    schedule.add(planned(4))
    task = schedule.next_task()
    commit_shard(store, published(store, task))
    schedule.handle(died(task))
    assert (len(schedule), schedule.counts.quarantined, schedule.shards) == (0, 4, 1)


def test_a_late_parent_loses_against_its_split(store: Store) -> None:
    shard = planned(8)
    schedule = Schedule(store, max_failures=3)
    schedule.add(shard)
    late = schedule.next_task()
    split = split_shard(store, shard, "another driver", SPLIT_PARTS)
    assert isinstance(split, ShardSplit)
    schedule.handle(Finished(task=late, result=ShardResult(commit=published(store, late), committed=None)))
    assert isinstance(read_commit(store, shard.shard), ShardSplit)
    assert (len(schedule), schedule.counts.sources) == (SPLIT_PARTS, 0)


def test_errors_are_tried_again_but_not_for_ever(store: Store) -> None:
    schedule = Schedule(store, max_failures=3)
    schedule.add(planned(1))
    for _ in range(2):
        schedule.handle(Failed(task=schedule.next_task(), error=StoreError("busy")))
    with pytest.raises(TooManyFailures, match="busy"):
        schedule.handle(Failed(task=schedule.next_task(), error=StoreError("busy")))


def test_a_file_that_kills_even_unseen_ends_the_job(store: Store) -> None:
    schedule = Schedule(store, max_failures=3)
    schedule.add(planned(1))
    for number in range(LAST_DEATHS - 1):
        task = schedule.next_task()
        assert task.store_only == (number >= ROOT_DEATHS)
        schedule.handle(died(task))
    task = schedule.next_task()
    assert task.store_only
    with pytest.raises(TooManyFailures):
        schedule.handle(died(task))


def test_the_planner_passes_on_what_the_listing_raises(store: Store) -> None:
    def listing() -> Iterator[Source]:
        yield from (Source(key=f"k{n}", uri="/none", size=1) for n in range(3))
        raise UsageError("the listing broke")

    def take_all(planner: Planner) -> None:
        while not planner.complete:
            planner.take(10)

    job = layout.new_job_id()
    with (
        Planner(store, job, listing(), Grouping(max_sources=1), {}) as planner,
        pytest.raises(UsageError, match="broke"),
    ):
        take_all(planner)
    assert list(read_plan(store, job))  # what was planned before stays


@pytest.mark.parametrize(
    ("nodes", "changes", "expected"),
    [
        ([{"CPU": 8}], {}, Resources(workers=1, cpus=8, gpus=0)),
        ([{"CPU": 8}], {"cpus_per_worker": 2}, Resources(workers=4, cpus=2, gpus=0)),
        ([{"CPU": 8}, {"CPU": 16}], {}, Resources(workers=3, cpus=8, gpus=0)),
        ([{"CPU": 16, "GPU": 4}, {"CPU": 2}], {}, Resources(workers=4, cpus=4, gpus=1)),
        ([{"CPU": 16, "GPU": 4}], {"device": "cpu"}, Resources(workers=1, cpus=16, gpus=0)),
        ([{"CPU": 12, "GPU": 2}], {"gpus_per_worker": 0.5}, Resources(workers=4, cpus=3, gpus=0.5)),
        ([{"CPU": 12, "GPU": 4}], {"gpus_per_worker": 2}, Resources(workers=2, cpus=6, gpus=2)),
        ([{"CPU": 2}], {"workers": 2, "cpus_per_worker": 1}, Resources(workers=2, cpus=1, gpus=0)),
        ([{"CPU": 8}], {"workers": 2}, Resources(workers=2, cpus=4, gpus=0)),
        ([{"CPU": 8}, {"CPU": 8}], {"workers": 3}, Resources(workers=3, cpus=4, gpus=0)),
        ([{}, {"CPU": 16}, {"CPU": 16}], {}, Resources(workers=2, cpus=16, gpus=0)),
    ],
)
def test_nodes_are_divided_into_workers(
    nodes: list[Mapping[str, float]], changes: dict[str, object], expected: Resources
) -> None:
    config = job_config("x", "y", **changes)
    assert plan_resources(nodes, config) == expected


def test_workers_that_fit_nowhere_are_refused() -> None:
    for changes in ({"gpus_per_worker": 1}, {"cpus_per_worker": 64}, {"cpus_per_worker": 64, "workers": 2}):
        with pytest.raises(UsageError, match="no node"):
            plan_resources([{"CPU": 8}], job_config("x", "y", **changes))
    for changes in ({"workers": 9}, {"workers": 3, "cpus_per_worker": 4}):
        with pytest.raises(UsageError, match="do not fit"):
            plan_resources([{"CPU": 8}], job_config("x", "y", **changes))
    growing = job_config("x", "y", gpus_per_worker=1, cpus_per_worker=4, workers=9, address="auto")
    assert plan_resources([{"CPU": 8}], growing) == Resources(workers=9, cpus=4, gpus=1)


def test_counts_add_up() -> None:
    one = Counts(compressed=1, pixels=8, compressed_bytes=2, compressed_pixels=8, seconds={"read": 1.0})
    two = one + Counts(stored=2, seconds={"read": 0.5, "open": 1.0})
    assert (two.sources, two.bpp, two.seconds) == (3, 2.0, {"read": 1.5, "open": 1.0})
    assert Counts().bpp is None
    assert Counts(source_bytes=10, payload_bytes=4).savings == pytest.approx(0.6)
