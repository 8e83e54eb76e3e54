"""A Python process of its own that runs ``lichen.pipeline.engine.child``, and the socket to it.

Python and the worker's modules take most of a second to load. A command that is about to run a job begins the process
``ahead`` of its own imports. Nothing here needs more than Python's library.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

_PROGRAM = "from lichen.pipeline.engine.child import main; main()"


@dataclass(frozen=True, slots=True)
class Spawned:
    """The process, which ends when the pipe is closed or this process dies, and the pipe, which nobody reads yet."""

    process: subprocess.Popen[bytes]
    pipe: Connection

    def kill(self) -> None:
        """End the process now, and with it whatever hangs in it."""
        self.process.kill()
        self.process.wait()


_waiting: deque[Spawned] = deque()


@contextmanager
def ahead() -> Iterator[None]:
    """Begin a process now, for the first who takes one; it ends with the context if nobody did."""
    early = _spawn()
    _waiting.append(early)
    try:
        yield
    finally:
        if early in _waiting:
            _waiting.remove(early)
            early.kill()
            early.pipe.close()


def take() -> Spawned:
    """The process that was begun ahead, or a new one."""
    try:
        return _waiting.popleft()
    except IndexError:
        return _spawn()


def _spawn() -> Spawned:
    ours, theirs = socket.socketpair()
    paths = [path for path in sys.path if path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    with theirs:
        process = subprocess.Popen(  # noqa: S603 - our own program
            # -P: no module of the current folder in place of a real one
            [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno()), str(os.getpid())],
            stdin=subprocess.DEVNULL,
            stdout=2,  # standard output belongs to the command
            pass_fds=[theirs.fileno()],
            env=environment,
        )
    return Spawned(process, Connection(ours.detach()))
