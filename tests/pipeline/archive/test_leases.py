"""Leases: one driver at a time, whatever happens to it."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import pytest

from lichen.errors import JobInterrupted, LeaseHeld, LeaseLost
from lichen.pipeline.archive import lease
from lichen.pipeline.archive.job import create_job, list_jobs, unfinished_jobs
from lichen.pipeline.archive.lease import acquire, current, is_live
from lichen.pipeline.archive.marker import create_marker
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.store import Store, open_store


def test_one_driver_at_a_time(store: Store, new_job: Any) -> None:
    job = new_job(store)
    with acquire(store, job) as held:
        assert is_live(store, job)
        with pytest.raises(LeaseHeld):
            acquire(store, job)
        with acquire(store, new_job(store)):  # another job is free
            pass
        held.check()
    assert not is_live(store, job)
    with pytest.raises(LeaseLost):
        held.check()
    with acquire(store, job) as again:
        assert again.number == held.number + 1


def test_racing_drivers(store: Store, new_job: Any) -> None:
    job = new_job(store)
    barrier = threading.Barrier(5)

    def run(_: int) -> bool:
        barrier.wait()
        try:
            acquire(store, job)
        except LeaseHeld:
            return False
        return True

    with ThreadPoolExecutor(5) as pool:
        assert list(pool.map(run, range(5))).count(True) == 1


def test_a_lease_that_is_not_renewed_expires_and_its_holder_notices(
    memory: Store, new_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = new_job(memory)
    stalled = acquire(memory, job, ttl=0.3)  # not entered, so nothing renews it
    stalled.check()
    time.sleep(0.35)
    with pytest.raises(LeaseLost):
        stalled.check()
    with acquire(memory, job, ttl=0.3) as other:
        with pytest.raises(LeaseLost):
            stalled.renew()
        stalled.release()
        time.sleep(0.7)  # renewed from its thread
        other.check()
        assert is_live(memory, job)


def _hold(root: str, job: str, ready: Any) -> None:
    acquire(open_store(root), job, ttl=3600).__enter__()
    ready.set()
    time.sleep(600)


def test_the_lease_of_a_killed_driver_is_free_at_once(tmp_path: Path, new_job: Any) -> None:
    store = Archive.create(str(tmp_path)).store
    job = new_job(store)
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path), job, ready))
    process.start()
    assert ready.wait(60)
    with pytest.raises(LeaseHeld, match=str(process.pid)):
        acquire(store, job)
    process.kill()
    process.join()
    with acquire(store, job) as taken:
        assert taken.number == 1


def test_a_driver_on_another_machine_is_believed_until_it_expires(
    memory: Store, new_job: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = new_job(memory)
    with monkeypatch.context() as patch:
        patch.setattr(lease, "_host", lambda: "elsewhere")
        patch.setattr(os, "getpid", lambda: 2**30)
        acquire(memory, job, ttl=0.5)
    with pytest.raises(LeaseHeld, match="elsewhere"):
        acquire(memory, job)
    time.sleep(0.5)
    acquire(memory, job)


def test_the_lease_of_a_store_without_atomic_creates(tmp_path: Path) -> None:
    store = Store(fsspec.filesystem("file", auto_mkdir=True), str(tmp_path), "plain")
    assert not store.probe()
    with acquire(store, None):
        with pytest.raises(LeaseHeld):
            acquire(store, None)
        assert current(store, None) is not None


# --- two drivers that start at the same moment ------------------------------------------------------


def _drive(store: Store) -> str:
    """What a driver does before its work: goes on with an unfinished job, or creates one."""
    with acquire(store, None, wait=30):
        unfinished = unfinished_jobs(store)
        job = unfinished[0].job if unfinished else create_job(store, {}, []).job
        try:
            acquire(store, job)
        except LeaseHeld:
            return "held"
    return job


def test_drivers_that_start_together_create_one_job(place: Any) -> None:
    create_marker(place.store())
    barrier = threading.Barrier(3)

    def start(_: int) -> str:
        store = place.store()
        barrier.wait()
        return _drive(store)

    with ThreadPoolExecutor(3) as pool:
        answers = sorted(pool.map(start, range(3)))
    assert list_jobs(place.store()) == answers[:1] and answers[1:] == ["held", "held"]


def _drive_process(root: str, barrier: Any, results: Any) -> None:
    store = open_store(root)
    barrier.wait(timeout=60)
    results.put(_drive(store))
    barrier.wait(timeout=60)  # a process that is gone holds nothing


def test_processes_that_start_together_create_one_job(tmp_path: Path) -> None:
    store = Archive.create(str(tmp_path)).store
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    processes = [context.Process(target=_drive_process, args=(str(tmp_path), barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    answers = sorted(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join(timeout=60)
    assert list_jobs(store) == answers[:1] and answers[1] == "held"


def test_a_driver_that_died_while_it_decided_blocks_for_no_longer_than_its_lease(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(lease, "_host", lambda: "elsewhere")
        acquire(store, None, ttl=1.0)
    began = time.monotonic()
    with pytest.raises(LeaseHeld, match="elsewhere"):
        acquire(store, None, wait=0.3)
    assert time.monotonic() - began >= 0.3
    acquire(store, None, wait=20).release()
    assert time.monotonic() - began < 10
    assert lease.WAIT > lease.TIME_TO_LIVE


def test_waiting_can_be_stopped(memory: Store) -> None:
    stop = threading.Event()
    with acquire(memory, None):
        threading.Timer(0.3, stop.set).start()
        with pytest.raises(JobInterrupted):
            acquire(memory, None, wait=600, stop=stop)
