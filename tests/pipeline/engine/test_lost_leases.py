"""A driver that lost its lease stops, and writes no snapshot: on some stores nothing else keeps two apart."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from lichen.errors import LeaseLost
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.job import list_jobs, read_done
from lichen.pipeline.archive.lease import Lease, acquire
from lichen.pipeline.archive.snapshot import snapshot_numbers
from lichen.pipeline.archive.store import Store, open_store
from lichen.pipeline.engine import driver
from lichen.pipeline.engine.config import JobConfig
from lichen.pipeline.engine.driver import _Driver, run_job
from lichen.pipeline.engine.progress import JobProgress

Pictures = Callable[..., Path]
Make = Callable[..., JobConfig]
TTL = 0.6


class Rival:
    """Another driver, which takes over and waits until that was noticed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.noticed = threading.Event()
        honest = Lease.renew

        def renew(lease: Lease) -> None:
            try:
                honest(lease)
            except LeaseLost:
                self.noticed.set()
                raise

        monkeypatch.setattr(Lease, "renew", renew)
        monkeypatch.setattr(driver, "acquire", partial(acquire, ttl=TTL))

    def take_over(self, store: Store, job: str) -> None:
        folder = layout.lease_folder(job)
        first = store.read(f"{folder}/00000000.json")
        store.create(f"{folder}/00000001.json", first)
        assert self.noticed.wait(20)


def test_at_work(
    config: Make, pictures: Pictures, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="lichen")
    rival, made = Rival(monkeypatch), config(pictures(6), shard_pictures=1)
    store, seen = open_store(made.archive), []

    def report(progress: JobProgress) -> None:
        seen.append(progress.shards_done)
        if not rival.noticed.is_set():
            rival.take_over(store, progress.job)

    with pytest.raises(LeaseLost):
        run_job(made, report)
    assert len(seen) == 1  # not another round
    [name] = list_jobs(store)
    assert snapshot_numbers(store) == [] and read_done(store, name) is None
    told = [(one.getMessage(), getattr(one, "job", None)) for one in caplog.records]
    assert {("lease of the job taken, generation 0", name), ("lease lost, another driver has it", name)} <= set(told)


def test_before_the_snapshot(config: Make, pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    rival, made = Rival(monkeypatch), config(pictures(2))
    store, honest = open_store(made.archive), _Driver._check_commits

    def check(self: _Driver, *arguments: object) -> None:
        honest(self, *arguments)  # type: ignore[arg-type]
        rival.take_over(store, list_jobs(store)[0])

    monkeypatch.setattr(_Driver, "_check_commits", check)
    with pytest.raises(LeaseLost):
        run_job(made)
    assert snapshot_numbers(store) == [] and read_done(store, list_jobs(store)[0]) is None
