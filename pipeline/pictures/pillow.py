"""What is common to reading and writing with Pillow."""

from __future__ import annotations

import struct

from PIL import Image

MODES = ("L", "LA", "RGB", "RGBA")

PILLOW_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    AssertionError,
    ZeroDivisionError,
    OverflowError,
    RecursionError,
    RuntimeError,
    MemoryError,
    Image.DecompressionBombError,
    Warning,  # where a process turns warnings into errors
)
"""What Pillow's plugins raise on damaged files, by their source and by fuzzing."""


def message(error: BaseException) -> str:
    """An error as one short line."""
    return " ".join(str(error).split())[:200] or type(error).__name__
