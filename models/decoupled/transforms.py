"""Analysis and synthesis transforms: a linear block transform, and networks that correct pictures around it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lichen.models.blocks.conv import full_precision, shuffle, unshuffle, working_precision
from lichen.models.blocks.dct import PATCH
from lichen.models.blocks.quality import QualityTable

CELL = 8
"""Pixels per position of the networks in each direction."""


class PixelNetwork(nn.Module):
    """A correction of a picture, computed at 1/8: space to depth, ``blocks``, depth to space.

    Before and after a block transform it can do what overlapping transforms do with filters over the block
    borders (Tran, Liang and Tu: Lapped transform via time-domain pre- and post-filtering, 2003), and what a loop filter
    does. Features have a bias of their own at each of the four places in a block of the transform.
    """

    def __init__(self, blocks: nn.Sequential, width: int, anchors: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3 * CELL * CELL, width, 1)
        self.place = nn.Parameter(torch.zeros(width, PATCH // CELL, PATCH // CELL))
        self.gain = QualityTable(anchors, width)
        self.blocks = blocks
        self.head = nn.Conv2d(width, 3 * CELL * CELL, 1)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        """``(B, 3, H, W)`` pictures around zero to corrections of the same shape, float32."""
        with full_precision(x.device):  # half precision would lose high frequencies beside the mean: up to 0.4 dB
            features = self.stem(unshuffle(x.float(), CELL))
        features = features.to(working_precision(x.device))
        blocks = x.shape[2] // PATCH, x.shape[3] // PATCH
        features = (features + self.place.repeat(1, *blocks)) * self.gain(position).exp()
        correction: Tensor = shuffle(self.head(self.blocks(features)).float(), CELL)
        return correction


class Analysis(nn.Module):
    """g_a: RGB in [0, 1] to the latent y at 1/16, the transform of the picture with the network's correction."""

    def __init__(self, latent: int, network: PixelNetwork) -> None:
        super().__init__()
        self.network = network
        self.linear = nn.Conv2d(3 * PATCH * PATCH, latent, 1, bias=False)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        x = x - 0.5
        correction = self.network(x, position)
        with full_precision(x.device):  # half precision would cost some 0.1 grey levels
            y: Tensor = self.linear(unshuffle(x.float() + correction, PATCH))
        return y


class Synthesis(nn.Module):
    """g_s: the decoded latent to RGB in about [0, 1], the transposed transform and the network's correction."""

    def __init__(self, latent: int, network: PixelNetwork) -> None:
        super().__init__()
        self.linear = nn.Conv2d(latent, 3 * PATCH * PATCH, 1, bias=False)
        self.network = network

    def forward(self, y: Tensor, position: Tensor) -> Tensor:
        with full_precision(y.device):
            x: Tensor = shuffle(self.linear(y.float()), PATCH)
        correction: Tensor = self.network(x, position)
        return x + correction + 0.5
