"""The linear transform that pictures start with: an orthonormal DCT of luma and chroma, and its quantisation step."""

from __future__ import annotations

import math

import torch
from torch import Tensor

PATCH = 16
"""Pixels per latent in each direction."""
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
