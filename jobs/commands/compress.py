"""``lichen compress``: pictures into an archive."""

from __future__ import annotations

from contextlib import nullcontext
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from lichen import defaults
from lichen.errors import UsageError
from lichen.jobs import options

if TYPE_CHECKING:
    from lichen.jobs.live import Live
    from lichen.pipeline.engine.progress import JobProgress, JobSummary

NAMES = 10


class OnDuplicate(StrEnum):
    """What to do with a second source of the same key."""

    ERROR = "error"
    FIRST = "first"
    RENAME = "rename"


class OnCollision(StrEnum):
    """What to do with a picture whose key the archive has from other sources."""

    ERROR = "error"
    REPLACE = "replace"
    KEEP = "keep"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(compress)


def compress(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC... DST",
            help="Folders, bucket prefixes, tar files, manifests (.txt, .parquet) or pictures, and last the archive. "
            "Any fsspec URLs.",
        ),
    ],
    codec: Annotated[
        str,
        typer.Option(
            help="`lichen models` lists them; or the .json of a trained one; or auto: each picture its best one."
        ),
    ] = defaults.AUTO,
    quality: Annotated[float, typer.Option("--quality", "-q", min=1, max=100, help="1 to 100.")] = defaults.QUALITY,
    effort: Annotated[
        int,
        typer.Option("--effort", "-e", min=1, max=9, help="Time of the encoder, for fewer bytes; decoding is as fast."),
    ] = defaults.EFFORT,
    min_psnr: Annotated[
        float | None, typer.Option(help="dB: every picture at the lowest quality that reaches it, or stored.")
    ] = None,
    min_ms_ssim: Annotated[float | None, typer.Option(help="The same for MS-SSIM, 0 to 1.")] = None,
    min_ssimulacra2: Annotated[
        float | None,
        typer.Option(help="The same for SSIMULACRA 2: 90 visually lossless, 80 no difference side by side, 70 high."),
    ] = None,
    target_bpp: Annotated[
        float | None, typer.Option(help="Bits per pixel: every picture at the highest quality that needs no more.")
    ] = None,
    psnr_floor: Annotated[float, typer.Option(help="dB that a picture must reach, or it is stored.")] = 30.0,
    block_psnr_floor: Annotated[float, typer.Option(help="dB that its worst 64x64 block must reach.")] = 24.0,
    ms_ssim: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Share of the pictures whose MS-SSIM is measured. Default: all from effort 3."),
    ] = None,
    ssimulacra2: Annotated[float | None, typer.Option(min=0, max=1, help="The same for SSIMULACRA 2.")] = None,
    lossless: Annotated[
        bool, typer.Option("--lossless", help="Keep every picture as its file, byte for byte, in fewer bytes.")
    ] = False,
    store_plain: Annotated[
        bool, typer.Option("--store-plain", help="Store what the codec does not take as it is, without packing it.")
    ] = False,
    store_others: Annotated[
        bool, typer.Option("--store-others", help="Store files that are no pictures instead of naming them.")
    ] = False,
    hidden: Annotated[bool, typer.Option("--hidden", help="Include hidden files and folders.")] = False,
    on_duplicate: Annotated[OnDuplicate, typer.Option(help="Of two sources with one key.")] = OnDuplicate.ERROR,
    on_collision: Annotated[
        OnCollision, typer.Option(help="Of a key that the archive has from other sources.")
    ] = OnCollision.ERROR,
    abandon: Annotated[
        bool, typer.Option("--abandon", help="Give up an unfinished job of these sources with other settings.")
    ] = False,
    local: Annotated[bool, typer.Option("--local", help="Work in this process: what kills it kills the job.")] = False,
    address: Annotated[
        str | None, typer.Option(help="Of a Ray cluster; `local` starts Ray on this machine. Default: a process here.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="More than one take Ray. Default: one for each GPU, or one for each node.")
    ] = None,
    cpus_per_worker: Annotated[int | None, typer.Option(min=1, help="Default: the cores divided by workers.")] = None,
    gpus_per_worker: Annotated[float | None, typer.Option(min=0, help="Fractions share a GPU.")] = None,
    shard_megabytes: Annotated[int | None, typer.Option(min=1, help="Sources in one shard. Default: 256.")] = None,
    picture_timeout: Annotated[
        float, typer.Option(min=1, help="Seconds to read one source, or to decode one: then it is stored undecoded.")
    ] = 120.0,
    max_source_bytes: Annotated[
        int, typer.Option(min=1, help="Larger sources are not read, but named. Default: 2 GiB.")
    ] = 1 << 31,
    device: options.DeviceOption = "auto",
    precision: options.PrecisionOption = "auto",
    source_options: Annotated[
        str | None, typer.Option(metavar="JSON", help="fsspec options for the store of the sources.")
    ] = None,
    storage_options: options.StorageOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Compress pictures into an archive, each one verified before it counts.

    The same command goes on with a job that was stopped, and adds new and changed pictures to a finished one. Exits
    with 3 if some sources could not be read, with 1 if there is no picture among them.
    """
    if len(paths) < 2:
        raise UsageError("say what to compress and into which archive: lichen compress SRC DST")
    if local and address is not None:
        raise UsageError("--local works without Ray, so without --address")

    from lichen.pipeline.engine.spawn import ahead

    # What `choose` of the executors will say, in all likelihood; if not, the process goes as it came.
    in_process = not local and address is None and (workers or 1) == 1 and gpus_per_worker is None
    with ahead() if in_process else nullcontext():
        from lichen.jobs import console
        from lichen.jobs.live import Live
        from lichen.pipeline.engine.config import JobConfig
        from lichen.pipeline.engine.driver import run_job

        config = JobConfig(
            source=tuple(paths[:-1]),
            archive=paths[-1],
            codec=codec,
            quality=quality,
            effort=effort,
            min_psnr=min_psnr,
            min_ms_ssim=min_ms_ssim,
            min_ssimulacra2=min_ssimulacra2,
            target_bpp=target_bpp,
            psnr_floor=psnr_floor,
            block_psnr_floor=block_psnr_floor,
            ms_ssim=ms_ssim,
            ssimulacra2=ssimulacra2,
            lossless=lossless,
            store_plain=store_plain,
            store_others=store_others,
            hidden=hidden,
            on_duplicate=on_duplicate.value,
            on_collision=on_collision.value,
            abandon=abandon,
            picture_timeout=picture_timeout,
            max_source_bytes=max_source_bytes,
            shard_bytes=None if shard_megabytes is None else shard_megabytes * 1_000_000,
            executor="local" if local else "auto",
            address=address,
            workers=workers,
            gpus_per_worker=gpus_per_worker,
            cpus_per_worker=cpus_per_worker,
            device=device,
            precision=precision,
            source_options=options.storage_options(source_options),
            archive_options=options.storage_options(storage_options),
        )
        with Live("Compressing") as live:
            summary = run_job(config, lambda progress: _show(live, progress))
    if as_json:
        console.write_json(console.jsonable(summary) | {"exit_code": summary.exit_code})
    else:
        _tell(summary, paths[-1])
    raise typer.Exit(summary.exit_code)


def _show(live: Live, progress: JobProgress) -> None:
    from lichen.jobs.display import many, number, percent

    counts = progress.counts
    if not counts.sources:
        live.update(None, "starting")
        return
    share = None
    if progress.plan_complete:
        by_bytes = counts.source_bytes / progress.planned_bytes if progress.planned_bytes else None
        by_count = counts.sources / progress.planned_sources if progress.planned_sources else 1.0
        share = min(1.0, by_count if by_bytes is None else max(by_bytes, by_count))
    parts = [
        many(counts.sources, "source"),
        f"{progress.images_per_second:.1f}/s",
        f"{progress.megapixels_per_second:.2f} MP/s",
        f"{number(counts.bpp, '{:.3f}')} bpp",
        f"{percent(counts.savings)} saved",
    ]
    if counts.quarantined:
        parts.append(f"{counts.quarantined:,} not readable")
    live.update(share, ", ".join(parts), progress.eta)


def _tell(summary: JobSummary, archive: str) -> None:
    from lichen.jobs.display import bytes_text, duration, many, outcomes, percent, shown
    from lichen.pipeline.sources.secrets import redact_uri

    counts = summary.counts
    if summary.job is None:
        typer.echo(f"{shown(redact_uri(archive))} is up to date, {many(summary.unchanged, 'source')} unchanged")
    else:
        done = outcomes(counts.compressed, counts.packed, counts.stored)
        typer.echo(f"{done}: snapshot {summary.snapshot} of {shown(redact_uri(archive))}")
        sizes = f"{bytes_text(counts.source_bytes)} became {bytes_text(counts.payload_bytes)}"
        bpp = "" if counts.bpp is None else f", {counts.bpp:.3f} bpp"
        typer.echo(f"{sizes} ({percent(counts.savings)} saved before index and weights){bpp}")
        rate = f"{summary.megapixels_per_second:.2f} MP/s"
        start = duration(summary.startup_seconds)
        typer.echo(f"{duration(summary.seconds)} at {rate} with verification, after {start} of start-up")
        if summary.unchanged:
            typer.echo(f"{many(summary.unchanged, 'source')} unchanged")
    if summary.restored:
        jobs = ", ".join(summary.restored)
        typer.echo(f"The newest snapshot was gone; it was made again from the commits of {jobs}", err=True)
    if summary.lost:
        typer.echo(
            f"LOST in the archive, their payload files are gone or cut: {many(summary.lost, 'picture')}. "
            "Those with sources here were compressed again; `lichen verify` names the others",
            err=True,
        )
    if summary.not_applied:
        told = "; ".join(f"{name} {now}, not {then}" for name, (then, now) in summary.not_applied.items())
        typer.echo(
            f"Not applied to {many(summary.unchanged, 'unchanged source')}: {told.replace('_', ' ')}. "
            "They stay as they are; compress into a new archive to have them otherwise.",
            err=True,
        )
    for count, names, what in (
        (counts.skipped, summary.skipped_names, "No pictures, left out"),
        (summary.missing, summary.missing_names, "In the archive, but gone from the sources"),
        (counts.quarantined, summary.quarantined_names, "COULD NOT BE READ, not in the archive"),
    ):
        if count:
            listed = ", ".join(shown(name) for name in names[:NAMES])
            typer.echo(f"{what}: {count:,} ({listed}{', ...' if count > NAMES else ''})", err=True)
    if summary.exit_code == 1:
        typer.echo("lichen: nothing was archived: there is no picture among the sources", err=True)
