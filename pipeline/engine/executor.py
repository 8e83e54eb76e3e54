"""What the driver needs of whoever runs shards: in this process, in one of its own, or in Ray actors."""

from __future__ import annotations

import glob
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

from lichen.errors import JobInterrupted, UsageError
from lichen.pipeline.engine.config import CodecFiles, Counts, ExecutorName, JobConfig, ShardResult, ShardTask

IN_FLIGHT = 2
"""Shards a worker has at once: one in the codec, one being published or waiting."""

MAX_FRUITLESS_DEATHS = 16
"""Workers that may die one after the other without one shard done in between: more than it takes to find the one
picture that kills them, wherever in the largest shard it is (``lichen.pipeline.engine.schedule``)."""
SILENCE = 30.0
"""Seconds, beyond what a picture may take, in which a living worker gives a sign of life."""


class Blame(Enum):
    """Whether an attempt killed its worker."""

    NO = "no"
    """The attempt was not in work yet, or the machine was taken away."""
    PERHAPS = "perhaps"
    """The attempt was not the only one in the worker that died."""
    YES = "yes"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """An attempt ended well (or lost the race for the commit)."""

    task: ShardTask
    result: ShardResult


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """An attempt raised an error; its worker lives."""

    task: ShardTask
    error: Exception


@dataclass(frozen=True, slots=True, kw_only=True)
class Died:
    """The worker of an attempt is gone."""

    task: ShardTask
    blame: Blame
    message: str


Event: TypeAlias = Finished | Failed | Died


class Executor(Protocol):
    """Runs attempts at shards. All methods are called from one thread; none may block for long except ``wait``."""

    @property
    def workers(self) -> int:
        """How many workers there are, or will be when there is enough to do."""
        ...

    @property
    def deaths(self) -> int:
        """Workers that died so far."""
        ...

    def prepare(self, stop: threading.Event) -> CodecFiles:
        """Start a first worker, which loads the codec. Nothing is looked for in the archive yet.

        Raises what loading raises, ``JobError`` if the worker dies of it, ``JobInterrupted`` on ``stop``.
        """
        ...

    def has_room(self, *, solo: bool) -> bool:
        """Whether an attempt may be submitted now; a solo one needs a worker for itself."""
        ...

    def submit(self, task: ShardTask, digest: str) -> None:
        """Hand out an attempt."""
        ...

    def wait(self, timeout: float) -> list[Event]:
        """What happened, after the first event or ``timeout`` seconds. May be empty."""
        ...

    def live(self) -> Mapping[str, Counts]:
        """Counts so far of the attempts that are in flight, by attempt."""
        ...

    def close(self) -> None:
        """Abandon what is in flight and let all workers go."""
        ...


def choose(config: JobConfig, *, gpus: int, ray_runs: bool) -> ExecutorName:
    """What ``auto`` means. Pure.

    Ray where it is asked for (an address, several workers, parts of GPUs), where it runs already, and where there is
    more than one GPU to pin workers to. On one machine without that a job has one worker anyway, so a process of its
    own does the same without Ray's start. An archive in memory has to stay in this process.
    """
    if config.executor != "auto":
        return config.executor
    if config.archive.startswith("memory://"):
        return "local"
    asked = config.address is not None or (config.workers or 1) > 1 or config.gpus_per_worker is not None
    several = gpus > 1 and config.device in ("auto", "cuda") and not config.lossless
    return "ray" if asked or ray_runs or several else "process"


def make_executor(config: JobConfig) -> Executor:
    """The executor that a job asks for, or that suits it (``choose``)."""
    ray = sys.modules.get("ray")
    gpus = len(glob.glob("/dev/nvidia[0-9]*"))
    name = choose(config, gpus=gpus, ray_runs=ray is not None and bool(ray.is_initialized()))
    if name != "local" and config.archive.startswith("memory://"):
        raise UsageError("an archive in memory lives in one process; use the local executor")
    if name == "ray":
        from lichen.pipeline.engine.ray_executor import RayExecutor

        try:
            return RayExecutor(config)
        except SystemExit as error:  # while Ray starts, SIGTERM is its own
            raise JobInterrupted("stopped while Ray was starting") from error
    if name == "process":
        from lichen.pipeline.engine.process import ProcessExecutor

        return ProcessExecutor(config)
    from lichen.pipeline.engine.local import LocalExecutor

    return LocalExecutor(config)
