"""Garbage: what no snapshot, no commit and no live lease needs (section 9 of docs/format.md)."""

from __future__ import annotations

import time
from dataclasses import dataclass

from lichen.models.errors import UsageError
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.commit import ShardCommit, counting_commits, list_commits
from lichen.pipeline.archive.job import list_jobs, read_done
from lichen.pipeline.archive.lease import is_live
from lichen.pipeline.archive.marker import read_marker
from lichen.pipeline.archive.snapshot import Snapshot, read_snapshot, snapshot_numbers
from lichen.pipeline.archive.store import Entry, Store

DAY = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What a sweep found: garbage in the order of deletion, and what was too young to judge."""

    garbage: tuple[Entry, ...]
    young: int
    deleted: bool

    @property
    def bytes(self) -> int:
        return sum(entry.size for entry in self.garbage)


def collect(
    store: Store, *, older_than: float = DAY, keep_snapshots: int | None = None, dry_run: bool = False
) -> Sweep:
    """Delete garbage older than ``older_than`` seconds, and all but the newest ``keep_snapshots`` snapshots.

    The age is by the store's clock as this machine sees it; keep it longer than a shard takes. Raises
    ``ArchiveNotFound`` where there is no archive, so that no other folder is ever swept.
    """
    if keep_snapshots is not None and keep_snapshots < 1:
        raise UsageError("at least one snapshot must be kept")
    read_marker(store)
    limit = time.time() - older_than
    # The listing comes first: whatever is created after it is not in it, hence not deleted.
    entries = store.entries()
    written = {entry.path: entry.modified for entry in entries}
    # Jobs before snapshots: a job that is seen finished has its snapshot, which is then seen too.
    needed, shielded = _needed_by_jobs(store)
    numbers = snapshot_numbers(store)
    expired = set() if keep_snapshots is None else set(numbers[:-keep_snapshots])
    for number in numbers:
        if number not in expired or written.get(layout.snapshot_path(number), limit) >= limit:
            needed |= _needed_by_snapshot(read_snapshot(store, number))
    garbage, young = [], 0
    for entry in entries:
        if entry.path in needed or not _sweepable(entry.path, shielded):
            continue
        if entry.modified >= limit:
            young += 1
        else:
            garbage.append(entry)
    garbage.sort(key=lambda entry: (layout.snapshot_number(entry.path) is None, entry.path))
    if not dry_run:
        store.delete(entry.path for entry in garbage)
    return Sweep(garbage=tuple(garbage), young=young, deleted=not dry_run)


def _needed_by_snapshot(snapshot: Snapshot) -> set[str]:
    needed = {layout.snapshot_path(snapshot.number)}
    needed.update(layout.snapshot_file_path(part.record.file) for part in snapshot.index)
    for payload in snapshot.payloads:
        needed |= _pair(payload.record.file)
    return needed


def _needed_by_jobs(store: Store) -> tuple[set[str], set[str]]:
    """The paths to keep, and the jobs whose files are all kept because a driver is at work."""
    needed: set[str] = set()
    shielded: set[str] = set()
    whole_archive = is_live(store, None)
    for job in list_jobs(store):
        over = read_done(store, job) is not None
        if not over and (whole_archive or is_live(store, job)):
            shielded.add(job)
        for commit in counting_commits(list_commits(store, job), job):
            needed |= _rejects(commit)
            if not over:
                needed |= _pair(commit.payload.file)
    return needed, shielded


def _pair(payload: str) -> set[str]:
    """A payload file and its index part."""
    return {layout.shard_path(payload), layout.shard_path(payload.removesuffix(".bin") + ".parquet")}


def _rejects(commit: ShardCommit) -> set[str]:
    found = set()
    if commit.quarantine is not None:
        found.add(layout.job_path(commit.job, f"quarantine/{commit.quarantine.file}"))
    if commit.skipped is not None:
        found.add(layout.job_path(commit.job, f"skipped/{commit.skipped.file}"))
    return found


def _sweepable(path: str, shielded: set[str]) -> bool:
    """Whether a path is of a kind that may be garbage at all.

    Codecs are not: a job that is being created counts on those that it finds.
    """
    folder, _, rest = path.partition("/")
    if folder in (layout.TEMPORARY, layout.PROBES, layout.SNAPSHOTS):
        return bool(rest)
    if folder == layout.SHARDS:
        return layout.job_of(rest) not in shielded
    if folder == layout.JOBS:
        job, _, inner = rest.partition("/")
        return inner.startswith(("quarantine/", "skipped/")) and job not in shielded
    return False
