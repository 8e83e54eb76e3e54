"""``lichen status``: where the jobs of an archive stand."""

from __future__ import annotations

from typing import Any

import typer

from lichen.jobs import options


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(status)


def status(
    archive: options.ArchiveArgument,
    storage_options: options.StorageOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Show every job: finished, at work, or stopped and waiting for the same command to go on."""
    from lichen.jobs import console
    from lichen.jobs.display import shown
    from lichen.pipeline.archive.job import list_jobs, read_done, read_progress
    from lichen.pipeline.archive.lease import is_live
    from lichen.pipeline.archive.marker import read_marker
    from lichen.pipeline.archive.store import open_store

    store = open_store(archive, options.storage_options(storage_options))
    read_marker(store)
    whole = is_live(store, None)  # where creates are not atomic, one driver has the whole archive
    jobs: list[dict[str, Any]] = []
    for job in list_jobs(store):
        done = read_done(store, job)
        state = done.state if done is not None else "running" if whole or is_live(store, job) else "stopped"
        jobs.append({"job": job, "state": state, "progress": read_progress(store, job)})
    if as_json:
        console.write_json(jobs)
        return
    for entry in jobs:
        typer.echo(f"{entry['job']}  {entry['state']}")
        for name, value in console.flatten(entry["progress"] or {}):
            if name not in ("format", "job"):
                typer.echo(f"  {name}: {shown(str(value))}")
    if not jobs:
        typer.echo("no jobs yet")
