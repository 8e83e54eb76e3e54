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
from lichen.jobs.training.config import TrainConfig


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(options.with_settings(train))


def train(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SRC...", help="Pictures: folders, tar files, URLs, all that `compress` takes."),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", "-o", parser=options.path, help="The run's folder; one with a checkpoint goes on from it."
        ),
    ],
    config: TrainConfig,
    architecture: Annotated[
        str | None, typer.Option(help="`lichen models architectures` lists them, with their switches.")
    ] = None,
    depth: Annotated[int | None, typer.Option(min=1, max=16, help="Blocks. Default: the architecture's.")] = None,
    name: Annotated[
        str | None,
        typer.Option(
            help="Name of the codec and of its two files. Default: that of the architecture, or of --from-codec."
        ),
    ] = None,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Write the held-out pictures into RUN/validation, for `lichen evaluate`.")
    ] = False,
    from_codec: Annotated[
        str | None,
        typer.Option(
            metavar="CODEC",
            help="Begin with these weights: a name, or the .json of a codec. More --depth adds blocks to them.",
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(parser=options.path, help="Folder for the decoded pictures. Default: inside the run's folder."),
    ] = None,
    source_options: options.SourceStorageOption = None,
    device: options.DeviceOption = defaults.DEVICE,
    precision: Annotated[
        str, typer.Option(help="What the network trains in: auto, float32 or bfloat16 (autocast).")
    ] = defaults.PRECISION,
    as_json: options.JsonOption = False,
) -> None:
    """Train a codec, and export it as two files that --codec takes.

    The same command goes on with a run that was interrupted. The folder holds the checkpoint, the best weights,
    steps.csv, validation.csv and curves.png.
    """
    if config.minutes is None and config.steps is None:
        raise UsageError("say how long to train: --minutes or --steps")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is not a folder")
    store_options = options.storage_options(source_options)

    import time
    from collections.abc import Mapping

    from lichen.jobs import console
    from lichen.jobs.display import duration, shown
    from lichen.jobs.live import Live
    from lichen.jobs.training.loop import TrainProgress
    from lichen.jobs.training.run import train as run
    from lichen.models.registry import config_of

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
            sources,
            out,
            config,
            model=model,
            name=name or _name(architecture, from_codec),
            device=device,
            precision=precision,
            cache=cache,
            start=from_codec,
            held_out=held_out,
            options=store_options,
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
