"""``lichen ls``: the pictures of an archive."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from lichen.jobs import options

if TYPE_CHECKING:
    from lichen.pipeline.archive.index import IndexRow


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(ls)


def ls(
    archive: options.ArchiveArgument,
    keys: options.KeysArgument = None,
    long: Annotated[
        bool, typer.Option("--long", "-l", help="Size, format, bytes before and after, bpp, PSNR and worst block.")
    ] = False,
    snapshot: options.SnapshotOption = None,
    storage_options: options.StorageOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """List the keys of an archive, one a line; with --json whole index rows."""
    from lichen.jobs.console import jsonable, write
    from lichen.jobs.display import shown
    from lichen.pipeline.select import select

    opened = options.open_archive(archive, storage_options, snapshot=snapshot, device="cpu")
    options.tell_if_empty(opened)
    first = True
    for batch in select(opened, keys or ()):
        for row in batch:
            if as_json:  # one document, written as it grows
                write("[\n " if first else ",\n ")
                write(json.dumps(jsonable(dataclasses.asdict(row)), ensure_ascii=False, allow_nan=False))
            elif long:
                if first:
                    typer.echo(
                        _line("status", "size", "mode", "format", "before", "after", "bpp", "PSNR", "block", "key")
                    )
                typer.echo(_long(row))
            else:
                typer.echo(shown(row.key))
            first = False
    if as_json:
        write("[]\n" if first else "\n]\n")


def _long(row: IndexRow) -> str:
    from lichen.jobs.display import bytes_text, number, shown

    return _line(
        row.status,
        "-" if row.width is None else f"{row.width}x{row.height}",
        row.mode or "-",
        row.source_format or "-",
        bytes_text(row.source_bytes),
        bytes_text(row.length + (row.side_length or 0)),
        number(row.bpp, "{:.3f}"),
        number(row.psnr),
        number(row.block_psnr),
        shown(row.key) + (f"  ({shown(row.reason)})" if row.reason else ""),
    )


def _line(*cells: str) -> str:
    widths = (10, -11, -5, 8, -8, -8, -7, -6, -6)
    padded = [
        cell.rjust(-width) if width < 0 else cell.ljust(width) for cell, width in zip(cells, widths, strict=False)
    ]
    return "  ".join([*padded, cells[-1]])
