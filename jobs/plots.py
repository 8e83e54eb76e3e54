"""Rate-distortion curves as a PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

# Figure instead of pyplot: no global state and no display, so it works in threads and on servers.
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lichen.jobs.bdrate import Point, pareto_front
from lichen.jobs.evaluate import Curve, Evaluation
from lichen.jobs.measures import MEASURES, Metric

PALETTE = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#7f6000",
    "#8c564b",
    "#d55e00",
    "#7f7f7f",
    "#6a3d9a",
)
"""One colour a curve, distinguishable and dark enough on white (the first ones by Okabe and Ito)."""

LANDMARKS = ("AVIF iq (speed 6, 4:4:4)", "bmshj2018-hyperprior", "mbt2018-mean", "VTM 9.1", "TCM-L", "HPCM-L")
"""The shipped anchors that are drawn; all of them together would hide each other."""


def plot_rd(evaluation: Evaluation, path: str | Path) -> None:
    """Draw quality over rate: the evaluated codec in bold, what was measured beside it solid, anchors dashed.

    One panel for each measure that was taken. The panels show the range of rates of the evaluated codec and a little
    more. Any file ending that matplotlib knows works; PNG is meant.
    """
    metrics = [metric for metric in MEASURES if evaluation.curve.front(metric)]
    columns = min(len(metrics), 2)
    rows = -(-len(metrics) // columns)
    figure = Figure(figsize=(6.0 * columns + 2, 5.4 * rows), dpi=130, layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for empty in panels[len(metrics) :]:
        empty.remove()
    panels = panels[: len(metrics)]
    drawn = _drawn(evaluation)
    for axes, metric in zip(panels, metrics, strict=True):
        _panel(axes, evaluation, drawn, metric)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    count = f"{len(evaluation.images)} pictures, {evaluation.megapixels:.1f} megapixels"
    figure.suptitle(f"{evaluation.codec} on {count}", fontsize=11)
    figure.savefig(Path(path))


def plot_curves_of(curves: Sequence[Curve], title: str, path: str | Path) -> None:
    """Draw PSNR over rate of several codecs that were measured side by side."""
    figure = Figure(figsize=(8, 5.4), dpi=130, layout="constrained")
    axes = figure.subplots()
    for number, curve in enumerate(curves):
        _line(axes, pareto_front(curve.front("psnr")), curve, PALETTE[number % len(PALETTE)])
    _label(axes, "psnr")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    figure.savefig(Path(path))


def _drawn(evaluation: Evaluation) -> list[Curve]:
    """What was measured, and as many anchors as there are colours left: the landmarks if it has them."""
    measured = [curve for curve in evaluation.others if curve.measured]
    anchors = [curve for curve in evaluation.others if not curve.measured]
    chosen = [curve for curve in anchors if curve.name in LANDMARKS] or anchors
    return (measured + chosen)[: len(PALETTE)]


def _panel(axes: Axes, evaluation: Evaluation, drawn: Sequence[Curve], metric: Metric) -> None:
    own = pareto_front(evaluation.curve.front(metric))
    axes.plot(*_columns(own), "o-", color="black", linewidth=2.4, ms=4.5, label=evaluation.codec, zorder=4)
    for curve, colour in zip(drawn, PALETTE, strict=False):
        points = pareto_front(curve.front(metric))
        if points:
            _line(axes, points, curve, colour)
    if len(own) > 1:
        _limit(axes, own)
    _label(axes, metric)


def _label(axes: Axes, metric: Metric) -> None:
    axes.set_xlabel("bits per pixel")
    axes.set_ylabel(MEASURES[metric].axis)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _line(axes: Axes, points: Sequence[Point], curve: Curve, colour: str) -> None:
    if curve.measured:
        axes.plot(*_columns(points), "o-", color=colour, linewidth=1.4, ms=3, label=curve.name, zorder=3)
    else:
        label = f"{curve.name} (anchor)"
        axes.plot(*_columns(points), "--", color=colour, linewidth=1.1, label=label, zorder=2)


def _limit(axes: Axes, own: Sequence[Point]) -> None:
    margin = 0.08 * (own[-1][1] - own[0][1])
    axes.set_xlim(0, own[-1][0] * 1.1)
    axes.set_ylim(math.floor(own[0][1] - margin), math.ceil(own[-1][1] + margin))


def _columns(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [rate for rate, _ in points], [quality for _, quality in points]
