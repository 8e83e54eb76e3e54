"""Numbers and names as people read them, in summaries, logs and on terminals."""

from __future__ import annotations

from lichen.pipeline.names import is_hidden


def bytes_text(count: float) -> str:
    """``1.23 MB``: three significant digits, powers of 1000."""
    value, units = float(count), ["PB", "TB", "GB", "MB", "kB", "B"]
    unit = units.pop()
    while abs(value) >= 999.5 and units:
        value, unit = value / 1000, units.pop()
    digits = 0 if unit == "B" or abs(value) >= 99.95 else 1 if abs(value) >= 9.995 else 2
    return f"{value:.{digits}f} {unit}"


def percent(value: float | None) -> str:
    """A share as ``61.9 %``."""
    return "-" if value is None else f"{100 * value:.1f} %"


def many(count: int, noun: str) -> str:
    """``1 picture``, ``1,200 pictures``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def outcomes(compressed: int, packed: int, stored: int) -> str:
    """``4 compressed, 1 packed, 2 stored``; archives without packed files do not speak of them."""
    parts = [f"{compressed:,} compressed", *([f"{packed:,} packed"] if packed else []), f"{stored:,} stored"]
    return ", ".join(parts)


def became(before: int, after: int, savings: float | None) -> str:
    """``5.20 MB became 1.98 MB (61.9 % saved)``."""
    return f"{bytes_text(before)} became {bytes_text(after)} ({percent(savings)} saved)"


def shown(name: str, width: int | None = None) -> str:
    """A key or a message for a terminal: what nobody sees is escaped, the middle left out beyond ``width``."""
    text = "".join(
        c if c.isprintable() and not is_hidden(c) else c.encode("unicode_escape").decode("ascii") for c in name
    )
    if width is not None and len(text) > width:
        tail = (width - 3) * 2 // 3
        text = f"{text[: width - 3 - tail]}...{text[-tail:]}"
    return text
