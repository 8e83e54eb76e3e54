"""Analysis and synthesis transforms: a linear block transform, and networks that correct pictures around it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lichen.models.networks.blocks import full_precision, shuffle, unshuffle, working_precision
from lichen.models.networks.quality import QualityTable

PATCH = 16
"""Pixels per latent in each direction."""
CELL = 8
"""Pixels per position of the networks in each direction."""
STEP = math.sqrt(18 / math.log(2))
"""Quantisation step of an orthonormal transform in grey levels times ``sqrt(lambda)``.

At high rates the distortion of a coefficient is ``step**2 / 12`` and its rate falls by one bit as the step doubles;
the loss ``lambda * (squared error) / 3 + bits`` is least at ``lambda * step**2 = 18 / ln 2``.
"""


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
    return separable_basis(dct, luma, chroma)


def separable_basis(rows: Tensor, luma: int, chroma: int) -> Tensor:
    """The filters of ``dct_basis`` from other one-dimensional ones, ``(patch, patch)`` float64 by rising frequency."""
    rotation = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [1.0, -2.0, 1.0]], dtype=torch.float64)
    rotation /= rotation.norm(dim=1, keepdim=True)
    filters = [
        (rotation[plane][:, None, None] * (rows[u][:, None] * rows[v][None, :])).reshape(-1)
        for (_, u, v), plane in dct_order(luma, chroma, len(rows))
    ]
    return torch.stack(filters).float()


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
