"""``lichen bench``: measurements of speed on this machine.

Each benchmark is a module of ``lichen.jobs.bench`` whose ``run()`` returns a dataclass of results.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lichen import defaults
from lichen.errors import VerificationFailed
from lichen.jobs import options
from lichen.jobs.bench import trainings
from lichen.jobs.bench.mixed_command import mixed


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(no_args_is_help=True, help="Measure speed on this machine.")
    group.command()(entropy)
    group.command()(compressai)
    group.command()(pipeline)
    group.command()(rate)
    group.command()(effort)
    group.command()(mixed)
    for command in trainings.COMMANDS:
        group.command()(command)
    group.command()(portability)
    group.command()(snapping)
    group.command()(seen)
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


def compressai(
    source: Annotated[str, typer.Argument(help="A local folder of pictures.")],
    codec: Annotated[str, typer.Option(help="A learned codec.")] = defaults.CODEC,
    quality: Annotated[float, typer.Option("--quality", "-q", help="Of that codec.")] = 40.0,
    device: options.DeviceOption = defaults.DEVICE,
    precision: Annotated[str, typer.Option(help="Of that codec; the other network runs in float32.")] = "auto",
    repeats: Annotated[int, typer.Option(min=1, help="Runs; the best counts.")] = 3,
    weights: Annotated[
        str | None, typer.Option(help="The .json of a trained compressai/mbt2018-mean. Default: untrained, rescaled.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """CompressAI's mbt2018-mean by its own calls, with lichen's entropy coder, and a codec of lichen's."""
    from lichen.jobs import console
    from lichen.jobs.bench.compressai import run

    result = run(
        source, codec=codec, quality=quality, device=device, precision=precision, repeats=repeats, weights=weights
    )
    if as_json:
        console.write_json(result)
        return
    title = f"{result.pictures} pictures, {result.megapixels:.1f} MP, {result.cores} cores, best of {result.repeats}"
    columns = ("MP/s", "lanes x threads", "encode", "ratio", "batch", "decode", "ratio", "batch", "bpp")
    rows = console.table(title, columns)
    for speed in result.speeds:
        rows.add_row(
            speed.name,
            f"{speed.lanes} x {speed.threads}",
            f"{speed.encode:.2f}",
            f"{speed.encode_ratio:.2f}",
            str(speed.encode_batch),
            f"{speed.decode:.2f}",
            f"{speed.decode_ratio:.2f}",
            str(speed.decode_batch),
            f"{speed.bpp:.3f}",
        )
    console.stdout().print(rows)
    console.stdout().print(
        f"Network: {result.network}; float32 on {result.device}. {result.codec}: quality {result.quality:g}, "
        f"{result.precision}. Ratios are to CompressAI's own calls, one batch at a time. For the same symbols lichen's "
        f"coder writes {result.rate_excess:+.3%} bytes. Every symbol came back as it was encoded."
    )


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


def rate(
    source: Annotated[str, typer.Argument(help="A local folder of pictures.")],
    codec: Annotated[str, typer.Option(help="A learned codec.")] = defaults.CODEC,
    weights: Annotated[
        Path | None, typer.Option(help="The best.pt of its training run; by default the codec's own weights.")
    ] = None,
    qualities: Annotated[list[float] | None, typer.Option("--quality", "-q", help="May be given repeatedly.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """What integers, tables and the container cost: real sizes beside the ideal lengths under the float model."""
    from lichen.jobs import console
    from lichen.jobs.bench.rate import run

    result = run(source, codec=codec, weights=weights, qualities=tuple(qualities or (20.0, 50.0, 80.0)))
    if as_json:
        console.write_json(result)
        return
    rows = console.table(
        f"{result.pictures} pictures, float model: {result.model}", ("quality", "real bpp", "ideal bpp", "more", "z")
    )
    for case in result.cases:
        share = f"{case.hyper_share:.1%}"
        rows.add_row(f"{case.quality:g}", f"{case.real:.4f}", f"{case.ideal:.4f}", f"{case.excess:+.2%}", share)
    console.stdout().print(rows)


def effort(
    source: Annotated[Path, typer.Argument(help="A local folder of pictures.")],
    codec: Annotated[str, typer.Option(help="Any codec.")] = defaults.CODEC,
    efforts: Annotated[list[int] | None, typer.Option("--effort", "-e", help="May be given repeatedly.")] = None,
    qualities: Annotated[list[float] | None, typer.Option("--quality", "-q", help="May be given repeatedly.")] = None,
    device: options.DeviceOption = defaults.DEVICE,
    precision: options.PrecisionOption = defaults.PRECISION,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """What effort buys: BD-rate against the default effort, and speed, level by level."""
    from lichen.jobs import console
    from lichen.jobs.bench.effort import run
    from lichen.jobs.evaluate import default_qualities, load_pictures
    from lichen.models.zoo import load_codec

    pictures = list(load_pictures(source).values())
    levels = efforts or [1, 3, 4, 5, 6, 7]
    steps = len({defaults.EFFORT, *levels}) * len(qualities or default_qualities(codec))
    with console.progress("Measuring", steps * len(pictures)) as advance:
        result = run(
            load_codec(codec, device=device, precision=precision),
            pictures,
            levels,
            qualities=qualities,
            progress=advance,
        )
    if as_json:
        console.write_json(result)
        return
    rows = console.table(f"{codec}, {len(pictures)} pictures", ("effort", "BD-rate", "encode MP/s", "decode MP/s"))
    for level in result:
        percent = None if level.against is None else level.against.percent
        gained = "" if level.against is None else "not comparable" if percent is None else f"{percent:+.1f} %"
        rows.add_row(str(level.effort), gained, _number(level.encode_mp_per_s), _number(level.decode_mp_per_s))
    console.stdout().print(rows)


def portability(
    pictures: Annotated[list[Path], typer.Argument(help="Picture files, or folders of them.")],
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


def snapping(
    picture: Annotated[Path, typer.Argument(help="A picture.")],
    codecs: Annotated[
        list[str] | None, typer.Option("--codec", help="A codec .json, or an architecture. Default: all architectures.")
    ] = None,
    side: Annotated[int, typer.Option(min=64, help="Its middle is cut to this many pixels a side.")] = 256,
    repeats: Annotated[int, typer.Option(min=1, help="Runs; the best counts.")] = 3,
    device: options.DeviceOption = defaults.DEVICE,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """What portability costs the published codecs: time for float64, bytes for doubtful integers."""
    import numpy as np

    from lichen.jobs import console
    from lichen.jobs.bench.snapping import run
    from lichen.jobs.evaluate import load_pictures
    from lichen.models.published import SIZES

    (pixels,) = load_pictures(picture).values()
    top, left = (max(0, (length - side) // 2) for length in pixels.shape[:2])
    crop = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    names = codecs or list(SIZES)
    with console.progress("Measuring", len(names)) as advance:
        costs = run(names, crop, device=device, repeats=repeats, progress=advance)
    if as_json:
        console.write_json(costs)
        return
    columns = ("", "encode MP/s", "float64 adds", "decode MP/s", "float64 adds", "listed")
    rows = console.table(f"{crop.shape[1]}x{crop.shape[0]} pixels, best of {repeats}", columns)
    for cost in costs:
        name = cost.name if cost.trained else f"{cost.name} (untrained)"
        speeds = (f"{cost.encode:.4f}", f"{cost.encode_cost:+.0%}", f"{cost.decode:.4f}", f"{cost.decode_cost:+.0%}")
        rows.add_row(name, *speeds, f"{cost.listed:.3%}")
    console.stdout().print(rows)


def seen(
    pictures: Annotated[Path, typer.Argument(help="A folder of pictures.")],
    out: Annotated[Path, typer.Option(help="The PNG to draw.")],
    codec: Annotated[str, typer.Option(help="The codec to look at.")] = defaults.CODEC,
    against: Annotated[str, typer.Option(help="Codecs beside it, separated by commas.")] = "avif,jpeg",
    quality: Annotated[float, typer.Option("--quality", "-q", min=1, max=100, help="Of that codec.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores of all pictures as JSON.")] = False,
) -> None:
    """Draw pictures side by side at equal bytes: where the codec does worst, in the middle, and best."""
    from lichen.jobs import console
    from lichen.jobs.bench.seen import chosen, draw, run
    from lichen.jobs.evaluate import load_pictures
    from lichen.models.zoo import load_codec

    found = load_pictures(pictures)
    rivals = [load_codec(name.strip()) for name in against.split(",")]
    with console.progress("Comparing", len(found)) as advance:
        sights = run(load_codec(codec), rivals, found, quality=quality, progress=advance)
    draw(chosen(sights), out)
    if as_json:
        console.write_json(
            [
                {
                    "name": sight.name,
                    "lead": sight.lead,
                    "ssimulacra2": {one.codec: one.ssimulacra2 for one in sight.seen},
                }
                for sight in sights
            ]
        )
        return
    rows = console.table("SSIMULACRA 2 at equal bytes", ("", *(one.codec for one in sights[0].seen), "lead"))
    for sight in sights:
        rows.add_row(sight.name, *(f"{one.ssimulacra2:.1f}" for one in sight.seen), f"{sight.lead:+.1f}")
    console.stdout().print(rows)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
