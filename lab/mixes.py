"""What a codec should call distortion: short trainings from the same weights, told apart by measures that none learned.

Every run has the same budget and begins with the same weights; only the mix of measures in its distortion differs. Each
result is exported, and measured on the photographs held out by real bytes against AVIF, tuned for the eye and for
squared error. Butteraugli, where its program is installed, is the witness: no run aims at it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from lab.variants import Tell, chosen, told, train_to_the_end
from lichen import defaults
from lichen.jobs.evaluate import Curve, compare, load_pictures, measured_curve
from lichen.jobs.measures import Metric, available
from lichen.jobs.training.config import TrainConfig
from lichen.jobs.training.data import open_cache, write_held_out
from lichen.jobs.training.loop import Trainer
from lichen.models.blocks.network import Config
from lichen.models.codec import Codec, Pixels
from lichen.models.device import find_device
from lichen.models.perceptual.distortion import Mix
from lichen.models.registry import export, full_files, load_codec, load_files, network_from_files

QUALITIES = (10.0, 30.0, 50.0, 70.0, 90.0)
RIVALS = ("avif", "avif-psnr")
RATE = 4e-4
"""Learning rate that all begin with."""


class ByActivity(Mix):
    """Squared error, weighted less where a picture is busy and hides it (visual masking)."""

    FLOOR = 4.0
    """Variance, in squared grey levels, below which nothing is flatter."""

    @property
    def perceptual(self) -> bool:
        return True

    def distortion(self, decoded: Tensor, target: Tensor) -> Tensor:
        """As in ``Mix``; the weights of a picture's pixels, from the variance of 8x8 around each, have a mean of 1."""
        grey = 255 * target.mean(dim=1, keepdim=True)
        mean, square = (
            F.avg_pool2d(plane, 9, stride=1, padding=4, count_include_pad=False) for plane in (grey, grey**2)
        )
        weight = ((square - mean**2).clamp(min=0) + self.FLOOR) ** -0.5
        weight = weight / weight.mean(dim=(2, 3), keepdim=True)
        return 255**2 * (weight * (decoded - target).square()).mean(dim=(1, 2, 3))


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One mix of measures."""

    name: str
    mix: Mix


CHOICES = (
    Choice(name="squared-error", mix=Mix()),
    Choice(name="ms-ssim-0.3", mix=Mix(ms_ssim=0.3)),
    Choice(name="ms-ssim-0.5", mix=Mix(ms_ssim=0.5)),
    Choice(name="ms-ssim-0.7", mix=Mix(ms_ssim=0.7)),
    Choice(name="ssimulacra2-0.5", mix=Mix(ssimulacra2=0.5)),
    Choice(name="both", mix=Mix(ms_ssim=0.45, ssimulacra2=0.2)),
    Choice(name="activity", mix=ByActivity()),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MixCase:
    """BD-rates in per cent by rival and measure (negative: fewer bytes), None where curves do not overlap."""

    name: str
    bd_rate: dict[str, dict[Metric, float | None]]


def run(
    sources: Sequence[str | Path],
    *,
    codec: str = defaults.EXACT_CODEC,
    steps: int = 200,
    pictures: int = 12,
    names: Sequence[str] | None = None,
    cache: str | Path | None = None,
    held: int = 24,
    report: Tell | None = None,
) -> list[MixCase]:
    """Go on with a codec's weights for ``steps`` steps of 4 crops of 256 pixels, under every mix or those of ``names``.

    The first case is the codec as it is. ``pictures`` of the ``held`` ones are measured. Raises ``UsageError`` and
    ``TrainingError``.
    """
    choices = chosen(CHOICES, names)
    network = network_from_files(full_files(codec))
    with TemporaryDirectory(prefix="lichen-") as scratch:
        crops = open_cache([Path(s) for s in sources], Path(scratch) / "cache" if cache is None else Path(cache))
        files = write_held_out(crops, held, Path(scratch) / "held")[:: max(1, held // pictures)][:pictures]
        images = [load_pictures(path)[path.name] for path in files]
        metrics = available()
        rivals = [measured_curve(load_codec(name), images, metrics=metrics) for name in RIVALS]
        cases = [_case("before", load_codec(codec), images, rivals, metrics)]
        for choice, tell in zip(choices, told([one.name for one in choices], report), strict=True):
            config = TrainConfig(
                steps=steps, batch=4, crop=256, large_part=0.0, rate=RATE, final_rate=1e-5, warmup=max(1, steps // 10),
                ema=0.99, validation=held,
            )  # fmt: skip
            trainer = Trainer(cast(Config, network.config), config, crops, Path(scratch) / choice.name)
            trainer.mix = choice.mix
            trainer.adopt(network)
            train_to_the_end(trainer, tell)
            trainer.network.load_state_dict(trainer.average)
            trained = load_files(export(trainer.network, "mix", {}), find_device("cpu", "float32"))
            cases.append(_case(choice.name, trained, images, rivals, metrics))
    return cases


def _case(
    name: str, codec: Codec, images: Sequence[Pixels], rivals: Sequence[Curve], metrics: Sequence[Metric]
) -> MixCase:
    own = measured_curve(codec, images, QUALITIES, metrics=metrics)
    return MixCase(
        name=name,
        bd_rate={rival.name: {metric: compare(own, rival, metric).percent for metric in metrics} for rival in rivals},
    )
