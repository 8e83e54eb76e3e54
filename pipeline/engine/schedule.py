"""Which shard is next, and what becomes of one whose attempt failed or whose worker died."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from lichen.errors import CommitConflict, JobError, TooManyFailures, UsageError
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.commit import (
    CommitRecord,
    ShardCommit,
    ShardSplit,
    children_of,
    commit_shard,
    read_commit,
    split_shard,
)
from lichen.pipeline.archive.plan import PlannedShard
from lichen.pipeline.archive.store import Store
from lichen.pipeline.engine.executor import Blame, Died, Event, Failed, Finished
from lichen.pipeline.engine.messages import Counts, ShardTask
from lichen.pipeline.logs import Log
from lichen.pipeline.sources.secrets import redact_uri

log = Log(__name__)
ROOT_DEATHS = 2
"""Workers that a planned shard may cost before it is split; a child, already suspect, may cost one."""
SPLIT_PARTS = 4
LAST_DEATHS = 3
"""Workers that storing a single file unseen may cost."""


@dataclass(slots=True, kw_only=True)
class _Open:
    """A shard that is not committed yet."""

    shard: PlannedShard
    child: bool
    failures: int = 0
    deaths: int = 0
    solo: bool = False
    store_only: bool = False


class Schedule:
    """Open shards of a job and what was done. Every decision of the driver about attempts is made here."""

    def __init__(self, store: Store, *, max_failures: int) -> None:
        self._store, self._max_failures = store, max_failures
        self._waiting: deque[_Open] = deque()
        self._flying: dict[str, _Open] = {}
        self.counts = Counts()
        """Counts of the committed shards, whoever committed them."""
        self.fresh = Counts()
        """Counts of the shards that were committed in this run."""
        self.shards = self.splits = 0

    def __len__(self) -> int:
        """Shards that are waiting."""
        return len(self._waiting)

    @property
    def next_is_solo(self) -> bool:
        """Whether the next attempt needs a worker for itself."""
        return self._waiting[0].solo

    @property
    def in_flight(self) -> int:
        return len(self._flying)

    def add_committed(self, commit: ShardCommit) -> None:
        """A shard that an earlier run committed."""
        self.counts += Counts.of_commit(commit)
        self.shards += 1

    def add(self, shard: PlannedShard) -> None:
        """An open shard of the plan, or an open child of a split one."""
        child = shard.shard.count(".") > 1
        self._waiting.append(_Open(shard=shard, child=child, solo=child))

    def next_task(self) -> ShardTask:
        """A new attempt at the shard that waits longest."""
        entry = self._waiting.popleft()
        task = ShardTask(
            shard=entry.shard.shard,
            attempt=layout.new_attempt(),
            sources=entry.shard.sources,
            solo=entry.solo,
            store_only=entry.store_only,
            conditional=self._store.conditional,
        )
        self._flying[task.attempt] = entry
        log.info("shard handed out, %d sources", len(task.sources), shard=task.shard, attempt=task.attempt)
        return task

    def handle(self, event: Event) -> None:
        """Raises ``JobError`` when a shard failed too often, and ``UsageError``s of workers, which would come again."""
        entry = self._flying.pop(event.task.attempt, None)
        if entry is None:  # ``compare`` found its shard committed
            return
        match event:
            case Finished():
                self._finish(entry, event)
            case Failed():
                self._fail(entry, event)
            case Died():
                self._mourn(entry, event)

    def compare(self) -> None:
        """Take for done whatever is in flight and was committed: its worker's answer may never come."""
        for attempt, entry in list(self._flying.items()):
            standing = read_commit(self._store, entry.shard.shard)
            if standing is not None:
                del self._flying[attempt]
                log.info("shard is committed, though no answer came", shard=entry.shard.shard, attempt=attempt)
                self._follow(entry, standing)

    # --- internals ---

    def _finish(self, entry: _Open, event: Finished) -> None:
        commit, committed = event.result.commit, event.result.committed
        if committed is None:
            try:
                commit_shard(self._store, commit)
                committed = True
            except CommitConflict:
                committed = False
        if committed:
            counts = Counts.of_commit(commit)
            self.fresh += counts
            self.add_committed(commit)
            log.info("attempt committed, %d sources", counts.sources, shard=commit.shard, attempt=commit.attempt)
            return
        log.info("attempt lost the race for its shard", shard=commit.shard, attempt=commit.attempt)
        standing = read_commit(self._store, entry.shard.shard)
        if standing is None:
            raise JobError(f"the commit of shard {entry.shard.shard} has vanished")
        self._follow(entry, standing)

    def _fail(self, entry: _Open, event: Failed) -> None:
        if isinstance(event.error, UsageError):
            raise event.error
        entry.failures += 1
        if entry.failures >= self._max_failures:
            raise TooManyFailures(
                f"shard {entry.shard.shard} failed {entry.failures} times; the last time: {event.error}"
            ) from event.error
        allowed = self._max_failures
        told = (entry.failures, allowed, event.error)
        log.warning("attempt failed, %d of %d: %s", *told, shard=event.task.shard, attempt=event.task.attempt)
        self._waiting.append(entry)

    def _mourn(self, entry: _Open, event: Died) -> None:
        # It may have committed with its last breath.
        standing = read_commit(self._store, entry.shard.shard)
        if standing is not None:
            self._follow(entry, standing)
            return
        told = {Blame.NO: "not by its fault", Blame.PERHAPS: "perhaps by its fault", Blame.YES: "by its fault"}
        where = {"shard": event.task.shard, "attempt": event.task.attempt}
        log.info("attempt ended with its worker, %s: %s", told[event.blame], event.message, **where)
        entry.deaths += event.blame is Blame.YES
        entry.solo = entry.solo or event.blame is not Blame.NO
        allowed = 1 if entry.child else ROOT_DEATHS
        if event.blame is not Blame.YES or entry.deaths < allowed:
            self._waiting.appendleft(entry)
        elif len(entry.shard.sources) > 1:
            reason = f"{entry.deaths} workers died: {event.message}"[:500]
            log.warning("shard is split, to find the picture that kills workers", **where)
            self._follow(entry, split_shard(self._store, entry.shard, reason, SPLIT_PARTS))
        elif entry.deaths < LAST_DEATHS:
            entry.store_only = True
            key = entry.shard.sources[0].key
            log.warning("the picture kills workers; it is stored without being looked at", key=key, **where)
            self._waiting.appendleft(entry)
        else:
            source = entry.shard.sources[0]
            raise TooManyFailures(f"{entry.deaths} workers died of {redact_uri(source.uri)}; the last: {event.message}")

    def _follow(self, entry: _Open, standing: CommitRecord) -> None:
        """Go on from what stands under the shard's name."""
        if isinstance(standing, ShardSplit):
            self.splits += 1
            children = children_of(entry.shard, standing)
            self._waiting.extendleft(_Open(shard=child, child=True, solo=True) for child in reversed(children))
        else:
            self.fresh += Counts.of_commit(standing)
            self.add_committed(standing)
