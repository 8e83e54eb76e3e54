"""The exit status of a process that has used Ray is that of its work."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

LEAVE = "from lichen.jobs.leaving import leave"
CLEANED = f"import atexit; atexit.register(print, 'cleaned'); {LEAVE}; print('said', end=' ')"


def python(code: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], stdout=stdout, text=True, check=False, timeout=120)


def test_a_process_with_ray_ends_at_once_after_its_clean_up() -> None:
    done = python(f"import ray; {CLEANED}; leave(3); print('not reached')")
    assert (done.returncode, done.stdout) == (3, "said cleaned\n")


def test_without_ray_nothing_changes() -> None:
    done = python(f"{CLEANED}; leave(3); print('reached')")
    assert (done.returncode, done.stdout) == (0, "said reached\ncleaned\n")


def test_output_that_cannot_be_written_is_a_failure() -> None:
    with Path("/dev/full").open("w") as full:
        done = python(f"import ray; {LEAVE}; print('x'); leave(0)", full.fileno())
    assert done.returncode == 1
