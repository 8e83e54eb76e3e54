"""The threads in which codecs work: how many at once, how many of torch's each has, and who goes alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from lichen.errors import UsageError
from lichen.models.codec import BATCH_PIXELS, Codec
from lichen.pipeline.closing import Closing

LARGE_PIXELS = 1 << 24
"""Pictures with more pixels are opened, compressed and decoded alone."""

MAX_GPU_LANES = 8


class Lanes(Closing):
    """Threads that take groups of pictures through codecs, side by side. A context manager, thread-safe.

    On a CPU there is a lane for each core: networks use several cores best by running several times. With fewer
    lanes than cores each has several torch threads, but never more than torch would take by itself (what
    ``OMP_NUM_THREADS`` says, for one). On a GPU two to eight lanes share it, so that others code entropy, measure and
    write while one waits for it.

    At its end torch in the calling thread, and in threads started later, has as many threads as before.
    """

    def __init__(
        self,
        codecs: Sequence[Codec],
        *,
        count: int | None = None,
        cpus: int | None = None,
        groups: int | None = None,
    ) -> None:
        """``count`` is by default as above, but no more than there are ``groups`` of pictures, if that is known."""
        if count is not None and count < 1:
            raise UsageError(f"{count} lanes are too few")
        kinds = {codec.runs_on for codec in codecs if codec.runs_on is not None}
        self.cpus = cpus or len(os.sched_getaffinity(0))
        usual = self.cpus if kinds <= {"cpu"} else max(2, min(MAX_GPU_LANES, self.cpus))
        self.count = count or max(1, usual if groups is None else min(usual, groups))
        self._before = _torch_threads() if "cpu" in kinds else None
        self._most = min(self.cpus, self._before or 1)
        self._threads = max(1, min(self.cpus // self.count, self._most))
        self._gate = Gate()

    def close(self) -> None:
        """Give torch its threads back."""
        if self._before is not None:
            self._use_threads(self._before)

    def pool(self) -> ThreadPoolExecutor:
        """An executor whose threads are the lanes; the caller shuts it down."""
        return ThreadPoolExecutor(self.count, thread_name_prefix="lichen-lane", initializer=self.begin)

    def begin(self) -> None:
        """Make the calling thread a lane."""
        self._use_threads(self._threads)

    @contextmanager
    def turn(self, *, alone: bool) -> Iterator[None]:
        """Work of one lane. With ``alone`` it has all cores, and the other lanes wait outside of their turns."""
        if not alone:
            with self._gate.shared():
                yield
            return
        with self._gate.alone():
            self._use_threads(self._most)
            try:
                yield
            finally:
                self._use_threads(self._threads)

    def _use_threads(self, count: int) -> None:
        # Torch's number belongs to the calling thread, and is what threads started later begin with.
        if self._before is not None:
            import torch

            torch.set_num_threads(count)


def group_pixels(codec: Codec | None) -> int:
    """Pixels that a lane takes at once: a whole batch of the codec's, and as usual of what has no codec."""
    return BATCH_PIXELS if codec is None else codec.batch_pixels


class Gate:
    """Lets ordinary work through side by side, and large work alone."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._active = 0
        self._alone = 0
        """Large pieces that wait or run: ordinary work holds back for them."""
        self._busy = False

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: not self._alone)
            self._active += 1
        try:
            yield
        finally:
            self._leave()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._condition:
            self._alone += 1
            self._condition.wait_for(lambda: not self._active and not self._busy)
            self._busy = True
        try:
            yield
        finally:
            with self._condition:
                self._alone -= 1
                self._busy = False
                self._condition.notify_all()

    def _leave(self) -> None:
        with self._condition:
            self._active -= 1
            self._condition.notify_all()


def _torch_threads() -> int:
    import torch

    return int(torch.get_num_threads())
