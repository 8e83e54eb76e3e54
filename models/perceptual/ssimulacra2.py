"""SSIMULACRA 2.1: how much of a difference people see between two pictures (Sneyers, 2023), differentiable.

Structural similarity, and edges that came or went, at six scales in the XYB colours of JPEG XL, with weights fitted to
what people said. The treatment of borders is that of the package ``ssimulacra2`` 0.3.0, with which the tests compare;
``lichen.pipeline.measures.ssimulacra2`` is the same in kernels that measure and have no gradient.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from lichen.models.perceptual import constants
from lichen.models.perceptual.constants import BIAS, C2, RADIUS, SIGMA

_BLOCK = 64
_TINY = 1e-12


def score(errors: Tensor) -> Tensor:
    """Scores from ``error``s."""
    a, b, c = constants.POLYNOMIAL
    x = errors * constants.STRETCH
    x = a * x + b * x.square() + c * x**3
    return 100 - 10 * x.clamp(min=_TINY) ** constants.POWER


def error(reference: Tensor, distorted: Tensor) -> Tensor:
    """The weighted sum ``(B,)`` of what differs between pictures ``(B, 3, H, W)`` in sRGB, 0 to 1.

    Sides of at least 8 pixels. 1 is a score of 84, 3 one of 69, 9 one of 41.
    """
    pair = torch.cat([_linear(reference), _linear(distorted)])
    total = pair.new_zeros(len(reference))
    levels = constants.levels(min(pair.shape[2:]))
    for scale in range(levels):
        if scale:
            pair = F.avg_pool2d(pair, 2, ceil_mode=True, count_include_pad=False)
        one, two = _xyb(pair).chunk(2)
        total = total + _scale_error(one, two, scale, levels)
    return total


def _linear(rgb: Tensor) -> Tensor:
    rgb = rgb.clamp(min=0)
    return torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def _xyb(linear: Tensor) -> Tensor:
    """Linear RGB to XYB, moved and stretched to be positive."""
    matrix = torch.tensor(constants.OPSIN, dtype=linear.dtype, device=linear.device)
    mixed = torch.einsum("oc,bchw->bohw", matrix, linear) + BIAS
    l, m, s = (mixed.clamp(min=_TINY) ** (1 / 3) - math.cbrt(BIAS)).unbind(1)  # noqa: E741 - long, medium, short
    x, y = (l - m) / 2, (l + m) / 2
    return torch.stack([x * 14 + 0.42, y + 0.01, s - y + 0.55], 1)


@cache
def _weights(scale: int, levels: int) -> Tensor:
    return _plain(constants.weights(scale, levels))


@cache
def _band() -> Tensor:
    """``(_BLOCK + 2 * RADIUS, _BLOCK)``: a row of samples times this is the row of its weighted neighbourhoods."""
    offsets = np.arange(-RADIUS, RADIUS + 1)
    kernel = np.exp(-0.5 * (offsets / SIGMA) ** 2)
    band = np.zeros((_BLOCK + 2 * RADIUS, _BLOCK))
    for column in range(_BLOCK):
        band[column : column + len(kernel), column] = kernel / kernel.sum()
    return _plain(band)


@cache
def _mirrored(length: int) -> Tensor:
    """Indexes of an axis with its borders (d c b a | a b c d | d c b a)."""
    index = np.arange(-RADIUS, length + RADIUS) % (2 * length)
    return _plain(np.where(index < length, index, 2 * length - 1 - index))


def _plain(values: NDArray[Any]) -> Tensor:
    with torch.inference_mode(False):  # cached, so not for inference alone
        return torch.from_numpy(values)


def _blur(planes: Tensor) -> Tensor:
    """Gaussian of ``(N, C, H, W)``; beyond the borders are zeros to the sides, and mirror images above and below."""
    planes = _blur_rows(F.pad(planes, (RADIUS, RADIUS)))
    planes = planes[:, :, _mirrored(planes.shape[2]).to(planes.device)]
    return _blur_rows(planes.transpose(2, 3)).transpose(2, 3)


def _blur_rows(padded: Tensor) -> Tensor:
    """Along the last axis, which is padded by ``RADIUS``. As products of matrices: the fastest way."""
    length = padded.shape[-1] - 2 * RADIUS
    blocks = F.pad(padded, (0, -length % _BLOCK)).unfold(-1, _BLOCK + 2 * RADIUS, _BLOCK)
    return torch.matmul(blocks, _band().to(padded)).flatten(-2)[..., :length]


def _scale_error(one: Tensor, two: Tensor, scale: int, levels: int) -> Tensor:
    blurred = _blur(torch.cat([one, two, one * one, two * two, one * two]))
    mean1, mean2, square1, square2, product = blurred.chunk(5)
    similarity = (1 - (mean1 - mean2).square()) * (2 * (product - mean1 * mean2) + C2)
    similarity = similarity / ((square1 - mean1.square()) + (square2 - mean2.square()) + C2)
    edges = (1 + (two - mean2).abs()) / (1 + (one - mean1).abs()) - 1
    maps = torch.stack([(1 - similarity).clamp(min=0), edges.clamp(min=0), (-edges).clamp(min=0)], 1)
    norms = [maps.mean(dim=(3, 4)), (maps.square().square().mean(dim=(3, 4)) + _TINY**4) ** 0.25]
    return (torch.stack(norms, 2) * _weights(scale, levels).to(one)).sum(dim=(1, 2, 3))
