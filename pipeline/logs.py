"""Logging: the standard ``logging``, one logger a module, with job, shard, attempt and key as fields of the records.

    log = Log(__name__)
    log.info("attempt committed, %d pictures", count, shard=task.shard, attempt=task.attempt)

Secrets are taken out of a message before any handler sees it. Nothing is shown unless ``begin`` was called, as the
command line does, or the program that uses lichen has handlers of its own. Worker processes send their records to the
driver (``relay``), which handles them as its own (``take_over``).
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from logging.handlers import QueueHandler
from typing import Final

from lichen.choices import LogFormat
from lichen.settings import check, described, setting

FIELDS: Final = ("job", "shard", "attempt", "key")
_LEVELS: Final = (logging.WARNING, logging.INFO, logging.DEBUG)
_ROOT: Final = logging.getLogger("lichen")
_ROOT.addHandler(logging.NullHandler())  # a library is silent until it is asked


@described
@dataclass(frozen=True, slots=True, kw_only=True)
class LogConfig:
    """What the log shows, on standard error.

    Settings:
    """

    verbose: int = setting(
        0,
        "Log what a job does: shards, attempts, workers, leases. Twice: every picture that is kept.",
        short="-v",
        count=True,
    )
    format: LogFormat = setting(
        "text", "How a line of the log is written; json has one object a line.", option="log_format"
    )

    def __post_init__(self) -> None:
        check(self)


class Log:
    """The logger of a module. Messages are formatted with ``%``, and only where somebody wants them.

    ``fields`` are those in ``FIELDS`` that the record is about; the job is known from the shard.
    """

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def debug(self, message: str, *values: object, **fields: str) -> None:
        """What one picture met with."""
        self._log(logging.DEBUG, message, values, fields)

    def info(self, message: str, *values: object, **fields: str) -> None:
        """What happens in the ordinary course of a job."""
        self._log(logging.INFO, message, values, fields)

    def warning(self, message: str, *values: object, **fields: str) -> None:
        """What an operator must know, that the job survives, and that its summary does not tell."""
        self._log(logging.WARNING, message, values, fields)

    def _log(self, level: int, message: str, values: tuple[object, ...], fields: dict[str, str]) -> None:
        if not self._logger.isEnabledFor(level):
            return
        from lichen.pipeline.secrets import redact

        assert fields.keys() <= set(FIELDS)
        known = {"job": fields["shard"].partition(".")[0], **fields} if "shard" in fields else fields
        self._logger.log(level, "%s", redact(message % values if values else message), extra=known, stacklevel=3)


# --- showing ----------------------------------------------------------------------------------------


def begin(config: LogConfig) -> None:
    """Show the records of lichen on standard error from now on, in the place of what was shown before."""
    end()
    _ROOT.addHandler(_StandardError(JsonLines() if config.format == "json" else TextLines()))
    _ROOT.setLevel(_LEVELS[min(config.verbose, len(_LEVELS) - 1)])


def end() -> None:
    """Show nothing any more."""
    for handler in [handler for handler in _ROOT.handlers if isinstance(handler, _StandardError)]:
        _ROOT.removeHandler(handler)
    _ROOT.setLevel(logging.NOTSET)


def say(line: str) -> bool:
    """Write a line of progress as an object where the log is JSON, whose reader takes nothing else; whether it is."""
    for handler in _ROOT.handlers:
        if isinstance(handler, _StandardError) and isinstance(handler.formatter, JsonLines):
            handler.emit(logging.LogRecord("lichen.progress", logging.INFO, "", 0, "%s", (line,), None))
            return True
    return False


class _StandardError(logging.Handler):
    """Whatever standard error is at the time: a progress bar puts itself in its place."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except (OSError, ValueError):  # nobody reads any more
            self.handleError(record)


class TextLines(logging.Formatter):
    """``2026-11-25 17:32:21 INFO lichen.pipeline.engine.driver: job begun job=...``; always one line."""

    def format(self, record: logging.LogRecord) -> str:
        from lichen.pipeline.texts import shown

        time = datetime.fromtimestamp(record.created).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        told = "".join(f" {name}={value}" for name, value in _fields(record).items())
        return shown(f"{time} {record.levelname} {record.name}: {record.getMessage()}{told}")


class JsonLines(logging.Formatter):
    """One object a line: time (UTC, ISO 8601), level, logger, message, and the fields that the record has."""

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        known = {"time": time, "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage()}
        return json.dumps(known | _fields(record), ensure_ascii=False)


def _fields(record: logging.LogRecord) -> dict[str, str]:
    return {name: str(getattr(record, name)) for name in FIELDS if getattr(record, name, None) is not None}


# --- from workers to the driver -----------------------------------------------------------------------


def level() -> int:
    """The least level that is shown here, which workers are told."""
    return _ROOT.getEffectiveLevel()


def relay(least: int, send: Callable[[logging.LogRecord], object]) -> None:
    """In a worker's process: send records of at least this level instead of showing them."""
    _ROOT.handlers = [_Relay(send)]
    _ROOT.propagate = False
    _ROOT.setLevel(least)


def take_over(record: logging.LogRecord) -> None:
    """In the driver's process: handle a worker's record as one of its own."""
    logger = logging.getLogger(record.name)
    if logger.isEnabledFor(record.levelno):
        logger.handle(record)


class _Relay(QueueHandler):
    """Makes records fit to be pickled, as the handler of queues does, and sends them."""

    def __init__(self, send: Callable[[logging.LogRecord], object]) -> None:
        super().__init__(None)  # type: ignore[arg-type]  # nothing of it but ``prepare`` is used
        self._send = send

    def enqueue(self, record: logging.LogRecord) -> None:
        self._send(record)
