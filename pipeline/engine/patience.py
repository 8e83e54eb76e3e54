"""Work with a time limit: native code that hangs cannot be interrupted, but nobody has to wait for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Patience:
    """Runs calls in threads of its own, each for at most ``seconds``. Thread-safe.

    A thread whose call takes longer is given up: it is never joined, and ends with its call or with the process, whose
    end it does not hold up. ``abandoned`` counts those that are still at it.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._idle: list[_Helper] = []
        self._given_up: list[_Helper] = []
        self._lock = threading.Lock()

    @property
    def abandoned(self) -> int:
        """Calls that were given up and have not come back."""
        with self._lock:
            self._given_up = [helper for helper in self._given_up if not helper.done.is_set()]
            return len(self._given_up)

    def call(self, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises. Raises ``TimeoutError`` after ``seconds``."""
        with self._lock:
            helper = self._idle.pop() if self._idle else _Helper()
        call = _Call(work)
        helper.calls.put(call)
        try:
            value, error = call.answer.get(timeout=self.seconds)
        except queue.Empty:
            helper.calls.put(None)
            with self._lock:
                self._given_up.append(helper)
            raise TimeoutError(f"not done within {self.seconds:g} s") from None
        with self._lock:
            self._idle.append(helper)
        if error is not None:
            raise error
        return value  # type: ignore[return-value]  # the helper answers with one of the two

    def close(self) -> None:
        """Let the threads go that wait for calls."""
        with self._lock:
            idle, self._idle = self._idle, []
        for helper in idle:
            helper.calls.put(None)


class _Call(Generic[T]):
    def __init__(self, work: Callable[[], T]) -> None:
        self.work = work
        self.answer: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()


class _Helper:
    """A thread that makes one call after the other. Python does not wait for it at its own end."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[_Call[Any] | None] = queue.SimpleQueue()
        self.done = threading.Event()
        threading.Thread(target=self._run, name="lichen-patience", daemon=True).start()

    def _run(self) -> None:
        while (call := self.calls.get()) is not None:
            try:
                call.answer.put((call.work(), None))
            except BaseException as error:  # noqa: BLE001 - whoever waits for the call gets it
                call.answer.put((None, error))
            del call  # what it holds may be large
        self.done.set()
