"""The experiments that measure codecs as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lab.commands.options import Device, Folder, Json, LearnedCodec, Precision, Qualities, Repeats
from lichen import defaults


def compressai(
    source: Folder,
    codec: LearnedCodec = defaults.CODEC,
    quality: Annotated[float, typer.Option("--quality", "-q", help="Quality of the learned codec.")] = 40.0,
    device: Device = "auto",
    precision: Precision = "auto",
    repeats: Repeats = 3,
    weights: Annotated[
        str | None, typer.Option(help="The .json of a trained compressai/mbt2018-mean. Default: untrained, rescaled.")
    ] = None,
    as_json: Json = False,
) -> None:
    """CompressAI's mbt2018-mean by its own calls, with lichen's entropy coder, and a codec of lichen's."""
    from lab.compressai import run
    from lichen.jobs import console

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


def rate(
    source: Folder,
    codec: LearnedCodec = defaults.CODEC,
    weights: Annotated[
        Path | None, typer.Option(help="The best.pt of the codec's training run; by default the codec's own weights.")
    ] = None,
    qualities: Qualities = None,
    as_json: Json = False,
) -> None:
    """What integers, tables and the container cost: real sizes beside the ideal lengths under the float model."""
    from lab.rate import run
    from lichen.jobs import console

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
    source: Folder,
    codec: Annotated[str, typer.Option(help="Any codec.")] = defaults.CODEC,
    efforts: Annotated[
        list[int] | None, typer.Option("--effort", "-e", help="An effort to measure; may be given repeatedly.")
    ] = None,
    qualities: Qualities = None,
    device: Device = "auto",
    precision: Precision = "auto",
    as_json: Json = False,
) -> None:
    """What effort buys: BD-rate against the default effort, and speed, level by level."""
    from lab.effort import run
    from lichen.jobs import console
    from lichen.jobs.evaluate import default_qualities, load_pictures
    from lichen.models.registry import load_codec

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


def snapping(
    picture: Annotated[Path, typer.Argument(help="A picture file.")],
    codecs: Annotated[
        list[str] | None, typer.Option("--codec", help="A codec .json, or an architecture. Default: all architectures.")
    ] = None,
    side: Annotated[
        int, typer.Option(min=64, help="Side in pixels of the square cut from the middle of the picture.")
    ] = 256,
    repeats: Repeats = 3,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """What portability costs the published codecs: time for float64, bytes for doubtful integers."""
    import numpy as np

    from lab.snapping import run
    from lichen.jobs import console
    from lichen.jobs.evaluate import load_pictures
    from lichen.models.snapped.scheme import SIZES

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
    pictures: Folder,
    out: Annotated[Path, typer.Option(help="The PNG to draw.")],
    codec: Annotated[str, typer.Option(help="The codec to look at.")] = defaults.CODEC,
    against: Annotated[str, typer.Option(help="Codecs to show beside it, separated by commas.")] = "avif,jpeg",
    quality: Annotated[
        float, typer.Option("--quality", "-q", min=1, max=100, help="Quality of that codec; the others get its bytes.")
    ] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the scores of all pictures as JSON.")] = False,
) -> None:
    """Draw pictures side by side at equal bytes: where the codec does worst, in the middle, and best."""
    from lab.seen import chosen, draw, run
    from lichen.jobs import console
    from lichen.jobs.evaluate import load_pictures
    from lichen.models.registry import load_codec

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


def mixed(
    source: Annotated[Path, typer.Argument(help="A local folder of photographs.")],
    quality: Annotated[
        float, typer.Option("--quality", "-q", help="Quality of the learned codec; the others match it.")
    ] = defaults.QUALITY,
    count: Annotated[int, typer.Option(min=1, help="Photographs to take.")] = 9,
    side: Annotated[
        int, typer.Option(min=64, help="Side in pixels of the square cut from the middle of each photograph.")
    ] = 512,
    seed: Annotated[int, typer.Option(help="Seed of the graphics.")] = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Graphics of each kind.")] = 1,
    as_json: Json = False,
) -> None:
    """What `--codec auto` is worth on photographs and graphics: bytes at equal quality, against hindsight."""
    from lab import graphics
    from lab.mixed import run, show
    from lichen.jobs import console
    from lichen.jobs.evaluate import load_pictures

    photographs = [graphics.middle(one, side) for one in list(load_pictures(source).values())[:count]]
    pictures = graphics.mixed(photographs, seed=seed, rounds=rounds)
    with console.progress("Measuring", len(pictures)) as advance:
        result = run(pictures, quality=quality, progress=advance)
    if as_json:
        console.write_json(result)
    else:
        console.stdout().print(*show(result))


def scale(
    rows: Annotated[int, typer.Option(min=1, help="Pictures in the archive that is made up.")] = 1_000_000,
    mixed: Annotated[
        bool, typer.Option(help="Give every shard keys from everywhere, as a list in no order does.")
    ] = False,
    folder: Annotated[
        Path | None, typer.Option(help="Where scratch files go. Default: the folder of temporary files.")
    ] = None,
    as_json: Json = False,
) -> None:
    """What archives of many pictures cost: snapshot, append, open, over made-up index parts."""
    from tempfile import TemporaryDirectory

    from lab.scale import measure
    from lichen.jobs import console

    with TemporaryDirectory(prefix="lichen-", dir=folder) as scratch:
        result = measure(Path(scratch), rows, mixed=mixed)
    if as_json:
        console.write_json(result)
        return
    table = console.table(f"{result.rows:,} pictures in {result.shards:,} shards", ("", "measured"))
    for name, value in console.flatten(console.jsonable(result)):
        table.add_row(name, str(value) if isinstance(value, bool) else _number(value))
    console.stdout().print(table)


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


COMMANDS = (compressai, rate, effort, snapping, seen, mixed, scale)
