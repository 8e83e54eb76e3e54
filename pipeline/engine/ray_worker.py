"""The Ray actor of a worker."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from typing import Any

import ray

from lichen.errors import JobError, LichenError
from lichen.pipeline.engine.memory import keep_freed_memory
from lichen.pipeline.engine.messages import CodecFiles, Counts, ShardResult, ShardTask, WorkerConfig
from lichen.pipeline.logs import relay

_RECORDS = 10_000
"""Records of the log that a worker keeps for the driver; older ones are dropped."""


class RayWorker:
    """The actor: a ``Worker`` with counters that the driver polls and that Ray exports as metrics."""

    def __init__(self, config: WorkerConfig) -> None:
        # One thread for each lane; set before numba, OpenMP or torch is loaded.
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[name] = "1"
        keep_freed_memory()
        self._config = config
        self._live: dict[str, Counts] = {}
        self._lock = threading.Lock()
        self._loaded = threading.Event()
        self._worker: Any = None
        self._refusal: LichenError | None = None
        self._metrics: Any = None
        self._records: deque[logging.LogRecord] = deque(maxlen=_RECORDS)
        relay(config.log_level, self._records.append)

    def prepare(self, tell: bool) -> tuple[CodecFiles | None, str]:
        """Load the codec, and say on which node; with ``tell``, also the decoder's files."""
        from lichen.pipeline.engine.metrics import Metrics
        from lichen.pipeline.engine.worker import Worker

        try:
            self._metrics = Metrics("lossless" if self._config.quality.lossless else self._config.codec.name)
            self._worker = Worker(self._config)
            files = self._worker.codec_files() if tell else None
        except LichenError as error:
            self._refusal = error
            raise
        finally:
            self._loaded.set()
        return files, str(ray.get_runtime_context().get_node_id())

    def run(self, task: ShardTask, digest: str) -> ShardResult:
        """One attempt at a shard. Waits for ``prepare``, which runs beside it."""
        self._loaded.wait()
        if self._worker is None:
            raise self._refusal or JobError("this worker could not load the codec")
        try:
            result: ShardResult = self._worker.run(task, digest, self._observe)
            return result
        finally:
            with self._lock:
                self._live.pop(task.attempt, None)

    def live(self) -> tuple[dict[str, Counts], list[logging.LogRecord]]:
        """Counts of the attempts that are in work, and what was logged since the last call."""
        with self._lock:
            return dict(self._live), [self._records.popleft() for _ in range(len(self._records))]

    def pid(self) -> int:
        """Process id of the worker."""
        return os.getpid()

    def _observe(self, attempt: str, counts: Counts) -> None:
        with self._lock:
            self._live[attempt] = self._live.get(attempt, Counts()) + counts
        self._metrics.add(counts)
