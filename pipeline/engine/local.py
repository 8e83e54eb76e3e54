"""Shards in this process: for tests, notebooks, and machines without Ray."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from lichen.errors import JobInterrupted, LichenError
from lichen.pipeline.engine.config import JobConfig
from lichen.pipeline.engine.executor import IN_FLIGHT, Event, Failed, Finished
from lichen.pipeline.engine.messages import CodecFiles, Counts, ShardResult, ShardTask, WorkerConfig
from lichen.pipeline.engine.worker import Worker


class LocalExecutor:
    """One worker, whose lanes use the cores of this process. A picture that kills it kills the job."""

    workers = 1
    deaths = 0

    def __init__(self, config: JobConfig) -> None:
        self._config = WorkerConfig.of(config, cpus=config.engine.cpus_per_worker)
        self._pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="lichen-shard")
        self._futures: dict[Future[ShardResult], ShardTask] = {}
        self._live: dict[str, Counts] = {}
        self._lock = threading.Lock()
        self._worker: Worker | None = None

    def prepare(self, stop: threading.Event) -> CodecFiles:
        """Load the codec."""
        if stop.is_set():
            raise JobInterrupted("stopped before the codec was loaded")
        self._worker = Worker(self._config)
        return self._worker.codec_files()

    def has_room(self, *, solo: bool) -> bool:
        return not self._futures if solo else len(self._futures) < IN_FLIGHT

    def submit(self, task: ShardTask, digest: str) -> None:
        assert self._worker is not None
        self._futures[self._pool.submit(self._worker.run, task, digest, self._observe)] = task

    def wait(self, timeout: float) -> list[Event]:
        done, _ = wait(self._futures, timeout=timeout, return_when=FIRST_COMPLETED)
        events: list[Event] = []
        for future in done:
            task = self._futures.pop(future)
            with self._lock:
                self._live.pop(task.attempt, None)
            error = future.exception()
            if error is None:
                events.append(Finished(task=task, result=future.result()))
            elif isinstance(error, LichenError):
                events.append(Failed(task=task, error=error))
            else:
                raise error
        return events

    def live(self) -> Mapping[str, Counts]:
        with self._lock:
            return dict(self._live)

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _observe(self, attempt: str, counts: Counts) -> None:
        with self._lock:
            self._live[attempt] = self._live.get(attempt, Counts()) + counts
