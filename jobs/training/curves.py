"""Learning curves of a run, from the CSV files that it leaves."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lichen.errors import TrainingError

Table = dict[str, NDArray[np.float64]]
POINTS = 400
"""Most points of a curve; steps are averaged into them for drawing."""


def read_log(path: Path) -> Table:
    """The columns of a log; of a step that was logged twice, because the run was resumed, the last row counts."""
    rows: dict[float, dict[str, float]] = {}
    try:
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                values = {name: float(value) for name, value in row.items()}
                rows[values["step"]] = values
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TrainingError(f"{path} is no log of a training run: {error}") from error
    ordered = [rows[step] for step in sorted(rows)]
    return {name: np.array([row[name] for row in ordered]) for name in (ordered[0] if ordered else {})}


def truncate_log(path: Path, step: int) -> None:
    """Drop the rows after a step, which a run resumed from there will write again."""
    if not path.exists():
        return
    header, *rows = path.read_text(encoding="utf-8").splitlines()
    kept = [row for row in rows if row.partition(",")[0].isdecimal() and int(row.partition(",")[0]) <= step]
    temporary = path.with_suffix(".partial")
    temporary.write_text("".join(f"{row}\n" for row in (header, *kept)), encoding="utf-8")
    temporary.replace(path)


def plot_curves(folder: Path, target: Path) -> None:
    """Draw loss, rate and quality over the steps from ``steps.csv`` and ``validation.csv`` into a PNG."""
    from matplotlib.figure import Figure

    steps = read_log(folder / "steps.csv")
    if not steps:
        raise TrainingError(f"{folder} has no steps to draw")
    path = folder / "validation.csv"
    validation = read_log(path) if path.exists() else {}
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    loss, rate, quality = figure.subplots(1, 3)
    at, values = _averaged(steps["step"], steps["loss"])
    loss.plot(at, values, color="tab:blue", alpha=0.6, label="training (means)")
    settled = values[len(values) // 20 :]  # the first steps would flatten the rest
    if validation:
        settled = np.concatenate([settled, validation["loss"]])
    settled = settled[np.isfinite(settled)]
    if len(settled):
        margin = 0.05 * float(np.ptp(settled)) + 1e-9
        loss.set_ylim(float(settled.min()) - margin, float(settled.max()) + margin)
    if validation:
        loss.plot(
            validation["step"], validation["loss"], "o-", color="tab:red", ms=3, label="validation, averaged weights"
        )
        for name in validation:
            kind, _, value = name.partition("_")
            axes = {"bpp": rate, "psnr": quality}.get(kind)
            if axes is not None:
                axes.plot(validation["step"], validation[name], "o-", ms=3, label=f"quality {value}")
    else:
        for axes, name in ((rate, "bpp"), (quality, "psnr")):
            axes.plot(*_averaged(steps["step"], steps[name]), alpha=0.6, label="training (means)")
    for axes, title in ((loss, "loss"), (rate, "bits per pixel"), (quality, "PSNR in dB")):
        axes.set(xlabel="step", title=title)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(target, dpi=110)


def _averaged(
    steps: NDArray[np.float64], values: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Means over equal stretches, at most ``POINTS`` of them; steps without a finite value are left out."""
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    parts = min(POINTS, len(values))
    if not parts:
        return steps, values
    return (
        np.array([part.mean() for part in np.array_split(steps, parts)]),
        np.array([part.mean() for part in np.array_split(values, parts)]),
    )
