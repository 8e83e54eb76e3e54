"""The worker process of ``ProcessExecutor``: ``main`` is its program.

Messages come over a socket that only the two hold. Out come ``(kind, answer)`` pairs: ``loaded`` with the codec's files
or ``refused`` with the error, ``counts`` of an attempt, ``finished`` or ``failed``; ``log`` with a
record; and None as a sign of life.
"""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from lichen.errors import LichenError
from lichen.pipeline.archive.index import import_pandas
from lichen.pipeline.engine.executor import IN_FLIGHT
from lichen.pipeline.engine.memory import keep_freed_memory
from lichen.pipeline.engine.messages import Counts, ShardTask
from lichen.pipeline.logs import relay

_BEAT = 5.0
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve the driver whose socket and process id are the arguments, until it closes the socket or dies."""
    pipe, driver = Connection(int(sys.argv[1])), int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the driver, which then ends this process
    _end_with(driver)
    keep_freed_memory()
    inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, inbox), daemon=True).start()
    _Child(pipe, inbox).serve()


def _end_with(driver: int) -> None:
    """Die with the driver even where native code holds the interpreter and nobody sees that the socket is closed."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != driver:  # it died before that
        os._exit(1)


def _listen(pipe: Connection, inbox: queue.SimpleQueue[Any]) -> None:
    try:
        while True:
            inbox.put(pipe.recv())
    except (EOFError, OSError):
        os._exit(0)


class _Child:
    def __init__(self, pipe: Connection, inbox: queue.SimpleQueue[Any]) -> None:
        self._pipe, self._inbox = pipe, inbox
        self._lock = threading.Lock()
        threading.Thread(target=self._beat, daemon=True).start()

    def serve(self) -> None:
        try:
            from lichen.pipeline.engine.worker import Worker

            settings = self._inbox.get()
            relay(settings.log_level, lambda record: self._say("log", record))
            worker = Worker(settings)
            self._say("loaded", worker.codec_files())
            import_pandas()  # while the driver begins the job
        except Exception as error:  # noqa: BLE001 - the driver raises it
            self._say("refused", _portable(error))
            return
        with ThreadPoolExecutor(IN_FLIGHT, "lichen-shard") as pool:
            while True:
                _, task, digest = self._inbox.get()
                pool.submit(self._run, worker, task, digest)

    def _run(self, worker: Any, task: ShardTask, digest: str) -> None:
        try:
            self._say("finished", (task.attempt, worker.run(task, digest, self._observe)))
        except BaseException as error:  # noqa: BLE001 - the driver judges it
            self._say("failed", (task.attempt, _portable(error)))

    def _observe(self, attempt: str, counts: Counts) -> None:
        self._say("counts", (attempt, counts))

    def _beat(self) -> None:
        pause = threading.Event()
        while not pause.wait(_BEAT):
            self._send(None)

    def _say(self, kind: str, answer: Any) -> None:
        self._send((kind, answer))

    def _send(self, message: Any) -> None:
        try:
            with self._lock:
                self._pipe.send(message)
        except OSError:
            os._exit(0)


def _portable(error: BaseException) -> BaseException:
    """An error as it can be sent: lichen's own as they are, others as what they would print."""
    if isinstance(error, LichenError):
        return error
    return RuntimeError("".join(traceback.format_exception(error)))
