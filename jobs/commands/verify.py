"""``lichen verify``: proof that an archive still gives back what was put in."""

from __future__ import annotations

from typing import Annotated

import typer

from lichen import defaults
from lichen.jobs import options

SHOWN = 20


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(verify)


def verify(
    archive: options.ArchiveArgument,
    keys: options.KeysArgument = None,
    source: Annotated[
        str | None, typer.Option(metavar="SRC", help="Compare the pictures with these sources again.")
    ] = None,
    tolerance: Annotated[
        float, typer.Option(min=0, help="With --source: dB by which PSNR may be below the recorded one.")
    ] = defaults.TOLERANCE,
    snapshot: options.SnapshotOption = None,
    device: options.DeviceOption = defaults.DEVICE,
    precision: options.PrecisionOption = defaults.PRECISION,
    storage_options: options.StorageOption = None,
    source_options: options.SourceStorageOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Read, decode and check every picture, or some of them. Exits with 4 if anything is wrong, 1 if there is nothing.

    Checksums, decoded symbols and originals (rebuilt where they are packed) are compared exactly; without keys, also
    every file that the snapshot names. With --source, what must not be deleted there is named, because the archive does
    not hold it as it is now; if there is any, the exit code is 3.
    """
    from lichen.jobs import console
    from lichen.jobs.display import bytes_text, many, outcomes, shown
    from lichen.pipeline.verify import verify_archive

    opened = options.open_archive(archive, storage_options, snapshot=snapshot, device=device, precision=precision)
    with console.progress("Verifying", len(opened) if not keys else None) as advance:
        result = verify_archive(
            opened,
            keys or (),
            source=source,
            source_options=options.storage_options(source_options),
            tolerance=tolerance,
            progress=advance,
        )
    if as_json:
        console.write_json(result.to_json())
    else:
        kinds = outcomes(result.compressed, result.packed, result.stored)
        counted = f"{many(result.pictures, 'picture')} ({kinds})"
        typer.echo(f"{counted}, {bytes_text(result.bytes_read)}, {result.files:,} files checked")
        if source is not None:
            gone, changed = result.sources_missing, result.sources_changed
            typer.echo(f"{result.sources_compared:,} compared with their sources; {gone:,} gone, {changed:,} changed")
        if kept := sum(result.keep_counts.values()):
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in result.keep_counts.items())
            typer.echo(f"{many(kept, 'source')} NOT in the archive as they are now: keep them ({reasons})")
        if result.pixels_differ:
            note = "decode to slightly other pixels than when written: devices, batches and threads round differently"
            typer.echo(f"{result.pixels_differ:,} {note}")
        good = "all good" if result.exit_code == 0 else "what is in the archive is good"
        typer.echo(
            f"{result.failed:,} FAILED" if not result.ok else "nothing to verify" if not result.pictures else good
        )
    options.tell_if_empty(opened)
    for one in result.keep[:SHOWN]:
        typer.echo(f"lichen: keep {shown(one.key)}: {one.reason}: {shown(one.message)}", err=True)
    if len(result.keep) > SHOWN:
        more = sum(result.keep_counts.values()) - SHOWN
        typer.echo(f"lichen: and keep {more:,} more (--json names the first {len(result.keep):,})", err=True)
    for failure in result.failures[:SHOWN]:
        where = failure.file if failure.key is None else f"{failure.key} in {failure.file}"
        typer.echo(f"lichen: {shown(where)}: {failure.check}: {shown(failure.message)}", err=True)
    if result.failed > SHOWN:
        typer.echo(f"lichen: and {result.failed - SHOWN:,} more", err=True)
    raise typer.Exit(result.exit_code)
