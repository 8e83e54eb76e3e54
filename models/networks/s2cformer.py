"""S2C-Conv: S2CFormer with the separable-convolution operator (Chen et al., arXiv 2502.00700, 2025).

The blocks are the paper's family (separable-convolution mixer, gated feed-forward channel aggregation). Ours
are the sizes, the linear DCT path beside the networks, the straight step to 1/8 by space to depth
(as in DCVC-RT), the decoupled entropy model and the continuous quality.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lichen.models.codec import MAX_QUALITY, MIN_QUALITY
from lichen.models.networks.hyperprior import EntropyModel
from lichen.models.networks.transforms import Analysis, Synthesis


@dataclass(frozen=True, kw_only=True, slots=True)
class S2CConvConfig:
    """Constructor arguments of ``S2CConv``. ``luma + 2 * chroma`` is the number of latent channels."""

    luma: int = 208
    chroma: int = 56
    width: int = 144
    depth: int = 4
    expansion: int = 2
    hyper: int = 128
    hidden: int = 128
    features: int = 128
    context: int = 192
    anchors: int = 8
    lambda_min: float = 0.0018
    lambda_max: float = 0.15

    @property
    def latent(self) -> int:
        return self.luma + 2 * self.chroma


class S2CConv(nn.Module):
    """The variable-rate codec network. RGB in [0, 1], sides multiples of 64."""

    def __init__(self, config: S2CConvConfig) -> None:
        super().__init__()
        self.config = config
        c = config
        self.g_a = Analysis(c.latent, c.width, c.depth, c.expansion, c.anchors)
        self.g_s = Synthesis(c.latent, c.width, c.depth, c.expansion, c.anchors)
        self.entropy = EntropyModel(c.latent, c.hyper, c.hidden, c.features, c.context, c.anchors)

    def position(self, quality: Tensor) -> Tensor:
        """Quality 1 to 100 mapped to the axis of the quality tables, 0 to ``anchors - 1``."""
        return (quality - MIN_QUALITY) * ((self.config.anchors - 1) / (MAX_QUALITY - MIN_QUALITY))

    def lagrangian(self, quality: Tensor) -> Tensor:
        """The weight of the distortion that belongs to a quality, log-linear between the two ends."""
        low, high = math.log(self.config.lambda_min), math.log(self.config.lambda_max)
        return torch.exp(low + (high - low) * (quality - MIN_QUALITY) / (MAX_QUALITY - MIN_QUALITY))

    def forward(self, x: Tensor, quality: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, 3, H, W)`` pictures and ``(B,)`` qualities to reconstruction, bits of y and bits of z (``(B,)``)."""
        position = self.position(quality)
        y_hat, y_bits, z_bits = self.entropy(self.g_a(x, position), position)
        return self.g_s(y_hat, position), y_bits, z_bits
