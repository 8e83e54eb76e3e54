"""``lichen bench``: what a user measures on his own machine.

Each benchmark is a module of ``lichen.jobs.bench`` whose ``run()`` returns a dataclass of results. Experiments, which
answer questions about the codecs and not about a machine, are not here but in the laboratory of a checkout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lichen import defaults
from lichen.errors import VerificationFailed
from lichen.jobs import options


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(no_args_is_help=True, help="Measure this machine.")
    group.command()(entropy)
    group.command()(pipeline)
    group.command()(portability)
    app.add_typer(group, name="bench")


def entropy(
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Compare the entropy coder with CompressAI's on the same symbols, in one run."""
    from lichen.jobs import console
    from lichen.jobs.bench.entropy import run

    result = run()
    if as_json:
        console.write_json(result)
        return
    cases = [dict(console.flatten(console.jsonable(case))) for case in result.cases]
    rows = console.table(f"Entropy coder, best of {result.repeats}", ("", *(case.pop("name") for case in cases)))
    for measure in cases[0]:
        rows.add_row(measure, *(_number(case[measure]) for case in cases))
    console.stdout().print(rows)


def pipeline(
    source: Annotated[str, typer.Argument(help="A local folder of pictures.")],
    codec: Annotated[str, typer.Option(help="A learned codec.")] = defaults.CODEC,
    quality: Annotated[
        float, typer.Option("--quality", "-q", help="Quality of that codec, 1 to 100.")
    ] = defaults.QUALITY,
    executor: Annotated[str, typer.Option(help="local or ray.")] = "local",
    device: options.DeviceOption = defaults.DEVICE,
    precision: options.PrecisionOption = defaults.PRECISION,
    copies: Annotated[int, typer.Option(help="Take each picture so many times.")] = 1,
    repeats: Annotated[int, typer.Option(help="Runs; the best counts.")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Whole jobs (compress with full verification, decode) beside the bare networks on the same pictures."""
    from lichen.jobs import console
    from lichen.jobs.bench.pipeline import run

    result = run(
        source,
        codec=codec,
        quality=quality,
        executor=executor,
        device=device,
        precision=precision,
        copies=copies,
        repeats=repeats,
    )
    if as_json:
        console.write_json(result)
        return
    title = f"{result.pictures} pictures, {result.megapixels:.1f} MP, {result.cores} cores, {result.precision}"
    rows = console.table(title, ("MP/s", "compress", "decode"))
    rows.add_row("whole job", f"{result.compress:.2f}", f"{result.decode:.2f}")
    bare = result.bare
    rows.add_row("bare networks", f"{bare.compress:.2f}", f"{bare.decode:.2f}")
    rows.add_row("share", f"{result.compress_of_bare:.0%}", f"{result.decode_of_bare:.0%}")
    console.stdout().print(rows)
    console.stdout().print(
        f"Start-up {result.start_seconds:.1f} s. Networks at their best with {bare.lanes} lanes, "
        f"{bare.threads} threads each, batches of {bare.batch}."
    )


def portability(
    pictures: Annotated[
        list[Path], typer.Argument(parser=options.path, help="Picture files, or folders of them, on this machine.")
    ],
    codec: Annotated[str, typer.Option(help="A learned codec.")] = defaults.CODEC,
    quality: Annotated[float, typer.Option("--quality", "-q", help="Quality of that codec, 1 to 100.")] = 50.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Encode under each configuration of this machine, decode under every other, compare symbols and pixels."""
    from lichen.jobs import console
    from lichen.jobs.bench.portability import run

    suffixes = {".jpg", ".jpeg", ".png", ".webp"}
    files = [
        file
        for path in pictures
        for file in (sorted(path.iterdir()) if path.is_dir() else [path])
        if file.suffix.lower() in suffixes
    ]
    pairs = run(codec, files, quality=quality)
    if as_json:
        console.write_json(pairs)
    else:
        columns = ("encoder", "decoder", "symbols differ", "samples over 1 level apart", "PSNR change dB")
        rows = console.table(f"{len(files)} pictures, every pair of configurations", columns)
        for pair in pairs:
            differing = f"{pair.differing} of {pair.pictures}"
            rows.add_row(pair.encoder, pair.decoder, differing, f"{pair.apart:.2e}", f"{pair.psnr_change:.4f}")
        console.stdout().print(rows)
    if any(pair.differing for pair in pairs):
        raise typer.Exit(VerificationFailed.exit_code)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
