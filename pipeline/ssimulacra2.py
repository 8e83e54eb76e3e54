"""SSIMULACRA 2.1: how much of a difference people see between two pictures (Sneyers, 2023).

Structural similarity, and edges that came or went, at six scales in the XYB colours of JPEG XL, with weights fitted to
what people said of 22 thousand pairs. 90 is visually lossless, at 80 no difference is noticed side by side, 70 is high
and 50 medium quality. The constants and the treatment of borders are those of the package ``ssimulacra2`` 0.3.0
(BSD-3-Clause), which has them from the reference implementation of Cloudinary; the test suite compares with it.

Everything is differentiable, so that codecs can learn from it.
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

from lichen.models.codec import Pixels

SCALES = 6
SMALLEST_SIDE = 8
"""Pixels a side that a scale needs; smaller pictures have no score."""

_C2 = 0.0009
_SIGMA, _RADIUS = 1.5, 5
_BLOCK = 64
_BIAS = 0.0037930732552754493
_OPSIN = (
    (0.30, 1.0 - 0.078 - 0.30, 0.078),
    (0.23, 1.0 - 0.078 - 0.23, 0.078),
    (0.24342268924547819, 0.20476744424496821, 1.0 - 0.24342268924547819 - 0.20476744424496821),
)
_WEIGHTS = (
    0.0, 0.0007376606707406586, 0.0, 0.0, 0.0007793481682867309, 0.0, 0.0, 0.0004371155730107379, 0.0,
    1.1041726426657346, 0.00066284834129271, 0.00015231632783718752, 0.0, 0.0016406437456599754, 0.0,
    1.8422455520539298, 11.441172603757666, 0.0, 0.0007989109436015163, 0.000176816438078653, 0.0, 1.8787594979546387,
    10.94906990605142, 0.0, 0.0007289346991508072, 0.9677937080626833, 0.0, 0.00014003424285435884,
    0.9981766977854967, 0.00031949755934435053, 0.0004550992113792063, 0.0, 0.0, 0.0013648766163243398, 0.0, 0.0, 0.0,
    0.0, 0.0, 7.466890328078848, 0.0, 17.445833984131262, 0.0006235601634041466, 0.0, 0.0, 6.683678146179332,
    0.00037724407979611296, 1.027889937768264, 225.20515300849274, 0.0, 0.0, 19.213238186143016,
    0.0011401524586618361, 0.001237755635509985, 176.39317598450694, 0.0, 0.0, 24.43300999870476, 0.28520802612117757,
    0.0004485436923833408, 0.0, 0.0, 0.0, 34.77906344483772, 44.835625328877896, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
    0.0, 0.0008680556573291698, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0005313191874358747, 0.0, 0.00016533814161379112, 0.0, 0.0,
    0.0, 0.0, 0.0, 0.0004179171803251336, 0.0017290828234722833, 0.0, 0.0020827005846636437, 0.0, 0.0,
    8.826982764996862, 23.19243343998926, 0.0, 95.1080498811086, 0.9863978034400682, 0.9834382792465353,
    0.0012286405048278493, 171.2667255897307, 0.9807858872435379, 0.0, 0.0, 0.0, 0.0005130064588990679, 0.0,
    0.00010854057858411537,
)  # fmt: skip
"""By channel (X, Y, B), scale, norm (mean, fourth power), and map (similarity, edges that came, edges that went)."""
_SCALE = 0.9562382616834844
_POLYNOMIAL = (2.326765642916932, -0.020884521182843837, 6.248496625763138e-05)
_POWER = 0.6276336467831387
_TINY = 1e-12


def ssimulacra2(reference: Pixels, distorted: Pixels) -> float | None:
    """The score of a picture, from below zero to 100, in ``(H, W, 3)`` uint8 sRGB; None below 8 pixels a side."""
    if min(reference.shape[:2]) < SMALLEST_SIDE:
        return None
    planes = [
        torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).double()[None] / 255
        for pixels in (reference, distorted)
    ]
    with torch.inference_mode():
        return float(score(error(*planes)))


def score(errors: Tensor) -> Tensor:
    """Scores from ``error``s."""
    a, b, c = _POLYNOMIAL
    x = errors * _SCALE
    x = a * x + b * x.square() + c * x**3
    return 100 - 10 * x.clamp(min=_TINY) ** _POWER


def error(reference: Tensor, distorted: Tensor) -> Tensor:
    """The weighted sum ``(B,)`` of what differs between pictures ``(B, 3, H, W)`` in sRGB, 0 to 1.

    Sides of at least ``SMALLEST_SIDE``. 1 is a score of 84, 3 one of 69, 9 one of 41.
    """
    pair = torch.cat([_linear(reference), _linear(distorted)])
    total = pair.new_zeros(len(reference))
    levels = _levels(min(pair.shape[2:]))
    for scale in range(levels):
        if scale:
            pair = F.avg_pool2d(pair, 2, ceil_mode=True, count_include_pad=False)
        total = total + _scale_error(*_xyb(pair).chunk(2), scale, levels)
    return total


def _levels(side: int) -> int:
    """Scales of a picture: halved while both sides hold ``SMALLEST_SIDE``."""
    count = 0
    while count < SCALES and side >= SMALLEST_SIDE:
        count, side = count + 1, -(-side // 2)
    return count


def _linear(rgb: Tensor) -> Tensor:
    rgb = rgb.clamp(min=0)
    return torch.where(rgb <= 0.04045, rgb / 12.92, ((rgb.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4)


def _xyb(linear: Tensor) -> Tensor:
    """Linear RGB to XYB, moved and stretched to be positive."""
    matrix = torch.tensor(_OPSIN, dtype=linear.dtype, device=linear.device)
    mixed = torch.einsum("oc,bchw->bohw", matrix, linear) + _BIAS
    l, m, s = (mixed.clamp(min=_TINY) ** (1 / 3) - math.cbrt(_BIAS)).unbind(1)  # noqa: E741 - long, medium, short
    x, y = (l - m) / 2, (l + m) / 2
    return torch.stack([x * 14 + 0.42, y + 0.01, s - y + 0.55], 1)


@cache
def _weights(scale: int, levels: int) -> Tensor:
    """``(3 maps, 2 norms, 3 channels)`` of one scale; with fewer scales the reference takes the first weights."""
    given = np.array(_WEIGHTS[: 3 * levels * 6]).reshape(3, levels, 2, 3)
    return _plain(np.ascontiguousarray(given[:, scale].transpose(2, 1, 0)))


@cache
def _band() -> Tensor:
    """``(_BLOCK + 2 * _RADIUS, _BLOCK)``: a row of samples times this is the row of its weighted neighbourhoods."""
    offsets = np.arange(-_RADIUS, _RADIUS + 1)
    kernel = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
    band = np.zeros((_BLOCK + 2 * _RADIUS, _BLOCK))
    for column in range(_BLOCK):
        band[column : column + len(kernel), column] = kernel / kernel.sum()
    return _plain(band)


@cache
def _mirrored(length: int) -> Tensor:
    """Indexes of an axis with its borders (d c b a | a b c d | d c b a)."""
    index = np.arange(-_RADIUS, length + _RADIUS) % (2 * length)
    return _plain(np.where(index < length, index, 2 * length - 1 - index))


def _plain(values: NDArray[Any]) -> Tensor:
    with torch.inference_mode(False):  # cached, so not for inference alone
        return torch.from_numpy(values)


def _blur(planes: Tensor) -> Tensor:
    """Gaussian of ``(N, C, H, W)``; beyond the borders are zeros to the sides, and mirror images above and below."""
    planes = _blur_rows(F.pad(planes, (_RADIUS, _RADIUS)))
    planes = planes[:, :, _mirrored(planes.shape[2]).to(planes.device)]
    return _blur_rows(planes.transpose(2, 3)).transpose(2, 3)


def _blur_rows(padded: Tensor) -> Tensor:
    """Along the last axis, which is padded by ``_RADIUS``. As products of matrices: the fastest way."""
    length = padded.shape[-1] - 2 * _RADIUS
    blocks = F.pad(padded, (0, -length % _BLOCK)).unfold(-1, _BLOCK + 2 * _RADIUS, _BLOCK)
    return torch.matmul(blocks, _band().to(padded)).flatten(-2)[..., :length]


def _scale_error(one: Tensor, two: Tensor, scale: int, levels: int) -> Tensor:
    batch = len(one)
    blurred = _blur(torch.cat([one, two, one * one, two * two, one * two]))
    mean1, mean2, square1, square2, product = blurred.split(batch)
    similarity = (1 - (mean1 - mean2).square()) * (2 * (product - mean1 * mean2) + _C2)
    similarity = similarity / ((square1 - mean1.square()) + (square2 - mean2.square()) + _C2)
    edges = (1 + (two - mean2).abs()) / (1 + (one - mean1).abs()) - 1
    maps = torch.stack([(1 - similarity).clamp(min=0), edges.clamp(min=0), (-edges).clamp(min=0)], 1)
    norms = [maps.mean(dim=(3, 4)), (maps.square().square().mean(dim=(3, 4)) + _TINY**4) ** 0.25]
    return (torch.stack(norms, 2) * _weights(scale, levels).to(one)).sum(dim=(1, 2, 3))
