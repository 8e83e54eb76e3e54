"""Whoever looks after Ray's processes when the driver that started Ray is killed.

The raylet and its store die with the driver, by the kernel; its agents first try for a minute to report that to a
server which has died too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

_PROGRAM = """
import os, signal, sys
known = sys.stdin.read().split()  # until the driver closes the pipe, or dies
for pid, began in zip(known[::2], known[1::2]):
    try:
        if open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[19] == began:  # not another of the same number
            os.kill(int(pid), signal.SIGKILL)
    except OSError:
        pass
"""


def guard_descendants() -> Callable[[], None]:
    """Start a small process that kills all present descendants of this one after its death; returns what ends it.

    Ending it kills those, too, that are still there. Does nothing where there is no ``/proc``.
    """
    below = _descendants(os.getpid())
    guardian = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-I", "-S", "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        start_new_session=True,  # Ctrl-C is not for it
        text=True,
    )
    assert guardian.stdin is not None
    guardian.stdin.write("\n".join(f"{pid} {began}" for pid, began in below))
    guardian.stdin.flush()

    def end() -> None:
        guardian.communicate()

    return end


def _descendants(root: int) -> list[tuple[int, str]]:
    """Process ids below one, and when each began in clock ticks."""
    parents: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:  # gone meanwhile
            continue
        parents[int(entry.parent.name)] = int(fields[1]), fields[19]
    found, last = [], {root}
    while last:
        last = {pid for pid, (parent, _) in parents.items() if parent in last}
        found += [(pid, parents[pid][1]) for pid in last]
    return found
