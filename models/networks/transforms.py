"""The linear DCT path and the analysis and synthesis transforms built around it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lichen.models.networks.blocks import ConvBlock, Down, QualityTable, Up, shuffle, unshuffle

PATCH = 16
"""Pixels per latent in each direction."""


def dct_order(luma: int, chroma: int, patch: int = PATCH) -> list[tuple[tuple[int, int, int], int]]:
    """The kept coefficients ``((u*u + v*v, u, v), plane)``, sorted by frequency; plane 0 is luma."""
    order = sorted((u * u + v * v, u, v) for u in range(patch) for v in range(patch))
    return sorted((order[i], plane) for plane, count in enumerate((luma, chroma, chroma)) for i in range(count))


def dct_basis(luma: int, chroma: int, patch: int = PATCH) -> Tensor:
    """Orthonormal DCT-II filters of ``patch x patch`` pixels in an orthonormal luma-chroma rotation.

    Keeps the ``luma`` lowest frequencies of the luma plane and ``chroma`` of each of two chroma planes.
    Returns ``(luma + 2 * chroma, 3 * patch**2)`` in the channel order of ``unshuffle(rgb, patch)``, sorted by
    frequency.
    """
    n = torch.arange(patch, dtype=torch.float64)
    dct = torch.cos(math.pi * (n[None, :] + 0.5) * n[:, None] / patch) * math.sqrt(2 / patch)
    dct[0] /= math.sqrt(2)
    rotation = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]], dtype=torch.float64)
    rotation /= rotation.norm(dim=1, keepdim=True)
    rows = [
        (rotation[plane][:, None, None] * (dct[u][:, None] * dct[v][None, :])).reshape(-1)
        for (_, u, v), plane in dct_order(luma, chroma, patch)
    ]
    return torch.stack(rows).float()


class Analysis(nn.Module):
    """g_a: RGB in [0, 1] to the latent y at 1/16.

    ``y = (DCT path)(x) + network(x)``, so that latents are of the size of DCT coefficients of such pictures. The
    network goes straight to 1/8 by space to depth, then to 1/16.
    """

    def __init__(self, latent: int, widths: tuple[int, int], depths: tuple[int, int], expansion: int, anchors: int):
        super().__init__()
        self.linear = nn.Conv2d(3 * PATCH * PATCH, latent, 1, bias=False)
        self.stem = nn.Conv2d(3 * 64, widths[0], 1)
        self.gain = QualityTable(anchors, widths[0])
        self.stage1 = nn.Sequential(*[ConvBlock(widths[0], expansion) for _ in range(depths[0])])
        self.down = Down(widths[0], widths[1])
        self.stage2 = nn.Sequential(*[ConvBlock(widths[1], expansion) for _ in range(depths[1])])
        self.head = nn.Conv2d(widths[1], latent, 1)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        x = x - 0.5
        features = self.stem(unshuffle(x, 8)) * self.gain(position).exp()
        features = self.head(self.stage2(self.down(self.stage1(features))))
        with torch.autocast(x.device.type, enabled=False):  # half precision would cost some 0.1 grey levels
            y: Tensor = self.linear(unshuffle(x.float(), PATCH)) + features.float()
        return y


class Synthesis(nn.Module):
    """g_s: the decoded latent to RGB in about [0, 1]; the mirror of ``Analysis`` with the transposed filters."""

    def __init__(self, latent: int, widths: tuple[int, int], depths: tuple[int, int], expansion: int, anchors: int):
        super().__init__()
        self.linear = nn.Conv2d(latent, 3 * PATCH * PATCH, 1, bias=False)
        self.stem = nn.Conv2d(latent, widths[1], 1)
        self.gain2 = QualityTable(anchors, widths[1])
        self.stage2 = nn.Sequential(*[ConvBlock(widths[1], expansion) for _ in range(depths[1])])
        self.up = Up(widths[1], widths[0])
        self.gain1 = QualityTable(anchors, widths[0])
        self.stage1 = nn.Sequential(*[ConvBlock(widths[0], expansion) for _ in range(depths[0])])
        self.head = nn.Conv2d(widths[0], 3 * 64, 1)

    def forward(self, y: Tensor, position: Tensor) -> Tensor:
        features = self.stage2(self.stem(y) * self.gain2(position).exp())
        features = self.head(self.stage1(self.up(features) * self.gain1(position).exp()))
        with torch.autocast(y.device.type, enabled=False):
            x: Tensor = shuffle(self.linear(y.float()), PATCH) + shuffle(features.float(), 8)
        return x + 0.5
