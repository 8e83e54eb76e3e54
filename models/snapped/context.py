"""Context models: latents predicted from their decoded neighbours and the hyper-latent.

After Minnen, Balle and Toderici (NeurIPS 2018). The published order is ``serial``: every place waits for its neighbours
before it. Places that have all of theirs are coded together here (a wavefront), which changes no number.
``checkerboard`` codes in two steps (He et al., CVPR 2021).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.models.blocks.residual import conv, subpixel
from lichen.models.snapped.network import RateConfig, Step, SteppedNetwork, even_places

CONTEXTS = ("serial", "checkerboard")


class MaskedConv(nn.Conv2d):
    """A 5x5 convolution that sees only what is decoded: what comes before (serial), or the anchors (checkerboard)."""

    mask: Tensor

    def __init__(self, inputs: int, outputs: int, context: str) -> None:
        super().__init__(inputs, outputs, 5, padding=2)
        places = torch.arange(25).reshape(5, 5)
        seen = places < 12 if context == "serial" else places % 2 == 1
        self.register_buffer("mask", seen[None, None].expand(outputs, inputs, 5, 5).float())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight * self.mask, self.bias, padding=2)


class ContextNetwork(SteppedNetwork):
    """Base of the codecs with a masked 5x5 context and three 1x1 layers for scales and means."""

    h_s: nn.Module

    def __init__(self, *, latent: int, hyper: int, rates: RateConfig, context: str) -> None:
        super().__init__(latent=latent, hyper=hyper, rates=rates)
        self.context = context
        first, second = latent * 10 // 3, latent * 8 // 3
        self.context_prediction = MaskedConv(latent, 2 * latent, context)
        self.entropy_parameters = nn.Sequential(
            conv(4 * latent, first, 1, 1), nn.LeakyReLU(), conv(first, second, 1, 1), nn.LeakyReLU(),
            conv(second, 2 * latent, 1, 1),
        )  # fmt: skip

    def steps(self, height: int, width: int, device: torch.device) -> list[Step]:
        """Two steps of a checkerboard; or wavefronts: what has all of its 12 neighbours before it decoded."""
        if self.context == "checkerboard":
            anchors = even_places(height, width, device)
            return [Step(0, 0, self.latent, anchors, last=False), Step(1, 0, self.latent, ~anchors)]
        if device.type == "meta":  # where only costs are counted: every place once
            return [Step(1, 0, self.latent)]
        # a place needs the row above up to two columns to its right
        row, column = torch.arange(height, device=device)[:, None], torch.arange(width, device=device)[None, :]
        wave = column + 3 * row
        count = width + 3 * (height - 1)
        return [Step(n, 0, self.latent, wave == n, last=n == count - 1) for n in range(count)]

    def side(self, z: Tensor) -> Tensor:
        """Features of the hyper-latent."""
        features: Tensor = self.h_s(z)
        return features

    def parameters_of(self, step: Step, side: Tensor, known: Tensor) -> tuple[Tensor, Tensor, None]:
        """Scales and means; scales come first in the published network."""
        if self.context == "serial" and step.mask is not None:
            return self._at_places(step.mask, side, known)
        # nothing is known at first, and not even the bias may tell anything
        context = self.context_prediction(known) if step.number else torch.zeros_like(side)
        scale, mean = self.entropy_parameters(torch.cat([side, context], 1)).chunk(2, 1)
        return scale, mean, None

    def _at_places(self, mask: Tensor, side: Tensor, known: Tensor) -> tuple[Tensor, Tensor, None]:
        """Scales and means at the places of a wavefront only, zeros elsewhere."""
        row, column = mask.nonzero().unbind(1)
        around = torch.arange(5, device=mask.device)
        padded = F.pad(known, (2, 2, 2, 2))
        seen = padded[:, :, (row[:, None] + around)[:, :, None], (column[:, None] + around)[:, None, :]]
        layer = self.context_prediction
        assert layer.bias is not None
        context = torch.einsum("bcnij,ocij->bon", seen, layer.weight * layer.mask) + layer.bias[:, None]
        features = torch.cat([side[:, :, row, column], context], 1)[..., None]
        parameters = self.entropy_parameters(features)[..., 0]
        plane = parameters.new_zeros(*parameters.shape[:2], *mask.shape)
        plane[:, :, row, column] = parameters
        scale, mean = plane.chunk(2, 1)
        return scale, mean, None


def hyper_pair(channels: int) -> tuple[nn.Sequential, nn.Sequential]:
    """h_a and h_s of Cheng et al. (CVPR 2020), which CWAM shares."""
    c, more = channels, channels * 3 // 2
    h_a = nn.Sequential(
        conv(c, c, 3, 1), nn.LeakyReLU(), conv(c, c, 3, 1), nn.LeakyReLU(), conv(c, c, 3), nn.LeakyReLU(),
        conv(c, c, 3, 1), nn.LeakyReLU(), conv(c, c, 3),
    )  # fmt: skip
    h_s = nn.Sequential(
        conv(c, c, 3, 1), nn.LeakyReLU(), subpixel(c, c), nn.LeakyReLU(), conv(c, more, 3, 1), nn.LeakyReLU(),
        subpixel(more, more), nn.LeakyReLU(), conv(more, 2 * c, 3, 1),
    )  # fmt: skip
    return h_a, h_s
