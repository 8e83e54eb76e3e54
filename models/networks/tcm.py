"""TCM: parallel transformer and convolution mixtures (Liu, Sun and Katto, CVPR 2023).

A block splits its channels: one half goes through a residual block of 3x3 convolutions, the other through window
attention, and a 1x1 convolution mixes them again. Blocks alternate between plain and shifted windows. Names and shapes
of the weights are those of the published code, as is the identity that the convolution branch adds twice.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.models.networks.attention import SwinBlock


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, an activation after each, then the identity."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.conv2(F.leaky_relu(self.conv1(x), 0.01)), 0.01)
        return y + x


class ConvTransBlock(nn.Module):
    """The TCM block on ``2 * half`` channels."""

    def __init__(self, half: int, head_channels: int, window: int, *, shifted: bool) -> None:
        super().__init__()
        self.branch = half
        self.trans_block = SwinBlock(half, head_channels, window, shifted=shifted)
        self.conv1_1 = nn.Conv2d(2 * half, 2 * half, 1)
        self.conv1_2 = nn.Conv2d(2 * half, 2 * half, 1)
        self.conv_block = ResidualBlock(half)

    def last_layers(self) -> tuple[nn.Module, ...]:
        """The layer whose output is added to what passes by, and those of the transformer branch."""
        return self.conv1_2, *self.trans_block.last_layers()

    def forward(self, x: Tensor) -> Tensor:
        local, wide = self.conv1_1(x).split(self.branch, 1)
        local = self.conv_block(local) + local
        y: Tensor = self.conv1_2(torch.cat([local, self.trans_block(wide)], 1))
        return x + y
