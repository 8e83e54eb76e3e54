"""``lichen decode``: pictures of an archive back into files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lichen import defaults
from lichen.errors import UsageError
from lichen.jobs import options

SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(decode)


def decode(
    archive: options.ArchiveArgument,
    keys: options.KeysArgument = None,
    to: Annotated[
        Path | None, typer.Option("--to", "-o", parser=options.path, help="The folder to write into.")
    ] = None,
    file_format: Annotated[
        str,
        typer.Option(
            "--format", "-f", help="png or jpeg. Packed and stored pictures come back as the files they were."
        ),
    ] = "png",
    original: Annotated[
        bool, typer.Option("--original", help="Only packed and stored pictures, as the files that they were.")
    ] = False,
    jpeg_quality: Annotated[int, typer.Option(min=1, max=100, help="Quality of JPEG files.")] = 95,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    snapshot: options.SnapshotOption = None,
    device: options.DeviceOption = defaults.DEVICE,
    precision: options.PrecisionOption = defaults.PRECISION,
    storage_options: options.StorageOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Write pictures back as PNG or JPEG files, in the folders that their keys name.

    EXIF, ICC profile, XMP, alpha and greyscale are kept. Exits with 1 if a picture could not be written.
    """
    if to is None:
        raise UsageError("say where to write with --to FOLDER")
    if file_format not in ("png", "jpeg"):
        raise UsageError(f"--format is png or jpeg, not {file_format!r}")
    if to.exists() and not to.is_dir():
        raise UsageError(f"{to} is not a folder")

    from lichen.jobs import console
    from lichen.jobs.display import bytes_text, many, shown
    from lichen.pipeline.export import export
    from lichen.pipeline.select import select

    opened = options.open_archive(archive, storage_options, snapshot=snapshot, device=device, precision=precision)
    options.tell_if_empty(opened)
    settings = {"quality": jpeg_quality, "subsampling": 0} if file_format == "jpeg" else {}
    with console.progress("Decoding", len(opened) if not keys else None) as advance:
        result = export(
            opened,
            select(opened, keys or ()),
            to,
            file_format="original" if original else "jpeg" if file_format == "jpeg" else "png",
            overwrite=overwrite,
            progress=advance,
            **settings,
        )
    if as_json:
        console.write_json(result)
    else:
        said = (
            f"{many(result.written, 'picture')} ({result.originals:,} as the original file), {bytes_text(result.bytes)}"
        )
        typer.echo(f"{said} in {shown(str(to))}")
        if result.left_out:
            typer.echo(f"{result.left_out:,} were compressed and have no original in the archive", err=True)
        if result.not_carried:
            kinds = ", ".join(f"{shown(kind)} ({many(count, 'picture')})" for kind, count in result.not_carried.items())
            typer.echo(f"{file_format.upper()} files cannot hold everything; in the archive alone: {kinds}", err=True)
    for problem in result.problems[:SHOWN]:
        typer.echo(f"lichen: {shown(problem.key)}: {shown(problem.message)}", err=True)
    if len(result.problems) > SHOWN:
        typer.echo(f"lichen: and {len(result.problems) - SHOWN:,} more", err=True)
    if result.problems:
        raise typer.Exit(1)
