"""Shards in one worker process on this machine: what kills it, or hangs in it, does not take the job with it.

Starts in the time that the codec takes to load; Ray's own start takes several times as long. The process runs
``lichen.pipeline.engine.child`` and ends with the driver, whatever ends that.
"""

from __future__ import annotations

import pickle
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from lichen.errors import JobError, JobInterrupted, LichenError
from lichen.pipeline.archive.index import import_pandas
from lichen.pipeline.engine.config import JobConfig
from lichen.pipeline.engine.executor import (
    IN_FLIGHT,
    MAX_FRUITLESS_DEATHS,
    SILENCE,
    Blame,
    Died,
    Event,
    Failed,
    Finished,
)
from lichen.pipeline.engine.messages import CodecFiles, Counts, ShardResult, ShardTask, WorkerConfig
from lichen.pipeline.engine.spawn import take
from lichen.pipeline.logs import Log, take_over

log = Log(__name__)

_LOOK = 0.25


class ProcessExecutor:
    """One worker in a process of its own, replaced when it dies, hangs, or is left with a call that hangs."""

    workers = 1

    def __init__(self, config: JobConfig) -> None:
        self._settings = WorkerConfig.of(config, cpus=config.engine.cpus_per_worker)
        self._silence = config.sources.picture_timeout + SILENCE
        self._child: _Child | None = None
        self._live: dict[str, Counts] = {}
        self._fruitless = 0
        self.deaths = 0

    def prepare(self, stop: threading.Event) -> CodecFiles:
        """Load the codec in the first process; its failures are the job's."""
        child = self._child = _Child(self._settings)
        import_pandas()
        while not (messages := child.receive(_LOOK)):
            if stop.is_set():
                raise JobInterrupted("stopped while the codec was loading")
        kind, answer = messages[0]
        if kind == "loaded":
            child.loading = False
            log.info("worker %d is ready", child.pid)
            files: CodecFiles = answer
            return files
        if kind == "refused":
            raise answer
        raise JobError(f"the worker died while it loaded the codec: {child.epitaph()}")

    def has_room(self, *, solo: bool) -> bool:
        child = self._child
        if child is None or not child.tasks:
            return True
        if child.retiring or solo or any(task.solo for task in child.tasks.values()):
            return False
        return len(child.tasks) < IN_FLIGHT

    def submit(self, task: ShardTask, digest: str) -> None:
        if self._child is not None and self._child.retiring:
            self._child.kill()
            self._child = None
        if self._child is None:
            self._child = _Child(self._settings)
        self._child.tasks[task.attempt] = task
        self._child.send(("run", task, digest))

    def wait(self, timeout: float) -> list[Event]:
        child = self._child
        if child is None:
            return []
        events: list[Event] = []
        for kind, answer in child.receive(timeout):
            if kind == "counts":
                attempt, counts = answer
                if attempt in child.tasks:
                    self._live[attempt] = self._live.get(attempt, Counts()) + counts
            elif kind == "loaded":
                child.loading = False
            elif kind == "refused":
                raise answer
            elif kind == "finished":
                events += self._finished(child, *answer)
            elif kind == "failed":
                events += self._failed(child, *answer)
            elif kind == "gone":
                events += self._bury(child.epitaph())
        if self._child is child and child.silent_for() > self._silence:
            events += self._bury(f"it did not answer for {self._silence:.0f} s")
        return events

    def live(self) -> Mapping[str, Counts]:
        return dict(self._live)

    def close(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None

    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [] if self._child is None else [self._child.pid]

    # --- internals ---

    def _finished(self, child: _Child, attempt: str, result: ShardResult) -> list[Event]:
        self._live.pop(attempt, None)
        if result.hung and not child.retiring:
            log.warning("a call hangs in worker %d; it gets no more shards", child.pid)
            child.retiring = True
        self._fruitless = 0
        return [Finished(task=child.tasks.pop(attempt), result=result)]

    def _failed(self, child: _Child, attempt: str, error: Exception) -> list[Event]:
        if isinstance(error, JobError):  # of no more use, such as after a fault on its GPU
            return self._bury(str(error))
        if not isinstance(error, LichenError):
            raise error
        self._live.pop(attempt, None)
        return [Failed(task=child.tasks.pop(attempt), error=error)]

    def _bury(self, message: str) -> list[Event]:
        child = self._child
        assert child is not None
        child.kill()
        self._child = None
        self._live.clear()
        self.deaths += 1
        log.warning("worker %d died: %s", child.pid, message)
        self._fruitless += 1
        if self._fruitless > MAX_FRUITLESS_DEATHS:
            raise JobError(f"{self._fruitless} workers died one after the other; the last: {message}")
        blame = Blame.NO if child.loading else Blame.YES if len(child.tasks) == 1 else Blame.PERHAPS
        return [Died(task=task, blame=blame, message=message) for task in child.tasks.values()]


class _Child:
    """The process, and the threads that write and read what is said: a process that hangs holds up nobody else."""

    def __init__(self, settings: WorkerConfig) -> None:
        spawned = take()
        self._process, self._pipe = spawned.process, spawned.pipe
        self._told: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._said: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._heard = time.monotonic()
        self.loading, self.retiring = True, False
        self.tasks: dict[str, ShardTask] = {}
        """Tasks in flight, oldest first, by attempt."""
        for work in (self._speak, self._listen):
            threading.Thread(target=work, name="lichen-child", daemon=True).start()
        self.send(settings)

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, message: Any) -> None:
        self._told.put(message)

    def receive(self, timeout: float) -> list[tuple[str, Any]]:
        """What the process said, after the first message or ``timeout`` seconds."""
        try:
            found = [self._said.get(timeout=timeout)]
        except queue.Empty:
            return []
        while not self._said.empty():
            found.append(self._said.get())
        return found

    def silent_for(self) -> float:
        """Seconds since the process last gave a sign of life."""
        return time.monotonic() - self._heard

    def epitaph(self) -> str:
        """What the process died of."""
        try:
            code = self._process.wait(5)
        except subprocess.TimeoutExpired:
            return "it closed its connection"
        if code >= 0:
            return f"it ended with status {code}"
        name = signal.Signals(-code).name
        return f"{name}{', perhaps because memory ran out' if name == 'SIGKILL' else ''}"

    def kill(self) -> None:
        """End the process now, and with it whatever hangs in it."""
        self._process.kill()
        self._process.wait()
        self._told.put(None)

    def _speak(self) -> None:
        with suppress(OSError):  # it is dead, which the listener tells
            while (message := self._told.get()) is not None:
                self._pipe.send(message)

    def _listen(self) -> None:
        try:
            while True:
                message = self._pipe.recv()
                self._heard = time.monotonic()
                if message is None:  # only a sign of life
                    continue
                if message[0] == "log":
                    take_over(message[1])
                else:
                    self._said.put(message)
        except (EOFError, OSError, pickle.UnpicklingError):
            self._said.put(("gone", None))
        finally:
            self._pipe.close()
