"""The driver of a job: lists, plans, hands out shards, and publishes the snapshot.

Everything that it knows is in the archive, so it may die at any point and be started again with the same command.
It reads no picture and imports neither torch nor, with the local executor, Ray.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from time import perf_counter

from lichen.errors import CorruptArchive, JobError, JobInterrupted, StoreError, UsageError
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.codecs import put_codec
from lichen.pipeline.archive.commit import ShardCommit, counting_commits, list_commits
from lichen.pipeline.archive.job import Job, finish_job, write_progress
from lichen.pipeline.archive.lease import WAIT, Lease, acquire
from lichen.pipeline.archive.losses import check_codecs, restore_jobs
from lichen.pipeline.archive.manifest import Json
from lichen.pipeline.archive.marker import check_vacant, create_marker
from lichen.pipeline.archive.plan import Grouping
from lichen.pipeline.archive.rejects import Quarantined, Skipped, read_table
from lichen.pipeline.archive.snapshot_writer import write_snapshot
from lichen.pipeline.archive.store import LocalStore, Store, open_store
from lichen.pipeline.engine.changes import Changes
from lichen.pipeline.engine.config import JobConfig
from lichen.pipeline.engine.executor import Executor
from lichen.pipeline.engine.executors import make_executor
from lichen.pipeline.engine.messages import Counts
from lichen.pipeline.engine.mistakes import refuse_archives, refuse_pictures
from lichen.pipeline.engine.planner import Planner
from lichen.pipeline.engine.progress import JobProgress, JobSummary
from lichen.pipeline.engine.schedule import Schedule
from lichen.pipeline.engine.work import Planning, Work
from lichen.pipeline.logs import Log

log = Log(__name__)
OnProgress = Callable[[JobProgress], None]

TICK = 0.25
"""Seconds between two looks at the workers' counters while nothing else happens."""
PROGRESS_SECONDS = 5.0
"""Seconds between two writes of ``progress.json``."""
COMPARE_SECONDS = 15.0
"""Without an event, until what is in flight is compared with what was committed."""
NAMES = 100
"""How many names of missing, quarantined and skipped sources a summary holds."""


def run_job(
    config: JobConfig, on_progress: OnProgress | None = None, *, stop: threading.Event | None = None
) -> JobSummary:
    """Compress sources into an archive: begin a job, go on with an unfinished one, or update.

    ``on_progress`` is called a few times a second. ``stop`` ends the job as SIGTERM does: nothing more is handed out,
    what is in flight is abandoned, and ``JobInterrupted`` raised. Raises ``UsageError`` for what cannot work,
    ``DuplicateKey``, ``LeaseHeld`` while another driver has the job, ``TooManyFailures``, ``StoreError``.
    """
    return _Driver(config, on_progress or (lambda _progress: None), stop or threading.Event()).run()


class _Driver:
    def __init__(self, config: JobConfig, on_progress: OnProgress, stop: threading.Event) -> None:
        self._began = perf_counter()
        self._store: Store = open_store(config.archive, config.archive_options)
        if isinstance(self._store, LocalStore):  # workers may be at home in another folder
            config = replace(config, archive=self._store.root)
        self._config, self._on_progress, self._stop = config, on_progress, stop
        self._planned_sources = self._planned_bytes = self._planned_shards = 0
        self._written = 0.0
        self._restored: tuple[str, ...] = ()
        self._planning = Planning(self._store, config)

    def run(self) -> JobSummary:
        store, config = self._store, self._config
        with ExitStack() as stack:
            stack.enter_context(_sigterm(self._stop))
            # Whatever is refused is refused before anything is written: sources, settings, codec.
            check_vacant(store)
            fresh = not store.exists(layout.MARKER)
            refuse_archives(config.origins, config.sources.options, store)
            lease = None
            if fresh:
                refuse_pictures(store, config.origins, config.sources.options)
                work = self._planning.survey()
            else:
                lease = self._begin(stack)
                self._restored = restore_jobs(store)
                for name in self._restored:
                    log.info("the snapshot of a finished job was gone and is made again", job=name)
                work = self._planning.find()
                if work.done and self._codecs_are_there():
                    return self._nothing_to_do(work.changes)
            executor = make_executor(config)
            stack.callback(executor.close)
            # Again, because Ray takes the signal for itself when it starts.
            stack.enter_context(_sigterm(self._stop))
            files = executor.prepare(self._stop)
            if fresh:
                lease = self._begin(stack)
            for one in files.all:
                put_codec(store, one)
            if work.done:  # but for a codec
                check_codecs(store)
                return self._nothing_to_do(work.changes)
            with acquire(store, None, wait=WAIT, stop=self._stop) if store.conditional else nullcontext():
                work, job = self._planning.settle(work, executor.workers, [one.digest for one in files.all])
                if job is None:
                    return self._nothing_to_do(work.changes)
                if store.conditional:
                    lease = stack.enter_context(acquire(store, job.job))
            if any(one.digest not in job.codecs for one in files.all):
                raise UsageError(
                    f"job {job.job} was begun with codec {', '.join(name[:12] for name in job.codecs)}, and "
                    f"{config.codec.name!r} is {files.digest[:12]} now; go on with the version of then, or abandon the "
                    "job (--abandon)"
                )
            return self._drive(job, work, executor, files.digest, lease)

    def _codecs_are_there(self) -> bool:
        """Whether the archive has the codecs of its pictures; what this job's codec is may be put back."""
        try:
            check_codecs(self._store)
        except CorruptArchive:
            return False
        return True

    def _begin(self, stack: ExitStack) -> Lease | None:
        """Make sure that there is an archive, and without atomic creates that nobody else works on it."""
        self._store.probe()
        create_marker(self._store, exist_ok=True)
        return None if self._store.conditional else stack.enter_context(acquire(self._store, None))

    # --- the loop ---

    def _drive(self, job: Job, work: Work, executor: Executor, digest: str, lease: Lease | None) -> JobSummary:
        store = self._store
        schedule = Schedule(store, max_failures=self._config.engine.attempts)
        grouping = Grouping(target_bytes=int(job.config["shard_bytes"]), max_sources=int(job.config["shard_pictures"]))
        commits = list_commits(store, job.job)
        started = heard = perf_counter()
        state = "failed"
        done = f"{len(commits):,} shards are committed" if work.job is not None else f"codec {digest[:12] or 'none'}"
        log.info("job %s, %s", "resumed" if work.job is not None else "begun", done, job=job.job)
        try:
            with Planner(store, job.job, work.sources, grouping, commits) as planner:
                while True:
                    if self._stop.is_set():
                        raise JobInterrupted(f"job {job.job} was stopped; the same command goes on with it")
                    if lease is not None:
                        lease.check()
                    self._hand_out(planner, schedule, executor, digest)
                    if planner.complete and not len(schedule) and not schedule.in_flight:
                        self._show(job, planner, schedule, executor, started)  # the end, too
                        break
                    events = executor.wait(TICK if schedule.in_flight else 0)  # else _hand_out waited for the listing
                    for event in events:
                        schedule.handle(event)
                    now = perf_counter()
                    if events:
                        heard = now
                    elif now - heard >= COMPARE_SECONDS:
                        heard = now
                        schedule.compare()
                    self._show(job, planner, schedule, executor, started)
            self._check_commits(job, schedule.shards)
            if lease is not None:
                lease.check()
            snapshot = write_snapshot(
                store, job.job, existing="keep" if job.config["on_collision"] == "keep" else "replace"
            )
            finish_job(store, job.job, snapshot.number)
            state = "finished"
            log.info("job finished, snapshot %d", snapshot.number, job=job.job)
            check_codecs(store)  # those of pictures that were there before: the job itself has lost nothing
        except (JobInterrupted, KeyboardInterrupt):
            state = "interrupted"
            log.info("job interrupted", job=job.job)
            raise
        finally:
            self._write_progress(job, state, schedule.counts, schedule.shards)
        return self._summary(job, snapshot.number, work, executor, schedule, started)

    def _check_commits(self, job: Job, shards: int) -> None:
        """Every shard that a worker committed must be where everybody will look for it."""
        found = len(counting_commits(list_commits(self._store, job.job), job.job))
        if found != shards:
            raise JobError(
                f"{shards} shards were committed, but {self._store.url} holds {found} of them: all workers must see "
                "one and the same archive. The job is not finished; the same command goes on with it"
            )

    def _hand_out(self, planner: Planner, schedule: Schedule, executor: Executor, digest: str) -> None:
        while not self._stop.is_set():
            if len(schedule):
                if not executor.has_room(solo=schedule.next_is_solo):
                    return
                executor.submit(schedule.next_task(), digest)
                continue
            if not executor.has_room(solo=False):
                return
            # With nothing in flight there is nothing else to wait for than the listing.
            planned = planner.take(0 if schedule.in_flight else TICK)
            if planned is None:
                return
            self._planned_shards += 1
            self._planned_sources += len(planned.shard.sources)
            self._planned_bytes += planned.bytes
            for commit in planned.state.committed:
                schedule.add_committed(commit)
            for shard in planned.state.open:
                schedule.add(shard)

    def _show(self, job: Job, planner: Planner, schedule: Schedule, executor: Executor, started: float) -> None:
        live = sum(executor.live().values(), Counts())
        now = perf_counter()
        self._on_progress(
            JobProgress(
                job=job.job,
                counts=schedule.counts + live,
                fresh=schedule.fresh + live,
                shards_done=schedule.shards,
                shards_planned=self._planned_shards,
                planned_sources=self._planned_sources,
                planned_bytes=self._planned_bytes,
                plan_complete=planner.complete,
                seconds=now - started,
            )
        )
        if now - self._written >= PROGRESS_SECONDS:
            self._written = now
            self._write_progress(job, "running", schedule.counts + live, schedule.shards)

    def _write_progress(self, job: Job, state: str, counts: Counts, shards: int) -> None:
        record: dict[str, Json] = {
            "job": job.job,
            "state": state,
            "updated": layout.now(),
            "shards_done": shards,
            "shards_planned": self._planned_shards,
            "planned_sources": self._planned_sources,
            "planned_bytes": self._planned_bytes,
            "counts": counts.to_json(),
        }
        # Nothing depends on it: neither does a job end because it cannot be written, nor is another error hidden. And
        # an archive that was deleted meanwhile does not come back as a folder with this in it.
        with suppress(StoreError):
            if self._store.exists(layout.MARKER):
                write_progress(self._store, job.job, record)

    # --- the end ---

    def _summary(
        self,
        job: Job,
        snapshot: int,
        work: Work,
        executor: Executor,
        schedule: Schedule,
        started: float,
    ) -> JobSummary:
        seconds = perf_counter() - started
        commits = counting_commits(list_commits(self._store, job.job), job.job)
        missing = work.changes.missing if work.changes else ()
        return JobSummary(
            job=job.job,
            snapshot=snapshot,
            resumed=work.job is not None,
            counts=schedule.counts,
            shards=schedule.shards,
            splits=schedule.splits,
            worker_deaths=executor.deaths,
            seconds=seconds,
            startup_seconds=started - self._began,
            megapixels_per_second=schedule.fresh.pixels / 1e6 / seconds if seconds > 0 else 0.0,
            unchanged=work.changes.unchanged if work.changes else 0,
            passed_over=work.changes.passed_over if work.changes else 0,
            not_applied=self._planning.not_applied(work.changes, before=job.job),
            restored=self._restored,
            lost=work.changes.lost if work.changes else 0,
            missing=len(missing),
            missing_names=missing[:NAMES],
            quarantined_names=_names(self._store, commits, "quarantine"),
            skipped_names=_names(self._store, commits, "skipped"),
        )

    def _nothing_to_do(self, changes: Changes | None) -> JobSummary:
        assert changes is not None
        log.info("nothing to do, %d sources are unchanged", changes.unchanged)
        return JobSummary(
            job=None,
            snapshot=None,
            resumed=False,
            counts=Counts(),
            shards=0,
            splits=0,
            worker_deaths=0,
            seconds=0.0,
            startup_seconds=perf_counter() - self._began,
            megapixels_per_second=0.0,
            unchanged=changes.unchanged,
            passed_over=changes.passed_over,
            not_applied=self._planning.not_applied(changes),
            restored=self._restored,
            lost=changes.lost,
            missing=len(changes.missing),
            missing_names=changes.missing[:NAMES],
            quarantined_names=(),
            skipped_names=(),
        )


def _names(store: Store, commits: Iterable[ShardCommit], table: str) -> tuple[str, ...]:
    names: list[str] = []
    kind: type[Quarantined] | type[Skipped] = Quarantined if table == "quarantine" else Skipped
    for commit in commits:
        record = commit.quarantine if table == "quarantine" else commit.skipped
        if record is not None and len(names) < NAMES:
            rows = read_table(store, layout.job_path(commit.job, f"{table}/{record.file}"), kind)
            names += rows.column("key").to_pylist()
    return tuple(names[:NAMES])


@contextmanager
def _sigterm(stop: threading.Event) -> Iterator[None]:
    """Turn SIGTERM into the event, where this is the thread that may."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
