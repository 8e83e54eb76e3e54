"""The block of TCM: a transformer and convolutions side by side (Liu, Sun and Katto, CVPR 2023).

A block splits its channels: one half goes through a residual block of 3x3 convolutions, the other through window
attention, and a 1x1 convolution mixes them again. Blocks alternate between plain and shifted windows. Names and shapes
of the weights are those of the published code, as is the identity that the convolution branch adds twice.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lichen.models.blocks.attention import SwinBlock
from lichen.models.blocks.residual import ResidualBlock


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
