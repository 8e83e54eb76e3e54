"""Codecs whose entropy parameters depend on what is already decoded: channel slices, checkerboards, serial contexts.

A network of this kind says in which steps its latent is coded, what scale and mean each step's latents have, given
what is decoded, and what is added to them afterwards. ``forward`` trains it;
``lichen.models.snapped.codec`` codes with it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from lichen.models.blocks.conv import full_precision
from lichen.models.blocks.network import Config, TrainableNetwork
from lichen.models.blocks.quality import QualityTable, log_weight, position
from lichen.models.blocks.rounding import bounded, noisy, rounded
from lichen.models.codec import MAX_QUALITY, MIN_QUALITY
from lichen.models.snapped.factorised import FactorisedPrior
from lichen.models.snapped.tables import SCALE_MIN

LIKELIHOOD_MIN = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """Some channels of the latent, at some places: ``mask`` boolean ``(h, w)``, None for all of them.

    ``number`` tells a network's steps apart; ``last`` says that all of these channels are then decoded.
    """

    number: int
    start: int
    stop: int
    mask: Tensor | None = None
    last: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class RateConfig(Config):
    """The rate of a network: ``weight`` of the distortion (lambda).

    With ``anchors`` (two or more) the quality is continuous: gains for every latent channel, interpolated between
    ``anchors`` qualities (Cui et al., CVPR 2021), for weights from ``weight`` up to ``weight_max``. Published weights
    have one rate.
    """

    scheme: ClassVar[str] = "snapped"

    weight: float = 0.013
    anchors: int = 0
    weight_max: float = 0.15

    @property
    def continuous(self) -> bool:
        return self.anchors > 0


class SteppedNetwork(TrainableNetwork):
    """Base of the published codecs. RGB in [0, 1], sides multiples of ``grid``; latent at 1/16, hyper-latent 1/64."""

    noise = 1e-6
    """Snapped decisions bear what stays below the guard (``lichen.models.snapped.snapping``)."""
    encoder: tuple[str, ...] = ("g_a", "h_a")
    """Modules that only an encoder needs, by name."""
    transforms: tuple[str, ...] = ("g_s",)
    """Modules of the decoder's transform; all others belong to the entropy model."""
    g_a: nn.Module
    g_s: nn.Module
    h_a: nn.Module
    entropy_bottleneck: FactorisedPrior

    def __init__(self, latent: int, hyper: int, rates: RateConfig, *, spread: int = 1) -> None:
        super().__init__()
        self.latent, self.hyper, self.rates = latent, hyper, rates
        self.entropy_bottleneck = FactorisedPrior(hyper, spread)
        if rates.anchors:
            self.gain, self.inverse = QualityTable(rates.anchors, latent), QualityTable(rates.anchors, latent)
            self.encoder = (*self.encoder, "gain")
            self.transforms = (*self.transforms, "inverse")
            # steps are inversely proportional to the root of the weight
            start = 0.5 * (self.anchor_weights() / rates.weight).log()[:, None]
            with torch.no_grad():
                self.gain.table.add_(start)
                self.inverse.table.sub_(start)

    def entropy_modules(self) -> list[nn.Module]:
        """The modules of the entropy model, as far as decoding needs them."""
        apart = {self.get_submodule(name) for name in self.encoder + self.transforms}
        return [module for module in self.children() if module not in apart and not apart & set(module.modules())]

    def analyse(self, x: Tensor) -> Tensor:
        """The latent of pictures."""
        y: Tensor = self.g_a(x)
        return y

    def synthesise(self, y: Tensor) -> Tensor:
        """Pictures from decoded latents."""
        x: Tensor = self.g_s(y)
        return x

    def latent_of(self, x: Tensor, quality: Tensor) -> Tensor:
        """The latent as it is coded at qualities ``(B,)``."""
        y = self.analyse(x)
        return y * self.gain(self._position(quality)).exp() if self.rates.anchors else y

    def picture_of(self, y: Tensor, quality: Tensor) -> Tensor:
        """Pictures from latents that were coded at these qualities."""
        if self.rates.anchors:
            y = y * self.inverse(self._position(quality)).exp()
        return self.synthesise(y)

    def _position(self, quality: Tensor) -> Tensor:
        return position(quality, self.rates.anchors)

    def anchor_weights(self) -> Tensor:
        """The weight of the distortion at each anchor of a continuous quality."""
        return self.lagrangian(torch.linspace(MIN_QUALITY, MAX_QUALITY, self.rates.anchors))

    def steps(self, _height: int, _width: int, _device: torch.device) -> list[Step]:
        """The steps of a latent ``(latent, height, width)``: by default all at once."""
        return [Step(0, 0, self.latent)]

    def side(self, z: Tensor) -> Any:
        """What the steps need of the decoded hyper-latent."""
        raise NotImplementedError

    def start(self, _side: Any, shape: Sequence[int], like: Tensor) -> Tensor:
        """The decoded latent before the first step, of the given shape: zeros."""
        return like.new_zeros(tuple(shape))

    def parameters_of(self, step: Step, side: Any, known: Tensor) -> tuple[Tensor, Tensor, Any]:
        """Scales and means ``(B, stop - start, h, w)`` of a step, and what ``refine`` needs."""
        raise NotImplementedError

    def refine(self, _step: Step, _support: Any, _decoded: Tensor) -> Tensor | None:
        """What is added to the decoded channels of a ``last`` step, or nothing."""
        return None

    def lagrangian(self, quality: Tensor) -> Tensor:
        """The weight of the distortion: of a network with one rate the same whatever the quality."""
        if not self.rates.anchors:
            return torch.full_like(quality, self.rates.weight)
        return log_weight(quality, self.rates.weight, self.rates.weight_max).exp()

    def forward(self, x: Tensor, quality: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, 3, H, W)`` pictures to reconstruction, bits of y and bits of z (``(B,)``), for training.

        Rates are those of noisy latents, reconstructions of rounded ones (Minnen and Singh, ICIP 2020).
        """
        y = self.latent_of(x, quality).float()
        z = self.h_a(y).float()
        medians = self.entropy_bottleneck.medians[:, None, None]
        z_hat = rounded(z - medians) + medians
        z_bits = self.entropy_bottleneck.bits(noisy(z) if self.training else z_hat)
        side = self.side(z_hat)
        known, residual, scales = self.start(side, y.shape, y), torch.zeros_like(y), torch.ones_like(y)
        for step in self.steps(y.shape[2], y.shape[3], y.device):
            channels = slice(step.start, step.stop)
            scale, mean, support = self.parameters_of(step, side, known)
            scale, mean = scale.float(), mean.float()
            part = y[:, channels] - mean
            decoded = rounded(part) + mean
            parts = {"known": decoded, "residual": part, "scales": scale}
            if step.mask is not None:
                planes = {"known": known, "residual": residual, "scales": scales}
                parts = {n: torch.where(step.mask, p, planes[n][:, channels]) for n, p in parts.items()}
            if step.last:
                correction = self.refine(step, support, parts["known"])
                if correction is not None:
                    parts["known"] = parts["known"] + correction
            known = _replaced(known, step, parts["known"])
            residual = _replaced(residual, step, parts["residual"])
            scales = _replaced(scales, step, parts["scales"])
        bits = gaussian_bits(noisy(residual) if self.training else residual.round(), scales)
        return self.picture_of(known, quality), bits.sum(dim=(1, 2, 3)), z_bits.sum(dim=(1, 2, 3))


def gaussian_bits(residual: Tensor, scale: Tensor) -> Tensor:
    """Bits of unit intervals around ``residual`` under zero-mean Gaussians, whose scale is at least ``SCALE_MIN``."""
    with full_precision(residual.device):
        inverse = 1 / (bounded(scale, SCALE_MIN) * math.sqrt(2))
        size = residual.abs()
        likelihood = 0.5 * (torch.erfc((size - 0.5) * inverse) - torch.erfc((size + 0.5) * inverse))
        return -torch.log2(bounded(likelihood, LIKELIHOOD_MIN))


def even_places(height: int, width: int, device: torch.device) -> Tensor:
    """The anchors of a checkerboard: boolean ``(height, width)``, true where row and column have an even sum."""
    return (torch.arange(height, device=device)[:, None] + torch.arange(width, device=device)[None, :]) % 2 == 0


def _replaced(plane: Tensor, step: Step, part: Tensor) -> Tensor:
    return torch.cat([plane[:, : step.start], part, plane[:, step.stop :]], 1)


def parameter_net(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    """Three convolutions through 224 and 128 channels, with GELUs."""
    sizes = (inputs, 224, 128, outputs)
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Conv2d(before, after, kernel, padding=kernel // 2), nn.GELU()]
    return nn.Sequential(*layers[:-1])
