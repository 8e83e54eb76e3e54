"""The plan of a job, listed and frozen by a thread a little ahead of the work."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from lichen.pipeline.archive.commit import CommitRecord, JobState, job_state
from lichen.pipeline.archive.plan import Grouping, PlannedShard, write_plan
from lichen.pipeline.archive.store import Store
from lichen.pipeline.sources import Source

AHEAD = 4
"""Shards that the planner holds ready; listings are long, and sources take memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A shard of the plan, and where it stands: committed by an earlier run, open, or split."""

    shard: PlannedShard
    state: JobState

    @property
    def bytes(self) -> int:
        """Bytes of the sources whose size is known."""
        return sum(source.size or 0 for source in self.shard.sources)


class Planner:
    """Iterates ``write_plan`` in a thread. As a context manager it stops it at the end."""

    def __init__(
        self,
        store: Store,
        job: str,
        sources: Iterable[Source],
        grouping: Grouping,
        commits: Mapping[str, CommitRecord],
    ) -> None:
        self.complete = False
        """Whether everything that is planned was taken."""
        self._shards = write_plan(store, job, sources, grouping)
        self._commits = commits
        self._room = threading.Semaphore(AHEAD)
        self._stop = threading.Event()
        self._queue: queue.SimpleQueue[Planned | Exception | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="lichen-planner", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._room.release()

    def take(self, timeout: float) -> Planned | None:
        """The next shard; None if there is none within ``timeout`` seconds, or none at all (``complete``).

        Raises what listing and planning raise.
        """
        if self.complete:
            return None
        try:
            found = self._queue.get(timeout=timeout) if timeout > 0 else self._queue.get_nowait()
        except queue.Empty:
            return None
        if isinstance(found, Exception):
            raise found
        if found is None:
            self.complete = True
            return None
        self._room.release()
        return found

    def _run(self) -> None:
        try:
            while True:
                self._room.acquire()
                if self._stop.is_set():
                    return
                shard = next(self._shards, None)
                if shard is None:
                    break
                self._queue.put(Planned(shard=shard, state=job_state([shard], self._commits)))
            self._queue.put(None)
        except Exception as error:  # noqa: BLE001 - whatever it is, the driver must not wait for ever
            self._queue.put(error)
