"""Rate-distortion curves as a PNG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

# Figure instead of pyplot: no global state and no display, so it works in threads and on servers.
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lichen.jobs.bdrate import Point, pareto_front
from lichen.jobs.evaluate import Curve, Evaluation, Metric

LABELS: dict[Metric, str] = {"psnr": "RGB PSNR (dB)", "ms_ssim": "MS-SSIM (dB)"}
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#7f6000", "#8c564b")
"""Distinguishable with any colour vision (Okabe and Ito), dark enough on white."""


def plot_rd(evaluation: Evaluation, path: str | Path) -> None:
    """Draw quality over rate: the evaluated codec in bold, what was measured beside it solid, anchors dashed.

    One panel for PSNR, and one for MS-SSIM when it was measured. The panels show the range of rates of the
    evaluated codec and a little more. Any file ending that matplotlib knows works; PNG is meant.
    """
    metrics: list[Metric] = ["psnr"]
    if evaluation.curve.front("ms_ssim"):
        metrics.append("ms_ssim")
    figure = Figure(figsize=(6.4 * len(metrics), 5.4), dpi=130, layout="constrained")
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        _panel(axes, evaluation, metric)
    count = f"{len(evaluation.images)} pictures, {evaluation.megapixels:.1f} megapixels"
    figure.suptitle(f"{evaluation.codec} on {count}", fontsize=11)
    figure.savefig(Path(path))


def _panel(axes: Axes, evaluation: Evaluation, metric: Metric) -> None:
    own = pareto_front(evaluation.curve.front(metric))
    others = [(curve, pareto_front(curve.front(metric))) for curve in evaluation.others]
    shown = [(curve, points) for curve, points in others if points]
    for index, (curve, points) in enumerate(shown):
        _line(axes, points, curve, PALETTE[index % len(PALETTE)], 3 if curve.measured else 2)
    axes.plot(
        *_columns(own), "o-", color="black", linewidth=2.4, markersize=4.5, label=evaluation.codec, zorder=4
    )
    if len(own) > 1:
        _limit(axes, own)
    axes.set_xlabel("bits per pixel")
    axes.set_ylabel(LABELS[metric])
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, loc="lower right", frameon=False)


def _line(axes: Axes, points: Sequence[Point], curve: Curve, colour: str, layer: int) -> None:
    style = "o-" if curve.measured else "--"
    width = 1.4 if curve.measured else 0.9
    axes.plot(
        *_columns(points), style, color=colour, linewidth=width, markersize=3, label=curve.name, zorder=layer
    )


def _limit(axes: Axes, own: Sequence[Point]) -> None:
    margin = 0.08 * (own[-1][1] - own[0][1])
    axes.set_xlim(0, own[-1][0] * 1.1)
    axes.set_ylim(math.floor(own[0][1] - margin), math.ceil(own[-1][1] + margin))


def _columns(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [rate for rate, _ in points], [quality for _, quality in points]
