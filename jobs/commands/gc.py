"""``lichen gc``: delete what an archive no longer needs."""

from __future__ import annotations

from typing import Annotated

import typer

from lichen import defaults
from lichen.jobs import options


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(gc)


def gc(
    archive: options.ArchiveArgument,
    older_than: Annotated[
        float, typer.Option(min=0, help="Hours; younger files stay, because a job may be about to need them.")
    ] = defaults.GARBAGE_HOURS,
    keep_snapshots: Annotated[
        int | None, typer.Option(min=1, help="Keep only the newest so many snapshots. Default: all.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Delete nothing, say what would be.")] = False,
    storage_options: options.StorageOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Delete attempts that lost or died, and old snapshots if asked to. Files that lichen did not write stay."""
    from lichen.jobs import console
    from lichen.jobs.display import bytes_text
    from lichen.pipeline.archive.gc import collect
    from lichen.pipeline.archive.store import open_store

    store = open_store(archive, options.storage_options(storage_options))
    sweep = collect(store, older_than=older_than * 3600, keep_snapshots=keep_snapshots, dry_run=dry_run)
    if as_json:
        console.write_json(
            {
                "deleted": sweep.deleted,
                "files": [entry.path for entry in sweep.garbage],
                "bytes": sweep.bytes,
                "young": sweep.young,
            }
        )
        return
    if dry_run:
        for entry in sweep.garbage:
            typer.echo(entry.path)
    verb = "would be deleted" if dry_run else "deleted"
    typer.echo(f"{len(sweep.garbage):,} files of {bytes_text(sweep.bytes)} {verb}; {sweep.young:,} too young to judge")
