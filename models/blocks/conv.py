"""Building blocks shared by the transforms: resampling, separable-convolution mixer, gated feed-forward.

All tensors are ``(batch, channels, height, width)`` in channels-last memory. Every dense layer is a 1x1
convolution: on CPUs oneDNN runs those several times faster than the BLAS behind ``torch.nn.Linear`` does on
some vendors, and on GPUs both are the same matrix product.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def unshuffle(x: Tensor, factor: int) -> Tensor:
    """Space to depth: ``(B, C, H, W)`` to ``(B, C*factor**2, H/factor, W/factor)``, channels-last, one copy.

    The channel order is that of ``torch.nn.functional.pixel_unshuffle``.
    """
    b, c, h, w = x.shape
    x = x.reshape(b, c, h // factor, factor, w // factor, factor)
    x = x.permute(0, 2, 4, 1, 3, 5).reshape(b, h // factor, w // factor, c * factor * factor)
    return x.permute(0, 3, 1, 2)


def shuffle(x: Tensor, factor: int) -> Tensor:
    """Depth to space, the inverse of ``unshuffle``; the result is channels-last too."""
    b, c, h, w = x.shape
    depth = c // (factor * factor)
    x = x.permute(0, 2, 3, 1).reshape(b, h, w, depth, factor, factor)
    x = x.permute(0, 1, 4, 2, 5, 3).reshape(b, h * factor, w * factor, depth)
    return x.permute(0, 3, 1, 2)


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Autocast off, where there is one."""
    return nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)


def working_precision(device: torch.device) -> torch.dtype:
    """What autocast computes in, float32 where it is off."""
    on = device.type != "meta" and torch.is_autocast_enabled(device.type)
    return torch.get_autocast_dtype(device.type) if on else torch.float32


class LayerNorm2d(nn.Module):
    """Layer normalisation over channels, for each position alone."""

    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],), self.weight, self.bias, self.eps)
        return y.permute(0, 3, 1, 2)


class SeparableMixer(nn.Module):
    """Spatial interaction by a separable convolution: ``x + [1x1, LeakyReLU, depth-wise 5x5, 1x1](x)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(channels, channels, 1)
        self.depthwise = nn.Conv2d(channels, channels, 5, padding=2, groups=channels)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.depthwise(F.leaky_relu(self.expand(x), 0.01)))
        return x + y


class GatedFeedForward(nn.Module):
    """Channel aggregation: ``[1x1 to 2*e*C, GELU(u)*v, 1x1 back]`` (Chen et al., S2CFormer, 2025).

    Gate and value have a convolution each: splitting one result in two costs strided passes over memory.
    """

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(channels, expansion * channels, 1, bias=False)
        self.value = nn.Conv2d(channels, expansion * channels, 1, bias=False)
        self.project = nn.Conv2d(expansion * channels, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(F.gelu(self.gate(x)) * self.value(x))
        return y


class ConvBlock(nn.Module):
    """The S2C-Conv block: separable mixer, then normalised gated feed-forward, both residual."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        self.mixer = SeparableMixer(channels)
        self.norm = LayerNorm2d(channels)
        self.ffn = GatedFeedForward(channels, expansion)

    def last_layers(self) -> tuple[nn.Module, ...]:
        """The layers whose outputs are added to what passes by: a quiet start scales their weights down."""
        return self.mixer.project, self.ffn.project

    def forward(self, x: Tensor) -> Tensor:
        x = self.mixer(x)
        y: Tensor = self.ffn(self.norm(x))
        return x + y


class Down(nn.Module):
    """Halve the resolution: space to depth, then 1x1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4 * inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(unshuffle(x, 2))
        return y


class Up(nn.Module):
    """Double the resolution: 1x1, then depth to space."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, 4 * outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return shuffle(self.conv(x), 2)
