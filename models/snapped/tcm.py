"""TCM: parallel transformer and convolution mixtures (Liu, Sun and Katto, CVPR 2023).

The published codec of the blocks in ``lichen.models.blocks.tcm``. Names and shapes of the weights are those of the
published code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lichen.models.blocks.attention import SwinBlock
from lichen.models.blocks.residual import ResidualBlockDown, ResidualBlockUp, ResidualUnit, conv, subpixel
from lichen.models.blocks.tcm import ConvTransBlock
from lichen.models.snapped.network import RateConfig, Step, SteppedNetwork, parameter_net

WINDOWS = 8, 4
"""Sides of windows in the transforms and in the hyper-transforms."""
HEADS = (8, 16, 32)
"""Channels of an attention head at 1/2, 1/4 and 1/8."""
SLICES = 5
SUPPORT_HEAD = 16
SUPPORT_WIDTH = 128


@dataclass(frozen=True, kw_only=True, slots=True)
class TCMConfig(RateConfig):
    """Constructor arguments of ``TCM``: half of the transforms' channels."""

    system: ClassVar[str] = "tcm"

    half: int = 64


def _mixture(half: int, head_channels: int, window: int) -> list[nn.Module]:
    return [ConvTransBlock(half, head_channels, window, shifted=shifted) for shifted in (False, True)]


class WindowGate(nn.Module):
    """SWAtten: residual units gated by shifted-window attention, on ``SUPPORT_WIDTH`` channels between 1x1 layers."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = SUPPORT_WIDTH
        self.conv_a = nn.Sequential(*[ResidualUnit(width) for _ in range(3)])
        self.conv_b = nn.Sequential(*[ResidualUnit(width) for _ in range(3)], conv(width, width, 1, 1))
        self.non_local_block = _BlockPair(width)
        self.in_conv = conv(channels, width, 1, 1)
        self.out_conv = conv(width, channels, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.in_conv(x)
        gate = torch.sigmoid(self.conv_b(self.non_local_block(x)))
        y: Tensor = self.out_conv(self.conv_a(x) * gate + x)
        return y


class _BlockPair(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block_1 = SwinBlock(channels, SUPPORT_HEAD, WINDOWS[0], shifted=False)
        self.block_2 = SwinBlock(channels, SUPPORT_HEAD, WINDOWS[0], shifted=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.block_2(self.block_1(x))
        return y


class TCM(SteppedNetwork):
    """The published codec: transforms of mixtures, and five channel slices with attention (SWAtten) in each.

    ``half`` is 64, 96 or 128 for the small, medium and large model. Pictures are padded to multiples of 128, so that
    windows fit; the published code also fails below 256 pixels, because it pads small latents once too often.
    """

    grid = 128

    def __init__(self, config: TCMConfig) -> None:
        super().__init__(latent=320, hyper=192, rates=config)
        self.config = config
        half, width = config.half, 2 * config.half
        down: list[nn.Module] = []
        up: list[nn.Module] = []
        for n, heads in enumerate(HEADS):
            down += [ResidualBlockDown(width if n else 3, width), *_mixture(half, heads, WINDOWS[0])]
            up += [ResidualBlockUp(width if n else self.latent, width), *_mixture(half, HEADS[-1 - n], WINDOWS[0])]
        self.g_a = nn.Sequential(*down, conv(width, self.latent, 3))
        self.g_s = nn.Sequential(*up, subpixel(width, 3))
        inner = _mixture(half, HEADS[2], WINDOWS[1])
        self.h_a = nn.Sequential(ResidualBlockDown(self.latent, width), *inner, conv(width, self.hyper, 3))
        self.h_mean_s, self.h_scale_s = (
            nn.Sequential(
                ResidualBlockUp(self.hyper, width), *_mixture(half, HEADS[2], WINDOWS[1]), subpixel(width, self.latent)
            )
            for _ in range(2)
        )
        part = self.latent // SLICES
        supports = [self.latent + part * n for n in range(SLICES)]
        self.atten_mean, self.atten_scale = (
            nn.ModuleList(nn.Sequential(WindowGate(width)) for width in supports) for _ in range(2)
        )
        self.cc_mean_transforms = nn.ModuleList(parameter_net(width, part) for width in supports)
        self.cc_scale_transforms = nn.ModuleList(parameter_net(width, part) for width in supports)
        self.lrp_transforms = nn.ModuleList(parameter_net(width + part, part) for width in supports)

    def steps(self, _height: int, _width: int, _device: torch.device) -> list[Step]:
        """Five slices of 64 channels."""
        part = self.latent // SLICES
        return [Step(n, n * part, (n + 1) * part) for n in range(SLICES)]

    def side(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Features for the means and for the scales."""
        return self.h_mean_s(z), self.h_scale_s(z)

    def parameters_of(self, step: Step, side: tuple[Tensor, Tensor], known: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Scales, means, and the attended support of the means, which latent residual prediction reads."""
        means, scales = (torch.cat([features, known[:, : step.start]], 1) for features in side)
        support = self.atten_mean[step.number](means)
        scale = self.cc_scale_transforms[step.number](self.atten_scale[step.number](scales))
        return scale, self.cc_mean_transforms[step.number](support), support

    def refine(self, step: Step, support: Tensor, decoded: Tensor) -> Tensor:
        """Latent residual prediction, at most half a quantisation step."""
        predicted: Tensor = self.lrp_transforms[step.number](torch.cat([support, decoded], 1))
        return 0.5 * torch.tanh(predicted)
