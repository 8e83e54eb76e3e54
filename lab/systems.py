"""The published systems under one budget: each is trained from the same data on the same number of pixels.

The small networks of the common frame, all with continuous quality over the same range of lambda, and CompressAI's
``mbt2018-mean`` with gains for the same range. Runs go one after the other and are resumed where they were;
``lichen evaluate --compare`` measures what they leave.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from lab.variants import Tell, check_names, told
from lichen.jobs.training.config import TrainConfig
from lichen.jobs.training.run import train
from lichen.models.blocks.network import Config
from lichen.models.decoupled.network import NetworkConfig
from lichen.models.registry import config_of

SYSTEMS = ("s2c-identity", "s2c-conv", "s2c-attention", "s2c-hybrid", "tcm", "cwam", "hscatb", "mbt2018-mean")
ABLATIONS = (
    "hscatb:no-low", "hscatb:no-channel", "hscatb:squeeze", "hscatb:no-mixed",
    "s2c-identity:mlp", "s2c-conv:gated-conv",
)  # fmt: skip
"""One part changed of what is among ``SYSTEMS``."""


def config(name: str) -> Config:
    """The architecture of a name in ``SYSTEMS`` or ``ABLATIONS``."""
    if name != "mbt2018-mean":
        return config_of(name)
    frame = NetworkConfig()
    rates = {"weight": frame.lambda_min, "weight_max": frame.lambda_max, "anchors": frame.anchors}
    return config_of("compressai/mbt2018-mean", linear=True, **rates)


def file_name(name: str) -> str:
    """The name of a system's codec, folder and files."""
    return name.translate(str.maketrans(":,", "--"))


def run(
    sources: Sequence[str | Path],
    folder: str | Path,
    *,
    steps: int = 1500,
    batch: int = 16,
    names: Sequence[str] = SYSTEMS,
    device: str = "auto",
    precision: str = "auto",
    cache: str | Path | None = None,
    held: int = 24,
    report: Tell | None = None,
    stop: Callable[[], bool] | None = None,
) -> list[Path]:
    """Train every system that is not finished; returns the codec JSONs of those that are.

    ``held`` pictures are kept for validation. ``stop`` is asked after each step. Raises ``UsageError`` and
    ``TrainingError``.
    """
    check_names((*SYSTEMS, *ABLATIONS), names)
    folder = Path(folder)
    every = max(1, steps // 3)
    budget = TrainConfig(steps=steps, batch=batch, large_part=0.0, validation=held, validate_every=every)
    finished = []
    for name, tell in zip(names, told(names, report), strict=True):
        stem = file_name(name)
        codec = folder / stem / f"{stem}.json"
        if not codec.exists():
            result = train(
                sources,
                folder / stem,
                budget,
                model=config(name),
                name=stem,
                device=device,
                precision=precision,
                cache=cache or folder / "cache",
                report=lambda progress, _, tell=tell: tell(progress.progress),  # type: ignore[misc]
                stop=stop,
            )
            if result.codec is None:
                break
        finished.append(codec)
    return finished
