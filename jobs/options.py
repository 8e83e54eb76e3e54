"""Arguments and options that several commands share. Imports nothing heavy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lichen.errors import UsageError

if TYPE_CHECKING:
    from lichen.pipeline.archive.reader import Archive

ArchiveArgument = Annotated[str, typer.Argument(metavar="ARCHIVE", help="A local path or any fsspec URL.")]
KeysArgument = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY...]", help="Keys or globs ('holiday/*'; * crosses folders). Default: everything."),
]
SnapshotOption = Annotated[int | None, typer.Option(help="Read this snapshot instead of the newest.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, cuda:N or auto.")]
PrecisionOption = Annotated[str, typer.Option(help="Of the transforms: auto, float32, bfloat16, float16.")]
StorageOption = Annotated[
    str | None,
    typer.Option(
        metavar="JSON", help="fsspec options for the archive's store: a JSON object, or @FILE with one in it."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


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
    device: str = "auto",
    precision: str = "auto",
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
