"""``lichen info``: what an archive is, without reading its index."""

from __future__ import annotations

from typing import Any

import typer

from lichen.jobs import options


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(info)


def info(
    archive: options.ArchiveArgument,
    snapshot: options.SnapshotOption = None,
    storage_options: options.StorageOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Show an archive's snapshots, jobs, codecs and totals."""
    from lichen.jobs import console
    from lichen.jobs.display import bytes_text, outcomes, percent, shown
    from lichen.pipeline.archive.codecs import codec_name
    from lichen.pipeline.archive.job import list_jobs, read_done
    from lichen.pipeline.archive.layout import FORMAT
    from lichen.pipeline.archive.snapshot import snapshot_numbers

    opened = options.open_archive(archive, storage_options, snapshot=snapshot, device="cpu")
    options.tell_if_empty(opened)
    found = opened.info()
    jobs: dict[str, str] = {}
    for job in list_jobs(opened.store):
        done = read_done(opened.store, job)
        jobs[job] = "unfinished" if done is None else done.state
    codecs = {digest: codec_name(opened.store, digest) for digest in found.codecs}
    result: dict[str, Any] = console.jsonable(found) | {
        "format": FORMAT,
        "snapshots": snapshot_numbers(opened.store),
        "jobs": jobs,
        "codecs": codecs,
        "index_files": opened.index_files,
        "archive_bytes": found.archive_bytes,
        "savings": found.savings,
    }
    if as_json:
        console.write_json(result)
        return
    typer.echo(f"{shown(found.url)}  (archive {found.id}, created {found.created})")
    current = "none yet" if found.snapshot is None else f"{found.snapshot} of {len(result['snapshots'])}"
    typer.echo(f"snapshot   {current}")
    typer.echo(f"pictures   {found.pictures:,} ({outcomes(found.compressed, found.packed, found.stored)})")
    typer.echo(f"pixels     {found.pixels / 1e6:,.1f} MP")
    sizes = f"{bytes_text(found.source_bytes)} before, {bytes_text(found.archive_bytes)} after"
    typer.echo(f"bytes      {sizes}, {percent(found.savings if found.source_bytes else None)} saved")
    parts = f"payloads {bytes_text(found.payload_file_bytes)}, index {bytes_text(found.index_bytes)}"
    typer.echo(f"           {parts}, codecs {bytes_text(found.codec_bytes)}")
    for digest, name in codecs.items():
        typer.echo(f"codec      {shown(name)}  {digest[:16]}")
    for job, state in jobs.items():
        typer.echo(f"job        {job}  {state}")
