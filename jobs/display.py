"""Numbers and names as people read them."""

from __future__ import annotations

from lichen.pipeline.texts import bytes_text, many, outcomes, percent, shown

__all__ = ["bytes_text", "duration", "many", "number", "outcomes", "percent", "shown"]


def number(value: float | None, pattern: str = "{:.2f}") -> str:
    """A number, or a dash for None."""
    return "-" if value is None else pattern.format(value)


def duration(seconds: float | None) -> str:
    """``1 h 02 min``, ``3 min 20 s``, ``12 s``."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
