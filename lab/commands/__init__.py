"""The command line of the laboratory, with the conventions of ``lichen``.

What was asked for goes to standard output, progress and errors to standard error; with ``--json`` standard output is
one JSON document. The exit codes are those of ``lichen``. What is heavy is imported inside the function that runs.
"""

from __future__ import annotations

import typer

from lab.commands import measuring, pages, training
from lichen.jobs.cli import application


def build_app() -> typer.Typer:
    """The application with every experiment."""
    about = "Experiments that shaped lichen's codecs, and the page of results. What they found is in docs/lab."
    app = application("lab", about)
    for command in (*measuring.COMMANDS, *training.COMMANDS, *pages.COMMANDS):
        app.command()(command)
    return app


def main() -> None:
    """Run the command that the arguments name."""
    build_app()(prog_name="python -m lab")
