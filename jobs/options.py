"""Arguments and options that several commands share, and those that are made of configurations.

A parameter of a command that is a configuration (``lichen.settings``) becomes one option for each of its settings:
name, type, default, limits and help are those of the field. Imports nothing heavy.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, is_dataclass
from enum import Enum, StrEnum
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_origin, get_type_hints

import typer

from lichen import defaults
from lichen.errors import UsageError
from lichen.pipeline.engine.config import CodecConfig
from lichen.settings import Setting, choices, settings

if TYPE_CHECKING:
    from lichen.pipeline.archive.reader import Archive


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """The command with an option in the place of each setting of the configurations among its parameters."""
    hints = get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    groups: dict[str, Any] = {}
    for parameter in inspect.signature(command).parameters.values():
        kind: Any = hints[parameter.name]
        if is_dataclass(kind):
            groups[parameter.name] = kind
            kinds = get_type_hints(kind)
            found = [(name, one, known) for name, (one, known) in settings(kind).items() if known.cli]
            parameters += [_parameter(name, one, known, kinds[one.name]) for name, one, known in found]
        else:
            parameters.append(parameter.replace(annotation=kind, kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(command)
    def run(**given: Any) -> None:
        built = {name: _build(kind, given) for name, kind in groups.items()}
        command(**built, **given)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def option_of(kind: Any, name: str) -> Any:
    """The option that a setting makes, for commands that take it alone."""
    return _option(name, settings(kind)[name][1], {})


def _parameter(name: str, one: Field[Any], known: Setting, kind: Any) -> inspect.Parameter:
    default = one.default
    more: dict[str, Any] = {}
    if get_origin(kind) is Mapping:
        kind, default, more = str | None, None, {"metavar": "JSON"}
    elif words := choices(kind):
        # An enumeration, which every version of typer takes; mypy would have it written out.
        make: Any = StrEnum
        kind = make(name, {word: word for word in words})
        default = kind(default)
    assert default is not MISSING
    annotation = Annotated[kind, _option(name, known, more)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _option(name: str, known: Setting, more: Mapping[str, Any]) -> Any:
    flags = [f"--{name.replace('_', '-')}", *([known.short] if known.short else [])]
    option: Any = typer.Option  # its overloads take no list of flags with further settings
    return option(*flags, help=known.text, count=known.count, min=known.at_least, max=known.at_most, **more)


def _build(kind: Any, given: dict[str, Any]) -> Any:
    """A configuration of the values that its options have, which are taken out of ``given``."""
    kinds = get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, (one, known) in settings(kind).items():
        if known.cli:
            value = given.pop(name)
            if get_origin(kinds[one.name]) is Mapping:
                value = storage_options(value)
            elif isinstance(value, Enum):
                value = value.value
            elif known.unit != 1 and value is not None:
                value *= known.unit
            values[one.name] = value
    return kind(**values)


ArchiveArgument = Annotated[str, typer.Argument(metavar="ARCHIVE", help="A local path or any fsspec URL.")]
KeysArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY...]", help="Keys or globs ('holiday/*'; * crosses folders). Default: everything."),
]
SnapshotOption = Annotated[int | None, typer.Option(help="Read this snapshot instead of the newest.")]
DeviceOption = Annotated[str, option_of(CodecConfig, "device")]
PrecisionOption = Annotated[str, option_of(CodecConfig, "precision")]
StorageOption = Annotated[
    str | None,
    typer.Option(
        metavar="JSON", help="fsspec options for the archive's store: a JSON object, or @FILE with one in it."
    ),
]
SourceStorageOption = Annotated[
    str | None,
    typer.Option(
        metavar="JSON", help="fsspec options for the store of the sources: a JSON object, or @FILE with one in it."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def path(text: str) -> Path:
    """The parser of every argument that is a folder or a file of this machine, and nothing else.

    Raises ``UsageError`` for the URL of a store: as a path it would be a folder here, named with the password in it.
    """
    if "://" not in text:
        return Path(text)
    from lichen.pipeline.secrets import redact_uri
    from lichen.pipeline.sources.base import is_local, local_path

    if not is_local(text):
        raise UsageError(f"{redact_uri(text)} is in a store; name a folder or a file of this machine here")
    return Path(local_path(text))


def storage_options(text: str | None) -> dict[str, Any]:
    """The value of a storage option. Raises ``UsageError``."""
    if text is None:
        return {}
    try:
        value = json.loads(Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text)
    except (ValueError, OSError) as error:
        raise UsageError(f"storage options are a JSON object, or @FILE with one in it: {error}") from error
    if not isinstance(value, dict):
        raise UsageError("storage options are a JSON object")
    return value


def open_archive(
    url: str,
    options: str | None = None,
    *,
    snapshot: int | None = None,
    device: str = defaults.DEVICE,
    precision: str = defaults.PRECISION,
) -> Archive:
    """The archive that a command was told to read."""
    from lichen.pipeline.archive.reader import Archive

    return Archive.open(url, storage_options(options), snapshot=snapshot, device=device, precision=precision)


def tell_if_empty(archive: Archive) -> None:
    """Say on standard error that there is nothing in an archive; it would look like one that is good otherwise."""
    if len(archive) == 0:
        from lichen.jobs.display import shown

        why = "no job has finished yet" if archive.snapshot is None else "its jobs found no pictures"
        typer.echo(f"lichen: there is nothing in {shown(archive.store.url)}: {why}", err=True)
