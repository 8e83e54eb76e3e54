"""What a driver has to do: which job to begin or to go on with, and its sources. Decided before anything is started."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from lichen.errors import UsageError
from lichen.pipeline.archive.job import (
    Job,
    create_job,
    list_jobs,
    read_done,
    read_job,
    unfinished_jobs,
)
from lichen.pipeline.archive.lease import acquire
from lichen.pipeline.archive.losses import abandon_job
from lichen.pipeline.archive.plan import read_summary
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.store import Store
from lichen.pipeline.engine.changes import Changes, find_changes, outside
from lichen.pipeline.engine.config import BEFORE, LOOKS, SHARD_BYTES, JobConfig
from lichen.pipeline.logs import Log
from lichen.pipeline.sources import Source, check_unique, list_sources

log = Log(__name__)
MIN_SHARD_BYTES = 8 * 1024 * 1024
SHARDS_PER_WORKER = 4
"""What a small job is cut into, where the shard size is left open."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What is to be done: a job that exists already or not yet, and its sources."""

    job: Job | None
    sources: Iterable[Source]
    changes: Changes | None
    """What is new, changed or gone; None for the first job of an archive."""
    bytes: int | None
    """Bytes of all sources together, where they were listed."""

    @property
    def done(self) -> bool:
        """Whether there is nothing to do: no job to go on with, and no source that is new or changed."""
        return self.job is None and self.changes is not None and not self.changes.work


class Planning:
    """The decisions of one driver about one archive."""

    def __init__(self, store: Store, config: JobConfig) -> None:
        self._store, self._config = store, config
        self._jobs: list[str] = []
        """The jobs of the archive when the work was found."""

    def survey(self) -> Work:
        """The work of a new archive: everything.

        Sources are looked at once before, so that what cannot be is found before anything is made: all of them where
        duplicate keys are errors, else the first.
        """
        size: int | None = None
        if self._config.sources.on_duplicate == "error":
            size = sum(source.size or 0 for source in self.listing())
        else:
            next(self.listing())
        return Work(job=None, sources=self.listing(), changes=None, bytes=size)

    def find(self) -> Work:
        """What is left to do in an archive that exists."""
        job = self._unfinished()
        archive = Archive.open(self._config.archive, self._config.archive_options)
        if job is not None and (archive.snapshot is None or read_summary(self._store, job.job)):
            return Work(job=job, sources=self.listing(), changes=None, bytes=None)
        if archive.snapshot is None:
            return self.survey()
        changes = find_changes(archive, self.listing(), self._config)
        size = sum(source.size or 0 for source in changes.work)
        return Work(job=job, sources=changes.work, changes=changes, bytes=size)

    def settle(self, work: Work, workers: int, digests: Sequence[str]) -> tuple[Work, Job | None]:
        """The job to drive: that of ``work``, a new one, or one that another driver began meanwhile.

        None if another driver did everything. To be called by one driver at a time.
        """
        if work.job is None and list_jobs(self._store) != self._jobs:
            work = self.find()
            if work.done:
                return work, None
        return work, work.job or self._create(work, workers, digests)

    def not_applied(self, changes: Changes | None, before: str | None = None) -> dict[str, tuple[Any, Any]]:
        """Settings that differ from those by which the unchanged pictures were compressed: then, and now.

        ``before`` is a job; only those before it count.
        """
        if changes is None or not changes.unchanged:
            return {}
        sources, now = list(self._config.names), self._config.frozen(0)
        for name in reversed(list_jobs(self._store)):
            done = read_done(self._store, name)
            then = {**BEFORE, **read_job(self._store, name).config}
            earlier = before is None or name < before
            if earlier and then.get("source") == sources and done is not None and done.state == "finished":
                return {field: (then.get(field), now[field]) for field in LOOKS if then.get(field) != now[field]}
        return {}

    # --- internals ---

    def listing(self) -> Iterator[Source]:
        """All sources of the job but the archive's own files, each key once. Raises what listing raises."""
        config = self._config
        found = list_sources(
            config.origins,
            storage_options=config.sources.options,
            hidden=config.sources.hidden,
            others=config.sources.store_others,
        )
        return check_unique(outside(found, self._store), config.sources.on_duplicate)

    def _unfinished(self) -> Job | None:
        """The job to go on with. One of the same sources with other settings is refused, or given up."""
        found = None
        self._jobs = list_jobs(self._store)
        for job in unfinished_jobs(self._store):
            if job.config.get("source") != list(self._config.names):
                continue
            stated = job.config.get("shard_bytes")
            size = self._config.engine.shard_bytes or (stated if isinstance(stated, int) else SHARD_BYTES)
            wanted, stood = self._config.frozen(size), {**BEFORE, **job.config}
            other = sorted(name for name, value in wanted.items() if stood.get(name) != value)
            if not other:
                found = job
            elif self._config.engine.abandon:
                with acquire(self._store, job.job):
                    abandon_job(self._store, job.job)
                log.info("job abandoned, it was begun with other %s", ", ".join(other), job=job.job)
            else:
                was = ", ".join(f"{name} {stood.get(name)!r}" for name in other)
                raise UsageError(
                    f"the unfinished job {job.job} of the same sources was begun with {was}; "
                    "go on with those settings, or abandon it (--abandon)"
                )
        return found

    def _create(self, work: Work, workers: int, digests: Sequence[str]) -> Job:
        size = self._config.engine.shard_bytes
        if size is None:
            size = SHARD_BYTES
            if work.bytes and workers > 1:
                share = work.bytes // (workers * SHARDS_PER_WORKER)
                size = max(MIN_SHARD_BYTES, min(SHARD_BYTES, share))
        jobs = list_jobs(self._store)
        return create_job(self._store, self._config.frozen(size), digests, after=jobs[-1] if jobs else None)
