"""Configuration of a training run. Light: ``lichen --help`` reads this module."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lichen.errors import UsageError
from lichen.settings import check, described, setting

if TYPE_CHECKING:
    from lichen.models.perceptual.distortion import Mix


@described
@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """One run. The budget ends with whichever of ``steps`` and ``minutes`` is used up first.

    The learning rate warms up over ``warmup`` steps, then follows a cosine from ``rate`` to ``final_rate`` at the
    end of the budget. The last ``large_part`` of the budget trains on ``large_crop`` pixels with as many
    pixels a step. ``linear_rate`` scales the learning rate of the linear transform, ``head_rate`` that of the last
    layers of the networks around it, ``mean_rate`` that of the last layers of the means, ``scale_rate`` that of
    the scale network. ``lanes`` threads share the crops of a step (``lichen.jobs.training.gradients``): as many as
    there are cores are fastest on a CPU, one is repeatable. With ``relative`` the logarithm of each crop's loss counts:
    one per cent is worth as much in a smooth crop as in a rough one. ``ms_ssim`` and ``ssimulacra2`` are the shares of
    those measures in the distortion (``lichen.models.perceptual.distortion``). After the budget the context of the
    hyper-latent is fitted to ``context_crops`` crops of up to 512 pixels a side; None means a tenth of the pixels
    trained on, at most 1,000 such crops.

    Settings:
    """

    minutes: float | None = setting(None, "Budget in minutes of training.", at_least=0)
    steps: int | None = setting(None, "Budget in steps; the budget used up first counts.", at_least=0)
    batch: int = setting(16, "Crops in a step.", at_least=1)
    crop: int = setting(128, "Side of a crop in pixels, a multiple of 64.", at_least=64)
    large_crop: int = setting(256, "Side of the crops in the last part of the budget, a multiple of 64.", at_least=64)
    large_part: float = setting(0.1, "Last part of the budget, 0 to 1, that has large crops.", at_least=0, at_most=1)
    rate: float = setting(1e-3, "Learning rate.", at_least=0)
    final_rate: float = 1e-5
    linear_rate: float = 0.02
    head_rate: float = 0.1
    mean_rate: float = 0.3
    scale_rate: float = 0.6
    warmup: int = 100
    clip: float = 1.0
    ema: float = 0.999
    seed: int = setting(1, "Seed of weights, crops and qualities.")
    validation: int = setting(24, "Pictures held out.", at_least=1)
    validate_every: int = setting(500, "Steps between two validations.", at_least=1)
    checkpoint_every: int = setting(100, "Steps between two checkpoints.", at_least=1)
    lanes: int = setting(
        1, "Threads that share the crops of a step: on a CPU as many as cores are fastest.", at_least=1
    )
    relative: bool = False
    ms_ssim: float = setting(
        0.0, "Share of MS-SSIM in the distortion; the rest is squared error.", at_least=0, at_most=1
    )
    ssimulacra2: float = setting(0.0, "Share of SSIMULACRA 2 in the distortion.", at_least=0, at_most=1)
    context_crops: int | None = setting(
        None,
        "Crops that the context of the hyper-latent is fitted to at the end. Default: 1000, or fewer.",
        at_least=0,
    )

    def __post_init__(self) -> None:
        check(self)
        for side in (self.crop, self.large_crop):
            if side % 64:
                raise UsageError(f"the side of a crop is a multiple of 64, not {side}")
        _ = self.mix  # its own checks

    @property
    def mix(self) -> Mix:
        """What the codec is to call distortion."""
        from lichen.models.perceptual.distortion import Mix

        return Mix(ms_ssim=self.ms_ssim, ssimulacra2=self.ssimulacra2)

    def progress(self, step: int, minutes: float) -> float:
        """Part of the budget that is used up, 0 to 1."""
        parts = [0.0]
        if self.steps is not None:
            parts.append(step / self.steps if self.steps else 1.0)
        if self.minutes is not None:
            parts.append(minutes / self.minutes if self.minutes else 1.0)
        return min(1.0, max(parts))

    def learning_rate(self, step: int, progress: float) -> float:
        """Learning rate of one step, for the ordinary parameters."""
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return (self.final_rate + (self.rate - self.final_rate) * cosine) * min(1.0, (step + 1) / self.warmup)

    def crops(self, progress: float) -> tuple[int, int]:
        """Number and side of the crops of one step."""
        if progress < 1 - self.large_part:
            return self.batch, self.crop
        return max(1, self.batch * self.crop**2 // self.large_crop**2), self.large_crop
