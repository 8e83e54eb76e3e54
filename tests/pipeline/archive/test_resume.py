"""A driver that is killed again and again, until the job is done."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

from lichen.pipeline.archive.commit import commit_shard, job_state, list_commits
from lichen.pipeline.archive.gc import collect
from lichen.pipeline.archive.index import IndexRow
from lichen.pipeline.archive.job import create_job, finish_job, unfinished_jobs
from lichen.pipeline.archive.lease import acquire
from lichen.pipeline.archive.plan import Grouping, write_plan
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.shard import ShardWriter
from lichen.pipeline.archive.snapshot_writer import write_snapshot
from lichen.pipeline.archive.store import open_store
from lichen.pipeline.sources import Source

COUNT = 400


def _content(number: int) -> bytes:
    return b"%d" % number * (number % 50)


def _sources() -> list[Source]:
    return [Source(key=f"{n:04d}", uri=f"made-up:{n}", size=len(_content(n))) for n in range(COUNT)]


def _drive(root: str, started: Any) -> None:
    """A whole job in one process: plan, shards, commits, snapshot."""
    store = open_store(root)
    jobs = unfinished_jobs(store)
    job = jobs[0].job if jobs else create_job(store, {}, []).job
    with acquire(store, job) as lease:
        started.set()
        planned = list(write_plan(store, job, _sources(), Grouping(max_sources=5)))
        for shard in job_state(planned, list_commits(store, job)).open:
            with ShardWriter(store, shard.shard) as writer:
                for source in shard.sources:
                    data = _content(int(source.key))
                    location = writer.append(data)
                    writer.add(
                        IndexRow(
                            key=source.key,
                            status="stored",
                            source_bytes=len(data),
                            source_sha256=hashlib.sha256(data).digest(),
                            **location.columns(),
                        )
                    )
                commit_shard(store, writer.publish())
        lease.check()
        finish_job(store, job, write_snapshot(store, job).number)


def test_a_driver_killed_at_any_moment_loses_and_doubles_nothing(tmp_path: Path) -> None:
    root = str(tmp_path / "archive")
    store = Archive.create(root).store
    context = multiprocessing.get_context("spawn")
    kills = 0
    committed = [0]
    for target in (0, 20, 45, None):
        started = context.Event()
        process = context.Process(target=_drive, args=(root, started))
        process.start()
        assert started.wait(60)
        if target is None:
            process.join(120)
            assert process.exitcode == 0
        else:
            deadline = time.monotonic() + 60
            while len(list(tmp_path.glob("archive/commits/*/*.json"))) < target and time.monotonic() < deadline:
                time.sleep(0.001)
            process.kill()
            process.join()
            [job] = [job.job for job in unfinished_jobs(store)]
            kills += process.exitcode != 0
            committed.append(len(list_commits(store, job)))
    assert kills == 3
    assert committed == sorted(committed) and 45 <= committed[-1] < COUNT / 5  # it was killed in the middle of its work
    archive = Archive.open(root)
    assert list(archive) == [f"{n:04d}" for n in range(COUNT)]
    assert all(archive.original(f"{n:04d}") == _content(n) for n in range(0, COUNT, 7))
    assert unfinished_jobs(store) == []
    collect(store, older_than=-60)
    referenced = {row.shard for row in archive.rows()}
    assert {name for name in os.listdir(tmp_path / "archive/shards") if name.endswith(".bin")} == referenced
