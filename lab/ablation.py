"""Which choices of the codec and of its training pay: short runs of equal budget, one choice changed in each.

A run of a few hundred steps ranks what helps learning; it does not tell where long runs end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch
from torch import Tensor, nn

from lab.variants import Tell, chosen, told, train_to_the_end
from lichen.jobs.training.config import TrainConfig
from lichen.jobs.training.data import PictureCache, open_cache
from lichen.jobs.training.loop import Trainer
from lichen.models.blocks.conv import ConvBlock, shuffle
from lichen.models.blocks.dct import PATCH, separable_basis
from lichen.models.decoupled.initialise import QUIET, initialise
from lichen.models.decoupled.network import CodecNetwork, NetworkConfig

SPEED_SIZE = (512, 768)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One choice changed."""

    name: str
    note: str
    prepare: Callable[[CodecNetwork, Tensor], None] = initialise
    adam: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AblationCase:
    """One run. ``loss`` is that of validation (lower is better), ``speed`` that of g_a and g_s together."""

    name: str
    note: str
    loss: float
    seconds_per_step: float
    speed: float
    """MP/s of one picture of 512x768 through g_a and g_s, all cores, float32."""
    parameters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """What one run measured."""

    steps: int
    batch: int
    cases: tuple[AblationCase, ...]


class SteppingNetwork(nn.Module):
    """``PixelNetwork`` that goes through 1/2 and 1/4 by strided 3x3 convolutions instead of straight to 1/8."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width = config.width
        half, quarter = width // 6, width // 3
        self.down = nn.Sequential(
            nn.Conv2d(3, half, 3, stride=2, padding=1), nn.GELU(),
            nn.Conv2d(half, quarter, 3, stride=2, padding=1), nn.GELU(),
            nn.Conv2d(quarter, width, 3, stride=2, padding=1),
        )  # fmt: skip
        self.blocks = nn.Sequential(*[ConvBlock(width, config.expansion) for _ in range(config.depth)])
        self.up1 = nn.Conv2d(width, 4 * quarter, 1)
        self.up2 = nn.Conv2d(quarter, 4 * half, 3, padding=1)
        self.head = nn.Conv2d(half, 12, 3, padding=1)

    def forward(self, x: Tensor, _position: Tensor) -> Tensor:
        features = self.blocks(self.down(x))
        features = nn.functional.gelu(shuffle(self.up1(features), 2))
        features = nn.functional.gelu(shuffle(self.up2(features), 2))
        correction: Tensor = self.head(features)
        return shuffle(correction, 2)


def walsh(size: int) -> Tensor:
    """Walsh functions by rising number of sign changes: the packet of ``log2(size)`` Haar steps on all bands."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    changes = (matrix[:, 1:] != matrix[:, :-1]).sum(1)
    return matrix[changes.argsort()] / math.sqrt(size)


def _wavelet(network: CodecNetwork, patches: Tensor) -> None:
    initialise(network, patches, separable_basis(walsh(PATCH), network.config.luma, network.config.chroma))


def _stepping(network: CodecNetwork, patches: Tensor) -> None:
    initialise(network, patches)
    for transform in (network.g_a, network.g_s):
        stepping = SteppingNetwork(network.config)
        with torch.no_grad():
            stepping.head.weight.mul_(QUIET)
            nn.init.zeros_(stepping.head.bias)  # type: ignore[arg-type]
        transform.network = stepping  # type: ignore[assignment]


def _linear_only(network: CodecNetwork, patches: Tensor) -> None:
    initialise(network, patches)
    for transform in (network.g_a, network.g_s):
        transform.network.requires_grad_(False)
        transform.network.head.weight.zero_()


VARIANTS = (
    Variant(name="shipped", note="as `lichen train` does it"),
    Variant(name="stepping", note="through 1/2 and 1/4 instead of straight to 1/8", prepare=_stepping),
    Variant(name="wavelet", note="linear transform started as Haar packets (as in AuxT), not as DCT", prepare=_wavelet),
    Variant(name="linear", note="no networks around the linear transform", prepare=_linear_only),
    Variant(name="adam", note="Adam instead of SOAP", adam=True),
)


def run(
    sources: Sequence[str | Path],
    *,
    steps: int = 300,
    batch: int = 8,
    names: Sequence[str] | None = None,
    cache: str | Path | None = None,
    model: NetworkConfig | None = None,
    held: int = 24,
    report: Tell | None = None,
) -> Ablation:
    """Train every variant (or those of ``names``) for ``steps`` steps from the same data and seed.

    ``held`` pictures are kept for validation. Raises ``UsageError`` and ``TrainingError``.
    """
    variants = chosen(VARIANTS, names)
    config = TrainConfig(steps=steps, batch=batch, large_part=0.0, ema=0.99, validation=held)
    cases = []
    with TemporaryDirectory() as scratch:
        pictures = open_cache([Path(s) for s in sources], Path(scratch) / "cache" if cache is None else Path(cache))
        for variant, tell in zip(variants, told([v.name for v in variants], report), strict=True):
            trainer = _trainer(variant, config, pictures, Path(scratch) / variant.name, model or NetworkConfig())
            cases.append(_case(variant, trainer, tell))
    return Ablation(steps=steps, batch=batch, cases=tuple(cases))


def _trainer(
    variant: Variant, config: TrainConfig, pictures: PictureCache, folder: Path, model: NetworkConfig
) -> Trainer:
    trainer = Trainer(model, config, pictures, folder, prepare=variant.prepare)
    if variant.adam:
        groups = [{"params": g["params"], "scale": g["scale"]} for g in trainer.optimiser.param_groups]
        trainer.optimiser = torch.optim.Adam(groups, lr=config.rate, betas=(0.9, 0.98))  # type: ignore[assignment]
    return trainer


def _case(variant: Variant, trainer: Trainer, tell: Callable[[float], None]) -> AblationCase:
    train_to_the_end(trainer, tell)
    return AblationCase(
        name=variant.name,
        note=variant.note,
        loss=trainer.validate()["loss"],
        seconds_per_step=60 * trainer.minutes / max(1, trainer.step),
        speed=_speed(cast(CodecNetwork, trainer.network)),
        parameters=sum(p.numel() for p in trainer.network.parameters()),
    )


@torch.inference_mode()
def _speed(network: CodecNetwork, repeats: int = 3) -> float:
    x = torch.rand(1, 3, *SPEED_SIZE).contiguous(memory_format=torch.channels_last)
    position = torch.tensor([3.0])
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        network.g_s(network.g_a(x, position), position)
        best = min(best, time.perf_counter() - started)
    return SPEED_SIZE[0] * SPEED_SIZE[1] / 1e6 / best
