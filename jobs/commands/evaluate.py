"""``lichen evaluate``: rate-distortion curves of a codec on a folder of pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lichen import defaults
from lichen.errors import UsageError
from lichen.jobs import options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lichen.jobs.evaluate import Comparison, Curve, Evaluation
    from lichen.jobs.measures import Metric
    from lichen.models.codec import Codec, Pixels


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(evaluate)


def evaluate(
    images: Annotated[
        str, typer.Argument(help="Pictures: what `compress` takes, any fsspec URL; the Kodak set for example.")
    ],
    codec: Annotated[str, typer.Option(help="The codec to evaluate (`lichen models`).")] = defaults.CODEC,
    quality: Annotated[
        str | None,
        typer.Option(help="Qualities 1 to 100, separated by commas; by default 10 to 90 in eight steps."),
    ] = None,
    effort: Annotated[
        int,
        typer.Option(
            "--effort",
            "-e",
            min=defaults.EFFORTS[0],
            max=defaults.EFFORTS[1],
            help="Effort of that codec; the others run at the default.",
        ),
    ] = defaults.EFFORT,
    against: Annotated[
        str, typer.Option(help="Codecs to measure on the same pictures, separated by commas; or none.")
    ] = "jpeg,jpegli,webp,avif,avif-psnr,jxl",
    anchors: Annotated[
        str,
        typer.Option(
            help="Points from elsewhere to compare with: auto (the shipped ones, if the pictures are the 24 "
            "Kodak images), none, or a JSON file."
        ),
    ] = "auto",
    compare: Annotated[
        str | None, typer.Option(help="Learned codecs, separated by commas, to put into one table instead.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="Which of them BD-rates are against. Default: the last.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(parser=options.path, help="Draw the curves into this PNG.")] = None,
    save: Annotated[
        Path | None, typer.Option(parser=options.path, help="Write the result as JSON into this file.")
    ] = None,
    measures: Annotated[
        str, typer.Option(help="psnr, ms_ssim, ssimulacra2, butteraugli, separated by commas; or all that are here.")
    ] = "all",
    note: Annotated[
        Path | None,
        typer.Option(
            parser=options.path,
            metavar="JSON",
            help="Also write the result into this codec's JSON, for `lichen models show`.",
        ),
    ] = None,
    device: options.DeviceOption = defaults.DEVICE,
    precision: options.PrecisionOption = defaults.PRECISION,
    source_options: options.SourceStorageOption = None,
    as_json: options.JsonOption = False,
) -> None:
    """Measure rate, quality and speed of a codec on real bytes, and its BD-rates against others."""
    qualities = _numbers(quality) if quality is not None else None
    metrics = _metrics(measures)

    from lichen.jobs import console
    from lichen.jobs import evaluate as evaluation
    from lichen.models.registry import load_codec

    pictures = evaluation.load_pictures(images, options=options.storage_options(source_options))
    if compare is not None:
        if effort != defaults.EFFORT or codec != defaults.CODEC or anchors != "auto":
            raise UsageError("--compare takes no --codec, --effort and --anchors")
        stems = [Path(name).stem for name in _names(compare)]
        labels = [name if stems.count(stem) > 1 else stem for name, stem in zip(_names(compare), stems, strict=True)]
        codecs = {
            label: load_codec(name, device=device, precision=precision)
            for label, name in zip(labels, _names(compare), strict=True)
        }
        _compare(codecs, pictures, reference or list(codecs)[-1], qualities, plot, save, as_json=as_json)
        return
    tested = load_codec(codec, device=device, precision=precision)
    others = [load_codec(name, device=device) for name in _names(against) if name != codec]
    curves: list[Curve] = []
    if anchors not in ("auto", "none"):
        curves = evaluation.read_anchors(anchors)
    elif anchors == "auto" and evaluation.is_kodak(pictures):
        curves = evaluation.read_anchors()

    if note is not None:
        from lichen.jobs.notes import card_to_note, write_note

        card_to_note(note, tested.digest)
    steps = len(qualities or evaluation.default_qualities(codec))
    steps += sum(len(evaluation.default_qualities(other.name)) for other in others)
    with console.progress("Evaluating", steps * len(pictures)) as advance:
        result = evaluation.evaluate(
            tested,
            pictures,
            qualities=qualities,
            effort=effort,
            against=others,
            metrics=metrics,
            anchors=curves,
            progress=advance,
        )
    if plot is not None:
        from lichen.jobs.plots import plot_rd

        plot_rd(result, plot)
    if save is not None:
        save.write_text(console.json_text(result), encoding="utf-8")
    if note is not None:
        write_note(note, result)
    if as_json:
        console.write_json(result)
    else:
        _show(result)


def _compare(
    codecs: dict[str, Codec],
    pictures: Mapping[str, Pixels],
    reference: str,
    qualities: list[float] | None,
    plot: Path | None,
    save: Path | None,
    *,
    as_json: bool,
) -> None:
    from lichen.jobs import console
    from lichen.jobs.compare import compare_codecs
    from lichen.jobs.evaluate import QUALITIES

    with console.progress("Comparing", len(qualities or QUALITIES) * len(pictures) * len(codecs)) as advance:
        rows = compare_codecs(
            codecs, list(pictures.values()), reference, qualities=qualities or QUALITIES, progress=advance
        )
    if plot is not None:
        from lichen.jobs.plots import plot_curves_of

        plot_curves_of([row.curve for row in rows], f"{len(pictures)} pictures", plot)
    if save is not None:
        save.write_text(console.json_text(rows), encoding="utf-8")
    if as_json:
        console.write_json(rows)
        return
    columns = ("", f"BD-rate against {reference}", "parameters", "kMAC/pixel", "encode MP/s", "decode MP/s")
    table = console.table(f"{len(pictures)} pictures", columns)
    for row in rows:
        percent = row.against.percent if row.against is not None else None
        table.add_row(
            row.name,
            _or_dash(percent, "{:+.1f} %"),
            f"{row.parameters:,}",
            f"{row.mac_per_pixel / 1e3:,.1f}",
            f"{row.encode_mp_per_s:.2f}",
            f"{row.decode_mp_per_s:.2f}",
        )
    console.stdout().print(table)


def _show(result: Evaluation) -> None:
    from lichen.jobs import console
    from lichen.jobs.measures import MEASURES

    out = console.stdout()
    points = console.table(
        f"{result.codec} on {len(result.images)} pictures, {result.megapixels:.2f} megapixels",
        ("quality", "bpp", *(measure.name for measure in MEASURES.values()), "encode MP/s", "decode MP/s"),
    )
    for point in result.curve.points:
        points.add_row(
            f"{point.quality:g}",
            f"{point.bpp:.4f}",
            *(_or_dash(getattr(point, metric), measure.pattern) for metric, measure in MEASURES.items()),
            _or_dash(point.encode_mp_per_s, "{:.2f}"),
            _or_dash(point.decode_mp_per_s, "{:.2f}"),
        )
    out.print(points)
    if not result.others:
        return
    rates = console.table(
        "BD-rate (negative: fewer bits than the other at equal quality)",
        ("against", *(measure.name.removesuffix(" dB") for measure in MEASURES.values()), "interval dB"),
    )
    by_name = {(one.anchor, one.metric): one for one in result.comparisons}
    for curve in result.others:
        own = by_name[curve.name, "psnr"]
        rates.add_row(
            curve.name,
            *(_percent(by_name, curve.name, metric) for metric in MEASURES),
            "-" if own.low is None or own.high is None else f"{own.low:.1f} to {own.high:.1f}",
        )
    out.print(rates)
    for curve in result.others:
        if curve.measured:
            out.print(f"{curve.name}: {curve.source}", markup=False)
    for one in result.comparisons:
        if one.reason is not None:
            out.print(f"{one.anchor}, {one.metric}: {one.reason}")


def _percent(comparisons: dict[tuple[str, Metric], Comparison], anchor: str, metric: Metric) -> str:
    found = comparisons.get((anchor, metric))
    return _or_dash(found.percent if found else None, "{:+.1f} %")


def _or_dash(value: float | None, pattern: str) -> str:
    return "-" if value is None else pattern.format(value)


def _metrics(text: str) -> tuple[Metric, ...]:
    from lichen.jobs.measures import BUTTERAUGLI, MEASURES, available

    if text == "all":
        return available()
    names = _names(text)
    if unknown := sorted(set(names) - set(MEASURES)):
        raise UsageError(f"there is no measure {', '.join(unknown)}; there are {', '.join(MEASURES)}")
    if missing := set(names) - set(available()):
        raise UsageError(f"{', '.join(missing)} takes the program {BUTTERAUGLI} of libjxl (Debian: libjxl-devtools)")
    return tuple(metric for metric in MEASURES if metric in names)


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    return [] if names == ["none"] else names


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"qualities are numbers separated by commas, not {text!r}") from error
