"""The image codecs of CompressAI's zoo, for people who bring weights (Begaint et al., arXiv 2011.03029, 2020).

Names and shapes of the weights are CompressAI's, so that its checkpoints load. ``bmshj2018`` is Balle et al. (ICLR
2018), ``mbt2018`` Minnen, Balle and Toderici (NeurIPS 2018), ``cheng2020`` Cheng et al. (CVPR 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lichen.models.networks.context import ContextNetwork, hyper_pair
from lichen.models.networks.layers import (
    GDN,
    GateAttention,
    ResidualBlock,
    ResidualBlockDown,
    ResidualBlockUp,
    conv,
    deconv,
    subpixel,
)
from lichen.models.networks.stepped import RateConfig, Step, SteppedNetwork


@dataclass(frozen=True, kw_only=True, slots=True)
class HyperpriorConfig(RateConfig):
    """Constructor arguments: ``kind`` of ``KINDS``, channels inside of the networks and of the latent."""

    kind: str = "mbt2018-mean"
    channels: int = 128
    latent: int = 192


def gdn_pair(channels: int, latent: int) -> tuple[nn.Sequential, nn.Sequential]:
    """g_a and g_s of 5x5 convolutions with divisive normalisation."""
    n = channels
    g_a = nn.Sequential(conv(3, n), GDN(n), conv(n, n), GDN(n), conv(n, n), GDN(n), conv(n, latent))
    g_s = nn.Sequential(
        deconv(latent, n), GDN(n, inverse=True), deconv(n, n), GDN(n, inverse=True),
        deconv(n, n), GDN(n, inverse=True), deconv(n, 3),
    )  # fmt: skip
    return g_a, g_s


class ScaleHyperprior(SteppedNetwork):
    """``bmshj2018-hyperprior``: scales from the hyper-latent, no means."""

    def __init__(self, config: HyperpriorConfig) -> None:
        n, m = config.channels, config.latent
        super().__init__(latent=m, hyper=n, rates=config)
        self.config = config
        self.g_a, self.g_s = gdn_pair(n, m)
        self.h_a = nn.Sequential(_Magnitude(m, n), nn.ReLU(), conv(n, n), nn.ReLU(), conv(n, n))
        self.h_s = nn.Sequential(deconv(n, n), nn.ReLU(), deconv(n, n), nn.ReLU(), conv(n, m, 3, 1), nn.ReLU())

    def steps(self, _height: int, _width: int, _device: torch.device) -> list[Step]:
        """All at once."""
        return [Step(0, 0, self.latent)]

    def side(self, z: Tensor) -> Tensor:
        """Scales."""
        scales: Tensor = self.h_s(z)
        return scales

    def parameters_of(self, _step: Step, side: Tensor, _known: Tensor) -> tuple[Tensor, Tensor, None]:
        """Scales, and means of zero."""
        return side, torch.zeros_like(side), None


class _Magnitude(nn.Conv2d):
    """The first layer of a hyper-analysis that sees magnitudes only."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.abs())


class MeanScaleHyperprior(SteppedNetwork):
    """``mbt2018-mean``: scales and means from the hyper-latent."""

    def __init__(self, config: HyperpriorConfig) -> None:
        n, m = config.channels, config.latent
        super().__init__(latent=m, hyper=n, rates=config)
        self.config = config
        self.g_a, self.g_s = gdn_pair(n, m)
        self.h_a, self.h_s = _mean_scale_pair(n, m)

    def steps(self, _height: int, _width: int, _device: torch.device) -> list[Step]:
        """All at once."""
        return [Step(0, 0, self.latent)]

    def side(self, z: Tensor) -> Tensor:
        """Scales and means."""
        parameters: Tensor = self.h_s(z)
        return parameters

    def parameters_of(self, _step: Step, side: Tensor, _known: Tensor) -> tuple[Tensor, Tensor, None]:
        """Scales and means, as they are."""
        scale, mean = side.chunk(2, 1)
        return scale, mean, None


class JointContext(ContextNetwork):
    """``mbt2018``: as the one before, with a serial context."""

    def __init__(self, config: HyperpriorConfig) -> None:
        n, m = config.channels, config.latent
        super().__init__(latent=m, hyper=n, rates=config, context="serial")
        self.config = config
        self.g_a, self.g_s = gdn_pair(n, m)
        self.h_a, self.h_s = _mean_scale_pair(n, m)


class Cheng2020(ContextNetwork):
    """``cheng2020-anchor`` and ``cheng2020-attn``: residual blocks, with and without attention."""

    def __init__(self, config: HyperpriorConfig) -> None:
        n = config.channels
        super().__init__(latent=n, hyper=n, rates=config, context="serial")
        self.config = config
        gate = [GateAttention] if config.kind == "cheng2020-attn" else []
        self.g_a = nn.Sequential(
            ResidualBlockDown(3, n), ResidualBlock(n), ResidualBlockDown(n, n), *(g(n) for g in gate), ResidualBlock(n),
            ResidualBlockDown(n, n), ResidualBlock(n), conv(n, n, 3), *(g(n) for g in gate),
        )  # fmt: skip
        self.g_s = nn.Sequential(
            *(g(n) for g in gate), ResidualBlock(n), ResidualBlockUp(n, n), ResidualBlock(n), ResidualBlockUp(n, n),
            *(g(n) for g in gate), ResidualBlock(n), ResidualBlockUp(n, n), ResidualBlock(n), subpixel(n, 3),
        )  # fmt: skip
        self.h_a, self.h_s = hyper_pair(n)


KINDS = {
    "bmshj2018-hyperprior": ScaleHyperprior,
    "mbt2018-mean": MeanScaleHyperprior,
    "mbt2018": JointContext,
    "cheng2020-anchor": Cheng2020,
    "cheng2020-attn": Cheng2020,
}


def hyperprior(config: HyperpriorConfig) -> SteppedNetwork:
    """The network of a kind."""
    return KINDS[config.kind](config)


def _mean_scale_pair(n: int, m: int) -> tuple[nn.Sequential, nn.Sequential]:
    h_a = nn.Sequential(conv(m, n, 3, 1), nn.LeakyReLU(), conv(n, n), nn.LeakyReLU(), conv(n, n))
    h_s = nn.Sequential(
        deconv(n, m), nn.LeakyReLU(), deconv(m, m * 3 // 2), nn.LeakyReLU(), conv(m * 3 // 2, 2 * m, 3, 1)
    )
    return h_a, h_s
