"""The commands that make what the documents show: the page of results and the figures."""

from __future__ import annotations

from typing import Annotated

import typer


def results() -> None:
    """Render docs/results.md and the README's paragraph from docs/results/*.json."""
    from lab.results import PAGE, README, page, readme

    PAGE.write_text(page(), encoding="utf-8")
    README.write_text(readme(README.read_text(encoding="utf-8")), encoding="utf-8")


def record(
    name: Annotated[str, typer.Argument(help="A file of docs/results, without its ending.")],
    command: Annotated[
        list[str], typer.Argument(metavar="-- COMMAND...", help="What measures, without --json: lichen bench entropy")
    ],
    machine: Annotated[str | None, typer.Option(help="How to name the machine. Default: what it says itself.")] = None,
) -> None:
    """Run a command with --json and keep what it wrote in docs/results, for the next `make results`."""
    from lab.record import record as run

    typer.echo(run(name, command, machine=machine))


def figures() -> None:
    """Draw the figures of the documents again."""
    from lab.figures import write

    write()


COMMANDS = (results, record, figures)
