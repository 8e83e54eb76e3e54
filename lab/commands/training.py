"""The experiments that train."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.commands.options import Cache, Device, Json, Precision, Sources, Start, Variants
from lichen import defaults


def ablation(
    sources: Sources,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each run.")] = 300,
    batch: Annotated[int, typer.Option(min=1, help="Crops of 128 pixels in a step.")] = 8,
    variants: Variants = None,
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Short trainings of equal budget, with one choice of the codec or of its training changed in each."""
    from lab.ablation import run
    from lichen.jobs import console
    from lichen.jobs.live import Live

    with Live("Training") as live:
        result = run(list(sources), steps=steps, batch=batch, names=variants, cache=cache, report=live.update)
    if as_json:
        console.write_json(result)
        return
    title = f"{result.steps} steps of {result.batch} crops"
    rows = console.table(title, ("", "validation loss", "s/step", "g_a + g_s MP/s", "parameters", ""))
    for case in result.cases:
        numbers = (f"{case.loss:.3f}", f"{case.seconds_per_step:.2f}", f"{case.speed:.2f}", f"{case.parameters:,}")
        rows.add_row(case.name, *numbers, case.note)
    console.stdout().print(rows)


def finishing(
    sources: Sources,
    codec: Start = defaults.CODEC,
    teacher: Annotated[str | None, typer.Option(help="A stronger codec, to distil.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each run, with 294,912 pixels a step.")] = 200,
    variants: Variants = None,
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Short trainings from a codec's weights, with one choice of the last part of a run changed in each."""
    from lab.finishing import run
    from lichen.jobs import console
    from lichen.jobs.live import Live

    with Live("Training") as live:
        result = run(
            list(sources), codec=codec, teacher=teacher, steps=steps, names=variants, cache=cache, report=live.update
        )
    if as_json:
        console.write_json(result)
        return
    title = f"{result.steps} steps from {result.codec}, validation loss {result.before:.3f}"
    columns = ("", "validation loss", "without averaging", "BD-rate", "s/step", "")
    rows = console.table(title, columns)
    for case in result.cases:
        losses = (f"{case.loss:.3f}", f"{case.last_loss:.3f}")
        numbers = (*losses, f"{case.bd_rate:+.2f} %", f"{case.seconds_per_step:.2f}")
        rows.add_row(case.name, *numbers, case.note)
    console.stdout().print(rows)


def systems(
    sources: Sources,
    out: Annotated[Path, typer.Option("--out", "-o", help="A folder for the runs; they go on from where they were.")],
    steps: Annotated[int, typer.Option(min=1, help="Steps of each run.")] = 1500,
    batch: Annotated[int, typer.Option(min=1, help="Crops of 128 pixels in a step.")] = 16,
    only: Annotated[
        list[str] | None, typer.Option("--system", help="Only this system; may be given repeatedly.")
    ] = None,
    ablations: Annotated[bool, typer.Option(help="Also train the systems with single parts changed.")] = False,
    cache: Cache = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Train the published systems under one budget, for `lichen evaluate --compare`."""
    from lab.systems import ABLATIONS, SYSTEMS, run
    from lichen.jobs.live import Live

    names = tuple(only or (SYSTEMS + (ABLATIONS if ablations else ())))
    with Live("Training") as live:
        codecs = run(
            list(sources),
            out,
            steps=steps,
            batch=batch,
            names=names,
            device=device,
            precision=precision,
            cache=cache,
            report=live.update,
        )
    typer.echo("lichen evaluate PICTURES --compare " + ",".join(map(str, codecs)))


def mixes(
    sources: Sources,
    codec: Start = defaults.EXACT_CODEC,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each run, with 4 crops of 256 pixels a step.")] = 200,
    pictures: Annotated[int, typer.Option(min=1, max=24, help="Held-out photographs to measure on.")] = 12,
    names: Annotated[list[str] | None, typer.Option("--mix", help="Only this mix; may be given repeatedly.")] = None,
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Short trainings from a codec's weights for different mixes of measures, compared with both AVIFs."""
    from lab.mixes import RIVALS, run
    from lichen.jobs import console
    from lichen.jobs.live import Live
    from lichen.jobs.measures import MEASURES

    with Live("Training") as live:
        cases = run(
            list(sources), codec=codec, steps=steps, pictures=pictures, names=names, cache=cache, report=live.update
        )
    if as_json:
        console.write_json(cases)
        return
    for rival in RIVALS:
        metrics = list(cases[0].bd_rate[rival])
        columns = [MEASURES[metric].name.removesuffix(" dB") for metric in metrics]
        rows = console.table(f"BD-rate of {codec} after {steps} steps, against {rival}", ("", *columns))
        for case in cases:
            found = (case.bd_rate[rival][metric] for metric in metrics)
            rows.add_row(case.name, *("-" if one is None else f"{one:+.1f} %" for one in found))
        console.stdout().print(rows)


COMMANDS = (ablation, finishing, systems, mixes)
