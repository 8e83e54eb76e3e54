"""Garbage: what this archive wrote and no snapshot, no commit and no live lease needs (docs/format.md, 9).

Not needed does not mean ours: a folder that holds an archive may hold anything else, under names like those of an
archive, too. Deleted is only what a record of this archive tells of, or what has the id of one of its jobs in its name.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from lichen import defaults
from lichen.errors import ArchiveError, CorruptArchive, UsageError
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.commit import ShardCommit, counting_commits, list_commits
from lichen.pipeline.archive.job import list_jobs, read_done, read_job
from lichen.pipeline.archive.lease import is_live
from lichen.pipeline.archive.losses import check_jobs
from lichen.pipeline.archive.marker import read_marker
from lichen.pipeline.archive.payload_list import read_payloads
from lichen.pipeline.archive.snapshot import Snapshot, read_snapshot, snapshot_numbers
from lichen.pipeline.archive.store import Entry, Store
from lichen.pipeline.parquet.bounded import BoundedParquet, parquet_errors


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
    store: Store,
    *,
    older_than: float = 3600 * defaults.GARBAGE_HOURS,
    keep_snapshots: int | None = None,
    dry_run: bool = False,
) -> Sweep:
    """Delete garbage older than ``older_than`` seconds, and all but the newest ``keep_snapshots`` snapshots.

    The age is by the store's clock as this machine sees it; keep it longer than a shard takes. Raises
    ``ArchiveNotFound`` where there is no archive, so that no other folder is ever swept, and ``CorruptArchive`` where
    the newest snapshot is gone, because then nobody knows what it needed.
    """
    if keep_snapshots is not None and keep_snapshots < 1:
        raise UsageError("at least one snapshot must be kept")
    identity = read_marker(store).id
    limit = time.time() - older_than
    # The listing comes first: whatever is created after it is not in it, hence not deleted.
    entries = [entry for entry in store.own_entries() if entry.plain]
    written = {entry.path: entry.modified for entry in entries}
    # Jobs before snapshots: a job that is seen finished has its snapshot, which is then seen too.
    needed, shielded = _needed_by_jobs(store)
    at_work = bool(shielded) or is_live(store, None)
    jobs = {job for job in list_jobs(store) if read_job(store, job).archive in (None, identity)}
    check_jobs(store)
    numbers = snapshot_numbers(store)
    expired = set() if keep_snapshots is None else set(numbers[:-keep_snapshots])
    dropped: set[str] = set()
    for number in numbers:
        path = layout.snapshot_path(number)
        if number not in expired or written.get(path, limit) >= limit:
            kept = read_snapshot(store, number)
            if not jobs.issuperset(kept.jobs):
                raise CorruptArchive(f"{path} is of jobs that {store.url} does not have; nothing was deleted")
            needed |= _needed_by_snapshot(store, kept)
        elif path in written:
            dropped |= _files_of(store, number, jobs)
    garbage, young = [], 0
    for entry in entries:
        if entry.path in needed or not (entry.path in dropped or _is_garbage(store, entry.path, jobs - shielded)):
            continue
        if at_work and entry.path.startswith((layout.TEMPORARY + "/", layout.PROBES + "/")):
            continue  # a driver may be writing it just now
        if entry.modified >= limit:
            young += 1
        else:
            garbage.append(entry)
    garbage.sort(key=lambda entry: (layout.snapshot_number(entry.path) is None, entry.path))
    if not dry_run:
        store.delete(entry.path for entry in garbage)
    return Sweep(garbage=tuple(garbage), young=young, deleted=not dry_run)


def _needed_by_snapshot(store: Store, snapshot: Snapshot) -> set[str]:
    needed = _records_of(snapshot)
    for payload in read_payloads(store, snapshot):
        needed |= _pair(payload.record.file)
    return needed


def _records_of(snapshot: Snapshot) -> set[str]:
    """A snapshot's JSON file, its index files and its list of payload files."""
    parts = {layout.snapshot_file_path(part.record.file) for part in snapshot.index}
    if snapshot.payload_list is not None:
        parts.add(layout.snapshot_file_path(snapshot.payload_list.file))
    return {layout.snapshot_path(snapshot.number), *parts}


def _files_of(store: Store, number: int, jobs: set[str]) -> set[str]:
    """The files of a snapshot that may go; none if it cannot be read, or is not of this archive."""
    try:
        snapshot = read_snapshot(store, number)
    except ArchiveError:
        return set()
    return _records_of(snapshot) if jobs.issuperset(snapshot.jobs) else set()


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


def _is_garbage(store: Store, path: str, jobs: Iterable[str]) -> bool:
    """Whether a path that nothing needs is of a kind that may go, and of one of these jobs.

    Codecs are not: a job that is being created counts on those that it finds.
    """
    folder, _, rest = path.partition("/")
    if folder in (layout.TEMPORARY, layout.PROBES):
        return True
    if folder == layout.SHARDS:
        return layout.job_of(rest) in jobs
    if folder == layout.JOBS:
        job, _, inner = rest.partition("/")
        return inner.startswith(("quarantine/", "skipped/")) and job in jobs
    if folder == layout.SNAPSHOTS and layout.snapshot_number(path) is None:
        return _is_left_over(store, path, jobs)
    return False


def _is_left_over(store: Store, path: str, jobs: Iterable[str]) -> bool:
    """Whether an index file or list that no snapshot names, since its writer died before it could, is of these jobs.

    Its rows name payload files, and those have the ids of jobs in their names.
    """
    try:
        with store.open(path) as file, parquet_errors(path):
            parquet = BoundedParquet(file, path)
            found = parquet.metadata
            names = found.schema.names
            shard = names.index("file" if "file" in names else "shard")
            columns = (parquet.column(number, shard).statistics for number in range(found.num_row_groups))
            bounds = [None if one is None else (str(one.min), str(one.max)) for one in columns]
            stated = (found.metadata or {}).get(b"lichen.snapshot", b"")
    except ArchiveError:
        return False
    number = path.partition("/")[2].partition("-")[0]
    known = all(pair is not None and all(layout.job_of(name) in jobs for name in pair) for pair in bounds)
    return known and len(bounds) > 0 and stated == str(int(number)).encode()
