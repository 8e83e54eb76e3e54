"""The ``lichen`` command.

Conventions that every command keeps: what was asked for goes to standard output, progress and errors to
standard error; with ``--json`` standard output is exactly one JSON document. Exit codes: 0 all good, 1
failed, 2 usage, 3 finished but some sources could not be read or must not be deleted, 4 verification failed.
An error of lichen's own ends a command with one line and the exit code of its class, and with ``--json`` as a document
of code, message and exit code (docs/errors.md); any other exception is a bug and shows its traceback.
"""

from __future__ import annotations

import importlib
import pkgutil
import signal
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from lichen.errors import JobInterrupted, LichenError, UsageError
from lichen.jobs import commands, console, options
from lichen.jobs.leaving import leave
from lichen.pipeline import logs
from lichen.pipeline.logs import LogConfig

ORDER = (
    "compress",
    "decode",
    "verify",
    "report",
    "ls",
    "info",
    "gc",
    "submit",
    "status",
    "serve",
    "train",
    "evaluate",
    "models",
    "bench",
)
"""Commands in the order of the help; a module that is not named here comes after them."""


EPILOG = (
    "Exit codes: 0 all good, 1 failed, 2 usage, 3 finished with unreadable sources, or with originals that must be "
    "kept, 4 verification failed."
)


STOPPED = "stopped by SIGTERM"
_AS_JSON = "lichen.json"


class LichenGroup(TyperGroup):
    """Ends a command on lichen's own errors with a message and their exit code; with ``--json`` as a document, too."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Note whether an answer in JSON is asked for, which an error must know before the command's own parsing."""
        ctx.meta[_AS_JSON] = "--json" in (args[: args.index("--")] if "--" in args else args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the arguments name."""
        console.ANSWER.begun = False
        try:
            return super().invoke(ctx)
        except LichenError as error:
            from lichen.pipeline.secrets import redact

            message = redact(str(error))
            typer.echo(f"lichen: {message}", err=True)
            _answer(ctx, error.code, message, error.exit_code)
            raise typer.Exit(error.exit_code) from error
        except Exception as error:
            if (told := getattr(error, "format_message", None)) is not None:  # wrong arguments, which typer shows
                _answer(ctx, UsageError.code, told(), UsageError.exit_code)
            raise


def _answer(ctx: Any, code: str, message: str, exit_code: int) -> None:
    """Tell a program that asked for JSON what went wrong, unless it has a part of the answer already."""
    if ctx.meta.get(_AS_JSON) and not console.ANSWER.begun:
        console.write_json({"code": code, "message": message, "exit_code": exit_code})


def application(name: str, about: str, epilog: str | None = None) -> typer.Typer:
    """An application without commands yet, with the conventions that all keep."""
    return typer.Typer(
        name=name,
        cls=LichenGroup,
        help=about,
        epilog=epilog,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def build_app() -> typer.Typer:
    """The application with every command module in ``lichen.jobs.commands``."""
    about = "Image datasets as small, verified, random-access archives with learned codecs."
    app = application("lichen", about, EPILOG)
    app.callback()(options.with_settings(_root))
    for module in _command_modules():
        module.register(app)
    return app


def main() -> None:
    """Entry point of the console script."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        build_app()(prog_name="lichen")
    except Exception as error:  # before there was a command; what was interrupted may have made another error of it
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN and not isinstance(error, JobInterrupted):
            raise
        typer.echo(f"lichen: {STOPPED}", err=True)
        leave(JobInterrupted.exit_code)
        sys.exit(JobInterrupted.exit_code)
    except SystemExit as stop:
        if isinstance(stop.code, int | None):
            leave(stop.code or 0)
        raise


def _terminate(_number: int, _frame: object) -> None:
    """SIGTERM before (or without) a command that has an orderly end for it."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise JobInterrupted(STOPPED)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"lichen {version('lichen')}")
        raise typer.Exit


def _root(
    log: LogConfig,
    _version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    logs.begin(log)


def _command_modules() -> Iterator[ModuleType]:
    names = {found.name for found in pkgutil.iter_modules(commands.__path__)}
    rank = {name: position for position, name in enumerate(ORDER)}
    for name in sorted(names, key=lambda name: (rank.get(name, len(ORDER)), name)):
        yield importlib.import_module(f"{commands.__name__}.{name}")
