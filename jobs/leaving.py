"""The end of a process that has used Ray.

Threads of Ray's client outlive ``ray.shutdown``. When one still runs while the C library destroys what it uses, the
process dies of a segmentation fault after all of its work was done, and its exit status tells of a failure that there
was not.
"""

from __future__ import annotations

import atexit
import os
import sys


def leave(status: int) -> None:
    """End the process with this status after Python's own clean-up and before that of the C library.

    Only where Ray has been loaded; returns otherwise. The status becomes 1 if what was printed cannot be written.
    """
    if "ray" not in sys.modules:
        return
    atexit._run_exitfuncs()  # noqa: SLF001, Python has no public way to leave out the C library's part
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            status = status or 1
    os._exit(status)
