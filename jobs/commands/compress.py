"""``lichen compress``: pictures into an archive."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from lichen.errors import UsageError
from lichen.jobs import options
from lichen.pipeline.engine.config import CodecConfig, EngineConfig, JobConfig, QualityConfig, SourceConfig

if TYPE_CHECKING:
    from lichen.jobs.live import Live
    from lichen.pipeline.engine.progress import JobProgress, JobSummary

NAMES = 10


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(options.with_settings(compress))


def compress(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="SRC... DST",
            help="Folders, bucket prefixes, tar files, manifests (.txt, .parquet) or pictures, and last the archive. "
            "Any fsspec URLs.",
        ),
    ],
    codec: CodecConfig,
    quality: QualityConfig,
    sources: SourceConfig,
    engine: EngineConfig,
    local: Annotated[bool, typer.Option("--local", help="Work in this process: what kills it kills the job.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only list the sources, compress a sample, and say what to expect.")
    ] = False,
    sample: Annotated[int, typer.Option(min=1, help="Sources that a dry run compresses.")] = 200,
    price: Annotated[float | None, typer.Option(min=0, help="Of an hour, for the cost that a dry run tells.")] = None,
    storage_options: options.StorageOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Compress pictures into an archive, each one verified before it counts.

    The same command goes on with a job that was stopped, and adds new and changed pictures to a finished one. Exits
    with 3 if some sources could not be read, with 1 if there is no picture among them.
    """
    if len(paths) < 2:
        raise UsageError("say what to compress and into which archive: lichen compress SRC DST")
    if local and engine.address is not None:
        raise UsageError("--local works without Ray, so without --address")
    engine = replace(engine, executor="local" if local else "auto")
    config = JobConfig(
        source=tuple(paths[:-1]),
        archive=paths[-1],
        codec=codec,
        quality=quality,
        sources=sources,
        engine=engine,
        archive_options=options.storage_options(storage_options),
    )
    if dry_run:
        _foretell(config, sample, price, as_json=as_json)
        return

    from lichen.pipeline.engine.spawn import ahead

    # What `choose` of the executors will say, in all likelihood; if not, the process goes as it came.
    alone = engine.address is None and (engine.workers or 1) == 1 and engine.gpus_per_worker is None
    with ahead() if alone and not local else nullcontext():
        from lichen.jobs import console
        from lichen.jobs.live import Live
        from lichen.pipeline.engine.driver import run_job

        with Live("Compressing") as live:
            summary = run_job(config, lambda progress: _show(live, progress))
    if as_json:
        console.write_json(console.jsonable(summary) | {"exit_code": summary.exit_code})
    else:
        _tell(summary, paths[-1])
    raise typer.Exit(summary.exit_code)


def _foretell(config: JobConfig, sample: int, price: float | None, *, as_json: bool) -> None:
    from lichen.jobs import console
    from lichen.jobs.display import bytes_text, duration, many, outcomes, percent
    from lichen.pipeline.engine.estimate import estimate

    with console.progress("Compressing a sample", None) as advance:
        found = estimate(config, sample=sample, progress=lambda counts: advance(counts.sources))
    if as_json:
        costs = {} if price is None else {"cost": found.cost(price)}
        console.write_json(console.jsonable(found) | costs)
        return
    unknown = f" (and {many(found.unknown_sizes, 'file')} of unknown size)" if found.unknown_sizes else ""
    typer.echo(f"{many(found.sources, 'source')}, {bytes_text(found.source_bytes)}{unknown}")
    typer.echo(f"a sample of {found.sampled:,}: {outcomes(found.compressed, found.packed, found.stored)}")
    between = f"{bytes_text(found.low)} to {bytes_text(found.high)}"
    saved = f"{percent(found.savings)} saved with codecs and index"
    typer.echo(f"archive    {bytes_text(found.archive_bytes)} ({between}), {saved}")
    times = f"{duration(found.seconds_low)} to {duration(found.seconds_high)}"
    money = "" if price is None else f", {found.cost(price):.2f} at {price:g} an hour"
    typer.echo(f"time       {duration(found.seconds)} ({times}) with one worker like this machine{money}")
    for count, what in ((found.skipped, "no pictures"), (found.unreadable, "not readable")):
        if count:
            typer.echo(f"{count:,} of the sample: {what}", err=True)


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
    from lichen.pipeline.secrets import redact_uri

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
