"""Layers of the published codecs, with the names and shapes that their checkpoints have.

The residual blocks and the normalisation are those of CompressAI (Begaint et al., arXiv 2011.03029, 2020), from which
most published codecs are built.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.models.blocks.conv import full_precision
from lichen.models.blocks.rounding import bounded

_PEDESTAL = 2.0**-36


class GDN(nn.Module):
    """Generalised divisive normalisation (Balle, Laparra and Simoncelli, ICLR 2016), or its approximate inverse.

    ``y_i = x_i / sqrt(beta_i + sum_j gamma_ij x_j**2)``; the inverse multiplies. Stored are square roots.
    """

    def __init__(self, channels: int, *, inverse: bool = False) -> None:
        super().__init__()
        self.inverse = inverse
        self.beta = nn.Parameter(torch.sqrt(torch.ones(channels) + _PEDESTAL))
        self.gamma = nn.Parameter(torch.sqrt(0.1 * torch.eye(channels) + _PEDESTAL))

    def forward(self, x: Tensor) -> Tensor:
        with full_precision(x.device):
            wide = x if x.dtype == torch.float64 else x.float()
            beta = _non_negative(self.beta, 1e-6)
            gamma = _non_negative(self.gamma, 0.0)
            norm = F.conv2d(wide.square(), gamma[:, :, None, None], beta)
            return wide * (norm.sqrt() if self.inverse else norm.rsqrt())


def _non_negative(stored: Tensor, minimum: float) -> Tensor:
    return bounded(stored, (minimum + _PEDESTAL) ** 0.5).square() - _PEDESTAL


def conv(inputs: int, outputs: int, kernel: int = 5, stride: int = 2) -> nn.Conv2d:
    """A padded convolution; halves the resolution unless ``stride`` is 1."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)


def deconv(inputs: int, outputs: int, kernel: int = 5) -> nn.ConvTranspose2d:
    """Doubles the resolution."""
    return nn.ConvTranspose2d(inputs, outputs, kernel, 2, kernel // 2, output_padding=1)


def subpixel(inputs: int, outputs: int) -> nn.Sequential:
    """Doubles the resolution: 3x3 to four times the channels, depth to space."""
    return nn.Sequential(nn.Conv2d(inputs, 4 * outputs, 3, padding=1), nn.PixelShuffle(2))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, an activation after each, then the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = F.leaky_relu(self.conv2(F.leaky_relu(self.conv1(x), 0.01)), 0.01)
        return y + x


class Sampled(nn.Conv2d):
    """A 1x1 convolution of every second pixel.

    With a stride of two in the library instead, torch 2.15 crashes on CPUs: in the gradient, for three channels-last
    inputs.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, :, ::2, ::2])


class ResidualBlockDown(nn.Module):
    """Halves the resolution: 3x3 with stride 2, 3x3, normalisation; beside it 1x1 with stride 2."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = conv(inputs, outputs, 3)
        self.conv2 = conv(outputs, outputs, 3, 1)
        self.gdn = GDN(outputs)
        self.skip = Sampled(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.gdn(self.conv2(F.leaky_relu(self.conv1(x), 0.01)))
        beside: Tensor = self.skip(x)
        return y + beside


class ResidualBlockUp(nn.Module):
    """Doubles the resolution: sub-pixel convolution, 3x3, inverse normalisation; beside it another sub-pixel one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.subpel_conv = subpixel(inputs, outputs)
        self.conv = conv(outputs, outputs, 3, 1)
        self.igdn = GDN(outputs, inverse=True)
        self.upsample = subpixel(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.igdn(self.conv(F.leaky_relu(self.subpel_conv(x), 0.01)))
        beside: Tensor = self.upsample(x)
        return y + beside


class ResidualUnit(nn.Module):
    """1x1 to half of the channels, 3x3, 1x1 back, the identity, and the activation."""

    def __init__(self, channels: int, activation: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        half = channels // 2
        self.conv = nn.Sequential(
            conv(channels, half, 1, 1), activation(), conv(half, half, 3, 1), activation(), conv(half, channels, 1, 1)
        )
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.activation(self.conv(x) + x)
        return y


class GateAttention(nn.Module):
    """``a(x) * sigmoid(b(x)) + x`` with residual units (the simplified attention of Cheng et al., CVPR 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_a = nn.Sequential(*[ResidualUnit(channels) for _ in range(3)])
        self.conv_b = nn.Sequential(*[ResidualUnit(channels) for _ in range(3)], conv(channels, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv_a(x) * torch.sigmoid(self.conv_b(x))
        return y + x
