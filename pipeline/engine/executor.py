"""What the driver needs of whoever runs shards: in this process, in one of its own, or in Ray actors."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Protocol, TypeAlias

from lichen.pipeline.engine.messages import CodecFiles, Counts, ShardResult, ShardTask

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
