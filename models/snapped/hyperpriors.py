"""The image codecs of CompressAI's zoo, for people who bring weights (Begaint et al., arXiv 2011.03029, 2020).

Names and shapes of the weights are CompressAI's, so that its checkpoints load. ``bmshj2018`` is Balle et al. (ICLR
2018), ``mbt2018`` Minnen, Balle and Toderici (NeurIPS 2018), ``cheng2020`` Cheng et al. (CVPR 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from lichen.errors import UsageError
from lichen.models.blocks.conv import shuffle, unshuffle
from lichen.models.blocks.dct import PATCH, STEP, dct_basis
from lichen.models.blocks.residual import (
    GDN,
    GateAttention,
    ResidualBlock,
    ResidualBlockDown,
    ResidualBlockUp,
    conv,
    deconv,
    subpixel,
)
from lichen.models.snapped.context import ContextNetwork, hyper_pair
from lichen.models.snapped.network import RateConfig, Step, SteppedNetwork

SPREAD = 4
"""Steps of a hyper-latent in those of the latent."""
QUIET = 0.02
"""Factor on the last layers of the networks beside a linear transform."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HyperpriorConfig(RateConfig):
    """Constructor arguments: ``kind`` of ``KINDS``, channels inside of the networks and of the latent.

    ``linear`` (of ``mbt2018-mean`` only) puts a linear 16x16 transform beside g_a and g_s, which starts as a DCT: that
    is ours, not CompressAI's.
    """

    system: ClassVar[str] = "compressai"

    kind: str = "mbt2018-mean"
    channels: int = 128
    latent: int = 192
    linear: bool = False


def gdn_pair(channels: int, latent: int, *, relu: bool = False) -> tuple[nn.Sequential, nn.Sequential]:
    """g_a and g_s of 5x5 convolutions with divisive normalisation, or with ReLUs instead of it."""
    n = channels
    inner: list[tuple[nn.Module, nn.Module]] = [
        (nn.ReLU(), nn.ReLU()) if relu else (GDN(n), GDN(n, inverse=True)) for _ in range(3)
    ]
    down, up = zip(*inner, strict=True)
    g_a = nn.Sequential(conv(3, n), down[0], conv(n, n), down[1], conv(n, n), down[2], conv(n, latent))
    g_s = nn.Sequential(deconv(latent, n), up[0], deconv(n, n), up[1], deconv(n, n), up[2], deconv(n, 3))
    return g_a, g_s


class Unshuffle(nn.Module):
    """Places to channels."""

    def forward(self, x: Tensor) -> Tensor:
        return unshuffle(x, SPREAD)


class Factorised(SteppedNetwork):
    """``bmshj2018-factorized`` and ``-relu``: no hyper-latent; one density for each channel of the latent.

    The latent itself is coded where other codecs have their hyper-latent, 4x4 places of it as channels.
    """

    def __init__(self, config: HyperpriorConfig) -> None:
        n, m = config.channels, config.latent
        super().__init__(latent=m, hyper=SPREAD**2 * m, rates=config, spread=SPREAD**2)
        self.config = config
        self.g_a, self.g_s = gdn_pair(n, m, relu=config.kind.endswith("-relu"))
        self.h_a = Unshuffle()

    def steps(self, _height: int, _width: int, _device: torch.device) -> list[Step]:
        """Nothing is coded in steps."""
        return []

    def side(self, z: Tensor) -> Tensor:
        """The decoded latent."""
        return shuffle(z, SPREAD)

    def start(self, side: Tensor, _shape: Sequence[int], _like: Tensor) -> Tensor:
        """The decoded latent, all of which is known before the first step."""
        return side


class ScaleHyperprior(SteppedNetwork):
    """``bmshj2018-hyperprior``: scales from the hyper-latent, no means."""

    def __init__(self, config: HyperpriorConfig) -> None:
        n, m = config.channels, config.latent
        super().__init__(latent=m, hyper=n, rates=config)
        self.config = config
        self.g_a, self.g_s = gdn_pair(n, m)
        self.h_a = nn.Sequential(_Magnitude(m, n), nn.ReLU(), conv(n, n), nn.ReLU(), conv(n, n))
        self.h_s = nn.Sequential(deconv(n, n), nn.ReLU(), deconv(n, n), nn.ReLU(), conv(n, m, 3, 1), nn.ReLU())

    def side(self, z: Tensor) -> Tensor:
        """The scales of the latent."""
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
        self.g_a: nn.Sequential
        self.g_s: nn.Sequential
        self.g_a, self.g_s = gdn_pair(n, m)
        self.h_a, self.h_s = _mean_scale_pair(n, m)
        self.linear = config.linear
        if config.linear:
            self.encoder = (*self.encoder, "linear_a")
            self.transforms = (*self.transforms, "linear_s")
            self.linear_a = nn.Conv2d(3 * PATCH * PATCH, m, 1, bias=False)
            self.linear_s = nn.Conv2d(m, 3 * PATCH * PATCH, 1, bias=False)
            self._start_as_dct(m)

    @torch.no_grad()
    def _start_as_dct(self, latent: int) -> None:
        chroma = latent // 5
        if latent - 2 * chroma > PATCH**2:
            raise UsageError(f"a linear transform has no {latent} channels")
        basis = dct_basis(latent - 2 * chroma, chroma)
        self.linear_a.weight.copy_(basis[:, :, None, None])
        self.linear_s.weight.copy_(basis.T[:, :, None, None])
        for network in (self.g_a, self.g_s):
            for parameter in network[-1].parameters():
                parameter.mul_(QUIET)
        if self.rates.anchors:  # steps of a transform coder, by theory
            gain = -torch.log(STEP / 255 / self.anchor_weights().sqrt())[:, None].expand(-1, latent)
            self.gain.table.copy_(gain)
            self.inverse.table.copy_(-gain)

    def analyse(self, x: Tensor) -> Tensor:
        """The latent of pictures."""
        y: Tensor = self.g_a(x)
        return y + self.linear_a(unshuffle(x - 0.5, PATCH)) if self.linear else y

    def synthesise(self, y: Tensor) -> Tensor:
        """Pictures from decoded latents."""
        x: Tensor = self.g_s(y)
        return x + shuffle(self.linear_s(y), PATCH) + 0.5 if self.linear else x

    def side(self, z: Tensor) -> Tensor:
        """Scales and means of the latent, side by side."""
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
    "bmshj2018-factorized": Factorised,
    "bmshj2018-factorized-relu": Factorised,
    "bmshj2018-hyperprior": ScaleHyperprior,
    "mbt2018-mean": MeanScaleHyperprior,
    "mbt2018": JointContext,
    "cheng2020-anchor": Cheng2020,
    "cheng2020-attn": Cheng2020,
}


def hyperprior(config: HyperpriorConfig) -> SteppedNetwork:
    """The network of a kind. Raises ``UsageError``."""
    if config.linear and config.kind != "mbt2018-mean":
        raise UsageError(f"{config.kind} has no linear transform beside its networks")
    return KINDS[config.kind](config)


def _mean_scale_pair(n: int, m: int) -> tuple[nn.Sequential, nn.Sequential]:
    h_a = nn.Sequential(conv(m, n, 3, 1), nn.LeakyReLU(), conv(n, n), nn.LeakyReLU(), conv(n, n))
    h_s = nn.Sequential(
        deconv(n, m), nn.LeakyReLU(), deconv(m, m * 3 // 2), nn.LeakyReLU(), conv(m * 3 // 2, 2 * m, 3, 1)
    )
    return h_a, h_s
