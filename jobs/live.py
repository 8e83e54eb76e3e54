"""What a long job says while it runs: a bar on a terminal, a line now and then elsewhere. On standard error."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from lichen.jobs import console
from lichen.jobs.display import duration
from lichen.pipeline import logs

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

LINE_SECONDS = 15.0
"""Seconds between two lines, where standard error is no terminal."""


class Live:
    """A context manager; call ``update`` as often as there is news."""

    def __init__(self, title: str, *, line_seconds: float = LINE_SECONDS) -> None:
        self._title, self._line_seconds = title, line_seconds
        self._console = console.stderr()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._next_line = time.monotonic() + line_seconds / 3

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (
                TextColumn(self._title),
                BarColumn(bar_width=20),
                TextColumn("{task.percentage:>4.0f} %  {task.fields[text]}", markup=False),
            )
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task(self._title, total=None, text="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, share: float | None, text: str, eta: float | None = None) -> None:
        """Show how much is done (0 to 1, None while unknown), what is to be said, and the seconds to go."""
        if eta is not None:
            text = f"{text}, {duration(eta)} to go"
        if self._bar is not None and self._task is not None:
            if share is not None:
                self._bar.update(self._task, total=1.0, completed=share)
            self._bar.update(self._task, text=text)
            return
        now = time.monotonic()
        if now >= self._next_line:
            self._next_line = now + self._line_seconds
            part = "" if share is None else f"{100 * share:3.0f} %  "
            line = f"{self._title}: {part}{text}"
            if not logs.say(line):
                self._console.print(line, markup=False, soft_wrap=True)
