"""An archive that lost files: nobody calls it good, nothing of it is swept, and what can be made again is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import pytest

from lichen.errors import CorruptArchive
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.commit import ShardCommit, list_commits
from lichen.pipeline.archive.gc import collect
from lichen.pipeline.archive.job import finish_job
from lichen.pipeline.archive.losses import lost_jobs, lost_payloads, restore_jobs
from lichen.pipeline.archive.marker import read_marker
from lichen.pipeline.archive.payload_list import read_payloads
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.snapshot import latest_snapshot
from lichen.pipeline.archive.snapshot_writer import write_snapshot
from lichen.pipeline.archive.store import Store
from lichen.pipeline.verify import verify_archive


class Place(Protocol):
    """Where the archive of a test lives."""

    url: str
    options: dict[str, Any]


Fill = Callable[..., str]


def finish(store: Store, job: str) -> None:
    finish_job(store, job, write_snapshot(store, job).number)


@pytest.fixture
def jobs(store: Store, fill: Fill) -> list[str]:
    """Two finished jobs; the second has a newer picture of ``b``."""
    first = fill(store, {"a": b"a" * 50, "b": b"old"}, {"c": b"c" * 60})
    finish(store, first)
    second = fill(store, {"b": b"new" * 20}, {"d": b"d" * 40}, after=first)
    finish(store, second)
    return [first, second]


def originals(store: Store) -> dict[str, bytes]:
    archive = Archive(store, read_marker(store), latest_snapshot(store))
    return {key: archive.original(key) for key in archive}


def lose(store: Store, *numbers: int) -> None:
    store.delete([layout.snapshot_path(number) for number in numbers])


@pytest.mark.parametrize("numbers", [(2,), (1, 2)])
def test_a_lost_snapshot_is_told_and_made_again(
    place: Place, store: Store, jobs: list[str], numbers: tuple[int, ...]
) -> None:
    before = originals(store)
    assert lost_jobs(store) == ()
    lose(store, *numbers)
    assert lost_jobs(store) == tuple(jobs[-len(numbers) :])
    left = {entry.path for entry in store.entries()}
    with pytest.raises(CorruptArchive, match=r"newest snapshot .* is gone"):
        collect(store, older_than=-60)
    assert {entry.path for entry in store.entries()} == left
    if len(numbers) == 2:
        with pytest.raises(CorruptArchive, match=r"newest snapshot .* is gone"):
            Archive.open(place.url, place.options)
    else:
        result = verify_archive(Archive.open(place.url, place.options))
        assert [failure.file for failure in result.failures] == ["snapshots"]
        assert result.exit_code == 4
    assert restore_jobs(store) == tuple(jobs[-len(numbers) :])
    assert originals(store) == before
    assert restore_jobs(store) == ()
    collect(store, older_than=-60, keep_snapshots=1)
    assert originals(store) == before


def test_an_older_snapshot_is_complete_without_later_jobs(place: Place, store: Store, jobs: list[str]) -> None:
    lose(store, 2)
    restore_jobs(store)
    assert verify_archive(Archive.open(place.url, place.options, snapshot=1)).ok


def test_what_was_swept_since_stays_out(store: Store, fill: Fill) -> None:
    """A payload file whose last picture was replaced may be gone when its job's snapshot is made again."""
    first = fill(store, {"a": b"old"}, {"c": b"c" * 60})
    finish(store, first)
    second = fill(store, {"a": b"new" * 9}, after=first)
    finish(store, second)
    before = originals(store)
    collect(store, older_than=-60, keep_snapshots=1)
    lose(store, 2)
    assert restore_jobs(store) == (first, second)
    assert originals(store) == before


def test_an_index_part_that_is_gone_hides_no_payload_file(store: Store, jobs: list[str]) -> None:
    """Its pictures are still there: leaving them out would make garbage of them."""
    lose(store, 2)
    commit = next(one for one in list_commits(store, jobs[1]).values() if isinstance(one, ShardCommit))
    store.delete([layout.shard_path(commit.index.file)])
    with pytest.raises(CorruptArchive, match=r"is missing, but was committed.*Put it back"):
        restore_jobs(store)
    with pytest.raises(CorruptArchive):
        collect(store, older_than=-60)


@pytest.mark.parametrize("which", ["payload", "index"])
def test_no_snapshot_of_committed_files_that_are_gone(store: Store, fill: Fill, which: str) -> None:
    job = fill(store, {"a": b"a" * 50}, {"b": b"b" * 50})
    commit = next(one for one in list_commits(store, job).values() if isinstance(one, ShardCommit))
    path = layout.shard_path(commit.payload.file if which == "payload" else commit.index.file)
    data = store.read(path)
    for damage in (None, data[:-1]):
        store.delete([path])
        if damage is not None:
            store.put(path, damage)
        with pytest.raises(CorruptArchive, match=rf"{path} .*{layout.commit_path(commit.shard)}"):
            write_snapshot(store, job)
        assert latest_snapshot(store) is None
    store.put(path, data)
    assert write_snapshot(store, job).rows == 2


def test_payload_files_that_are_gone_or_cut(store: Store, jobs: list[str]) -> None:
    snapshot = latest_snapshot(store)
    assert snapshot is not None
    assert lost_payloads(store, snapshot) == set()
    first, second, *_ = [one.record.file for one in read_payloads(store, snapshot)]
    store.delete([layout.shard_path(first)])
    store.put(layout.shard_path(second), b"cut")
    assert lost_payloads(store, snapshot) == {first, second}


def test_a_job_of_another_archive_was_not_lost_here(store: Store, jobs: list[str], memory: Store, fill: Fill) -> None:
    other = fill(memory, {"x": b"x"})
    finish(memory, other)
    for name in ("job.json", "done.json"):
        path = layout.job_path(other, name)
        store.put(path, memory.read(path))
    assert lost_jobs(store) == ()
