"""A pyramid of blocks, and uneven channel groups in checkerboards: what S2CFormer and HSCATB run in at published size.

The entropy model is ELIC's (He et al., "ELIC: Efficient learned image compression with unevenly grouped space-channel
contextual adaptive coding", CVPR 2022), plain or with the gated blocks of CMIC and GLIC, which S2CFormer's
authors published after it. Its own paper does not describe what it used, nor does that of HSCATB beyond
"uneven channel chunks".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.errors import UsageError
from lichen.models.blocks.conv import ConvBlock, GatedFeedForward, LayerNorm2d
from lichen.models.blocks.hscatb import HybridBlock
from lichen.models.blocks.residual import conv, deconv, subpixel
from lichen.models.blocks.s2cformer import S2CBlock
from lichen.models.snapped.network import RateConfig, Step, SteppedNetwork, even_places

GROUPS = (16, 16, 32, 64, 192)
LATENT = 320
HYPER = 192
Stage = Callable[[int, int], nn.Module]
"""Width and expansion to a block."""


def _s2c(spatial: str) -> Stage:
    return lambda width, expansion: S2CBlock(width, expansion, spatial, "gated")


def _hybrid(width: int, expansion: int) -> nn.Module:
    return HybridBlock(width, expansion)


STAGES: dict[str, tuple[Stage, Stage, Stage]] = {
    "s2c-identity": (_s2c("identity"),) * 3,
    "s2c-conv": (_s2c("conv"),) * 3,
    "s2c-attention": (_s2c("attention"),) * 3,
    "s2c-hybrid": (_s2c("conv"), _s2c("attention"), _s2c("attention")),
    "hscatb": (_hybrid,) * 3,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupedConfig(RateConfig):
    """Constructor arguments of ``GroupedNetwork``. The defaults are S2C-Hybrid at the published size."""

    system: ClassVar[str] = "grouped"

    blocks: str = "s2c-hybrid"
    widths: tuple[int, int, int] = (128, 192, 256)
    depths: tuple[int, int, int] = (6, 8, 6)
    expansion: int = 4
    gated: bool = True


class CheckerboardConv(nn.Conv2d):
    """A 5x5 convolution that sees the anchors around a place that is none."""

    mask: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 5, padding=2)
        odd = (torch.arange(25).reshape(5, 5) % 2 == 1).float()
        self.register_buffer("mask", odd)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=2)


class Adapted(nn.Module):
    """A convolution block between different widths: a 1x1 convolution first."""

    def __init__(self, inputs: int, outputs: int, expansion: int) -> None:
        super().__init__()
        self.adaptor = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.block = ConvBlock(outputs, expansion)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block(self.adaptor(x))
        return y


class Aggregation(nn.Module):
    """A 1x1 convolution, then a normalised gated feed-forward, residual."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mix = nn.Conv2d(inputs, outputs, 1)
        self.norm = LayerNorm2d(outputs)
        self.ffn = GatedFeedForward(outputs, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(x)
        y: Tensor = self.ffn(self.norm(x))
        return x + y


class GroupedNetwork(SteppedNetwork):
    """Blocks at 1/2, 1/4 and 1/8, and ten steps of entropy coding: five groups of channels, two places in each."""

    def __init__(self, config: GroupedConfig) -> None:
        super().__init__(latent=LATENT, hyper=HYPER, rates=config)
        self.config = config
        stages = STAGES.get(config.blocks)
        if stages is None:
            raise UsageError(f"no architecture {config.blocks[:40]!r} of this kind; there are {', '.join(STAGES)}")
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        before = 3
        for width, depth, stage in zip(config.widths, config.depths, stages, strict=True):
            blocks = [stage(width, config.expansion) for _ in range(depth)]
            down += [conv(before, width, 3), *blocks]
            mirrored = [stage(width, config.expansion) for _ in range(depth)]
            up = [*mirrored, deconv(width, before, 3) if before > 3 else subpixel(width, 3), *up]
            before = width
        self.g_a = nn.Sequential(*down, conv(before, LATENT, 3))
        self.g_s = nn.Sequential(deconv(LATENT, before, 3), *up)
        self.h_a, self.h_s = _gated_hyper() if config.gated else _plain_hyper()
        self.channel = nn.ModuleList()
        self.spatial = nn.ModuleList(CheckerboardConv(size, 2 * size) for size in GROUPS)
        self.aggregate = nn.ModuleList()
        for n, size in enumerate(GROUPS):
            earlier = sum(GROUPS[:n])
            self.channel.append(_channel_context(earlier, 2 * size, gated=config.gated) if n else nn.Identity())
            inputs = 2 * size + (2 * size if n else 0) + 2 * HYPER
            self.aggregate.append(_aggregation(inputs, 2 * size, gated=config.gated))

    def steps(self, height: int, width: int, device: torch.device) -> list[Step]:
        """Anchors and the others, for each group."""
        anchors = even_places(height, width, device)
        steps = []
        for n, size in enumerate(GROUPS):
            start = sum(GROUPS[:n])
            steps.append(Step(2 * n, start, start + size, anchors, last=False))
            steps.append(Step(2 * n + 1, start, start + size, ~anchors))
        return steps

    def side(self, z: Tensor) -> Tensor:
        """Features of the hyper-latent."""
        features: Tensor = self.h_s(z)
        return features

    def parameters_of(self, step: Step, side: Tensor, known: Tensor) -> tuple[Tensor, Tensor, None]:
        """Scales and means of a group, from the groups before it, its anchors and the hyper-latent."""
        group, second = divmod(step.number, 2)
        size = step.stop - step.start
        if second:
            spatial = self.spatial[group](known[:, step.start : step.stop])
        else:
            spatial = known.new_zeros(len(known), 2 * size, *known.shape[2:])  # not even the bias: nothing is known
        parts = [spatial, side]
        if group:
            parts.insert(1, self.channel[group](known[:, : step.start]))
        scale, mean = self.aggregate[group](torch.cat(parts, 1)).chunk(2, 1)
        return scale, mean, None


def _ramp(inputs: int, outputs: int, least: int) -> Sequence[int]:
    """Widths of two layers between, in equal steps, but not below ``least``."""
    return [max(least, inputs + (outputs - inputs) * n // 3) for n in (1, 2)]


def _channel_context(inputs: int, outputs: int, *, gated: bool) -> nn.Sequential:
    if gated:
        first, second = _ramp(inputs, outputs, HYPER)
        return nn.Sequential(Adapted(inputs, first, 4), Adapted(first, second, 4), Adapted(second, outputs, 4))
    return nn.Sequential(
        conv(inputs, 224, 5, 1), nn.ReLU(), conv(224, 128, 5, 1), nn.ReLU(), conv(128, outputs, 5, 1)
    )  # fmt: skip


def _aggregation(inputs: int, outputs: int, *, gated: bool) -> nn.Sequential:
    first, second = _ramp(inputs, outputs, 2 * HYPER)
    if gated:
        return nn.Sequential(Aggregation(inputs, first), Aggregation(first, second), Aggregation(second, outputs))
    return nn.Sequential(
        conv(inputs, first, 1, 1), nn.ReLU(), conv(first, second, 1, 1), nn.ReLU(), conv(second, outputs, 1, 1)
    )  # fmt: skip


def _gated_hyper() -> tuple[nn.Sequential, nn.Sequential]:
    def pair() -> list[nn.Module]:
        return [ConvBlock(HYPER, 2) for _ in range(2)]

    h_a = nn.Sequential(conv(LATENT, HYPER, 3, 1), *pair(), conv(HYPER, HYPER, 3), *pair(), conv(HYPER, HYPER, 3))
    h_s = nn.Sequential(subpixel(HYPER, HYPER), *pair(), subpixel(HYPER, HYPER), *pair(), conv(HYPER, 2 * HYPER, 3, 1))
    return h_a, h_s


def _plain_hyper() -> tuple[nn.Sequential, nn.Sequential]:
    more = HYPER * 3 // 2
    h_a = nn.Sequential(
        conv(LATENT, HYPER, 3, 1), nn.ReLU(), conv(HYPER, HYPER), nn.ReLU(), conv(HYPER, HYPER)
    )  # fmt: skip
    h_s = nn.Sequential(
        deconv(HYPER, HYPER), nn.ReLU(), deconv(HYPER, more), nn.ReLU(), conv(more, 2 * HYPER, 3, 1)
    )  # fmt: skip
    return h_a, h_s
