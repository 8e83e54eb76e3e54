"""What commands share for talking: JSON on standard output, tables, and progress on standard error."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def jsonable(value: Any) -> Any:
    """Turn dataclasses, mappings, sequences, paths and bytes into what JSON has.

    Bytes become hexadecimal digits. Numbers that JSON lacks (infinite, not a number) become null.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: jsonable(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Sequence | set | frozenset) and not isinstance(value, str):
        return [jsonable(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return str(value) if isinstance(value, PurePath) else value


def json_text(value: Any) -> str:
    """One JSON document, indented, ending in a newline."""
    return json.dumps(jsonable(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


class _Answer:
    """Whether this command has begun to answer; an error may be the answer only until then."""

    begun = False


ANSWER = _Answer()


def write(text: str) -> None:
    """Write a part of the one JSON document that a command answers with to standard output."""
    ANSWER.begun = True
    sys.stdout.write(text)


def write_json(value: Any) -> None:
    """Write the one JSON document that a command answers with to standard output."""
    write(json_text(value))


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested JSON with dotted names, for results that are shown as one column of numbers."""
    items: Iterator[tuple[Any, Any]]
    if isinstance(value, Mapping):
        items = iter(value.items())
    elif isinstance(value, list):
        items = iter(enumerate(value))
    else:
        yield prefix, value
        return
    for name, item in items:
        yield from flatten(item, f"{prefix}.{name}" if prefix else str(name))


def stdout() -> Console:
    """Console for what was asked for. Piped into a file or another program it is wide and without colours."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120)


def stderr() -> Console:
    """Console for progress, warnings and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def table(title: str, columns: Sequence[str]) -> Table:
    """An empty table; the first column is text, the others are numbers."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold", pad_edge=False)
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if index else "left", no_wrap=True)
    return made


@contextmanager
def progress(description: str, total: int | None) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error, if that is a terminal; yields the function that advances it.

    ``total`` is None where it is not known beforehand.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = stderr()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(description, total=total)

        def advance(steps: int) -> None:
            bar.advance(task, steps)

        yield advance
