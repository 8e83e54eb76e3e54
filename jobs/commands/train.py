"""``lichen train``: a codec of one's own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from lichen import defaults
from lichen.errors import UsageError
from lichen.jobs import options
from lichen.models.perceptual.distortion import Mix


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(train)


def train(
    sources: Annotated[list[Path], typer.Argument(metavar="SRC...", help="Tar files, folders or pictures.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The run's folder; one with a checkpoint goes on from it.")],
    architecture: Annotated[
        str | None, typer.Option(help="`lichen models architectures` lists them, with their switches.")
    ] = None,
    depth: Annotated[int | None, typer.Option(min=1, max=16, help="Blocks. Default: the architecture's.")] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Of the codec, and of its two files in the folder. Default: the architecture's, or --from-codec's."
        ),
    ] = None,
    minutes: Annotated[float | None, typer.Option(min=0, help="Budget in minutes of training.")] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Budget in steps; the budget used up first counts.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Crops in a step.")] = 16,
    crop: Annotated[int, typer.Option(min=64, help="Their side in pixels, a multiple of 64.")] = 128,
    large_crop: Annotated[int, typer.Option(min=64, help="The same for the last part of the budget.")] = 256,
    large_part: Annotated[
        float | None, typer.Option(min=0, max=1, help="That part. Default: the configuration's.")
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0, help="Learning rate. Default: the configuration's.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, crops and qualities.")] = 1,
    validation: Annotated[int, typer.Option(min=1, help="Pictures held out.")] = 24,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Write those into RUN/validation, for `lichen evaluate`.")
    ] = False,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between two validations.")] = 500,
    checkpoint_every: Annotated[int, typer.Option(min=1, help="Steps between two checkpoints.")] = 100,
    lanes: Annotated[
        int, typer.Option(min=1, help="Threads that share the crops of a step: on a CPU as many as cores are fastest.")
    ] = 1,
    ms_ssim: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of MS-SSIM in the distortion; the rest is squared error."),
    ] = 0.0,
    ssimulacra2: Annotated[float, typer.Option(min=0, max=1, help="The same for SSIMULACRA2.")] = 0.0,
    context_crops: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Crops that the context of the hyper-latent is fitted to at the end. Default: 1000, or fewer.",
        ),
    ] = None,
    from_codec: Annotated[
        str | None,
        typer.Option(
            metavar="CODEC",
            help="Begin with these weights: a name, or the .json of a codec. More --depth adds blocks to them.",
        ),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for the decoded pictures. Default: inside the run's folder.")
    ] = None,
    device: options.DeviceOption = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16 (autocast).")] = "auto",
    as_json: options.JsonOption = False,
) -> None:
    """Train a codec, and export it as two files that --codec takes.

    The same command goes on with a run that was interrupted. The folder holds the checkpoint, the best weights,
    steps.csv, validation.csv and curves.png.
    """
    if minutes is None and steps is None:
        raise UsageError("say how long to train: --minutes or --steps")
    for side in (crop, large_crop):
        if side % 64:
            raise UsageError(f"the side of a crop is a multiple of 64, not {side}")
    Mix(ms_ssim=ms_ssim, ssimulacra2=ssimulacra2)  # its own checks
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is not a folder")
    for source in sources:
        if not source.exists():
            raise UsageError(f"there is nothing at {source}")

    import time
    from collections.abc import Mapping
    from dataclasses import replace

    from lichen.jobs import console
    from lichen.jobs.display import duration, shown
    from lichen.jobs.live import Live
    from lichen.jobs.training.config import TrainConfig
    from lichen.jobs.training.loop import TrainProgress
    from lichen.jobs.training.run import train as run
    from lichen.models.architectures import config_of

    config = TrainConfig(
        steps=steps,
        minutes=minutes,
        batch=batch,
        crop=crop,
        large_crop=large_crop,
        seed=seed,
        validation=validation,
        validate_every=validate_every,
        checkpoint_every=checkpoint_every,
        lanes=lanes,
        ms_ssim=ms_ssim,
        ssimulacra2=ssimulacra2,
        context_crops=context_crops,
    )
    if rate is not None:
        config = replace(config, rate=rate)
    if large_part is not None:
        config = replace(config, large_part=large_part)
    sizes = {} if depth is None else {"depth": depth}
    model = None if architecture is None and not sizes else config_of(architecture or defaults.CODEC, **sizes)
    first: list[tuple[float, float]] = []
    validated = ""

    def show(progress: TrainProgress, result: Mapping[str, float] | None) -> None:
        nonlocal validated
        share = config.progress(progress.step, progress.minutes)
        if not first:
            first.append((time.monotonic(), share))
        began, from_share = first[0]
        eta = (time.monotonic() - began) * (1 - share) / (share - from_share) if share > from_share else None
        if result is not None:
            validated = f", validation {result['loss']:.3f}"
        said = f"step {progress.step:,}, loss {progress.loss:.2f}, {progress.bpp:.3f} bpp, {progress.psnr:.2f} dB"
        live.update(share, said + validated, eta)

    with Live("Training") as live, _asked_to_stop() as stop:
        result = run(
            list(sources),
            out,
            config,
            model=model,
            name=name or _name(architecture, from_codec),
            device=device,
            precision=precision,
            cache=cache,
            start=from_codec,
            held_out=held_out,
            report=show,
            stop=stop.is_set,
        )
    if as_json:
        console.write_json(result)
    else:
        went_on = f", from {result.resumed_from:,} on" if result.resumed_from else ""
        typer.echo(f"{result.steps:,} steps{went_on}, {duration(60 * result.minutes)}, {result.pictures:,} pictures")
        if result.curves is not None:
            typer.echo(f"curves: {shown(str(result.curves))}")
        if result.codec is not None:
            typer.echo(f"codec: {shown(str(result.codec))} (validation loss {result.validation_loss:.4f})")
    if result.codec is None:
        typer.echo("lichen: stopped; the same command goes on from here", err=True)
        raise typer.Exit(1)


def _name(architecture: str | None, from_codec: str | None) -> str:
    """What a codec is called that is given no name: after its architecture, or after the one whose weights it had."""
    if architecture is None and from_codec is not None:
        return Path(from_codec).name.removesuffix(".json")
    return (architecture or defaults.CODEC).translate(str.maketrans(":,/", "---"))


@contextmanager
def _asked_to_stop() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM end the run between two steps, with a checkpoint; a second Ctrl-C ends it at once."""
    event = threading.Event()

    def ask(number: int, _frame: object) -> None:
        if event.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        event.set()

    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
