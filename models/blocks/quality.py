"""Continuous quality: gains for every channel and the weight of the distortion, between the two ends of the range."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lichen.models.codec import MAX_QUALITY, MIN_QUALITY


class QualityTable(nn.Module):
    """Values for every channel at ``anchors`` equally spaced qualities, interpolated linearly between them.

    ``position`` is the quality mapped to ``[0, anchors - 1]``, one for each picture; the result is
    ``(batch, channels, 1, 1)``. Channel gains of a variable-rate codec (Cui et al., 2021) are the exponential.
    """

    def __init__(self, anchors: int, channels: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros(anchors, channels))

    def forward(self, position: Tensor) -> Tensor:
        low = position.floor().clamp(0, self.table.shape[0] - 2)
        part = (position - low).unsqueeze(1)
        index = low.long()
        value = self.table[index] * (1 - part) + self.table[index + 1] * part
        return value[:, :, None, None]


def position(quality: Tensor, anchors: int) -> Tensor:
    """Quality 1 to 100 mapped to the axis of a ``QualityTable``, 0 to ``anchors - 1``."""
    return (quality - MIN_QUALITY) * ((anchors - 1) / (MAX_QUALITY - MIN_QUALITY))


def log_weight(quality: Tensor, low: float, high: float) -> Tensor:
    """Logarithm of the weight of the distortion that belongs to a quality, linear between those of the two ends."""
    start, end = math.log(low), math.log(high)
    return start + (end - start) * (quality - MIN_QUALITY) / (MAX_QUALITY - MIN_QUALITY)
