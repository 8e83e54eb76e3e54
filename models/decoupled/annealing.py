"""Latents chosen for a picture: the encoder spends time, the decoder and the bitstream know nothing of it.

What g_a gives is a guess; here each integer of a latent is changed by one where that lowers the rate-distortion cost
through the frozen decoder (after Campos et al., CVPR workshops 2019, and Yang, Bamler and Mandt, NeurIPS 2020, who
move continuous latents by many small steps). A pass takes the gradient of the distortion with respect to all latents
at once, adds what the change of an integer costs in curvature and saves in bits, and takes the changes that pay, in
the manner of a checkerboard so that neighbours do not correct the same error twice. The curvature (Gauss-Newton) is
estimated once for each channel from one random projection (``_seen_curvature`` says how for what people see). Many
changes at once still disturb each other: by how much more the distortion rose than the curvature had said is seen in
the next pass, picture by picture, and the curvature is multiplied with that; with a little less in early passes, which
leave poor minima, and a little more in late ones, which settle, as in annealing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lichen.models.decoupled.entropy_model import EntropyModel, logistic_bits, quantise, rounding_offset
from lichen.models.decoupled.network import CodecNetwork
from lichen.models.device import Device
from lichen.models.entropy.tables import SYMBOL_LIMIT
from lichen.models.perceptual.distortion import Mix
from lichen.models.planes import Plan, Window, tiles

PASSES: Sequence[int] = (0, 0, 0, 4, 8, 16, 32, 64, 128)
"""Passes at effort 1 to 9."""
DISTURBANCE = 2.2
"""How much larger than its diagonal the curvature is along many changes at once, before it has been seen."""
LEAST_DISTURBANCE, MOST_DISTURBANCE = 1.0, 6.0
LAST_MARGIN = 1.1
"""Factor on the curvature in the last pass; ``_first_margin`` is that in the first."""
PROBES, PROBED, RARE = 2, 0.2, 1.2816
"""How often the curvature of a perceptual measure is looked for, and the part of the integers that change in each,
which are those whose draw from a normal distribution is that far from zero."""
LEAST_BEND = 0.1
"""The smallest curvature of a place, as a part of the mean."""
SIDE = 512
"""Pixels of the windows of a large picture that are worked on one after another."""
HALO = 64
WHOLE_PIXELS = 1 << 19
"""Pictures of up to this many pixels are worked on as a whole, and together with others up to this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Pictures of one size, or windows of them, with what the hyper-latent has fixed.

    ``x`` ``(N, 3, H, W)`` in [0, 1]; ``y`` their latents ``(N, C, H/16, W/16)``; ``z`` the dequantised hyper-latent
    ``(N, hyper, H/64, W/64)``; ``log_scale`` and ``coded`` like ``y``: the scale of each latent's table, and whether
    it is coded at all; ``quality`` and ``position`` ``(N,)``.
    """

    x: Tensor
    y: Tensor
    z: Tensor
    log_scale: Tensor
    coded: Tensor
    quality: Tensor
    position: Tensor


def anneal(network: CodecNetwork, task: Task, passes: int, device: Device, mix: Mix) -> Tensor:
    """Latents that cost less than ``task.y``: quantised by the encoder they become the integers found here.

    ``mix`` is what counts as distortion.
    """
    with torch.inference_mode(False):  # gradients flow through copies only
        own = Task(**{name: getattr(task, name).clone() for name in Task.__slots__})
        return _Annealer(network, own, device, mix).run(passes)


def windows(pictures: int, plan: Plan) -> Iterator[tuple[slice, Window]]:
    """Which pictures of a batch go together, and by which windows."""
    size = plan.height * plan.width
    together = max(1, WHOLE_PIXELS // size)
    for first in range(0, pictures, together):
        for window in tiles(plan.height, plan.width, SIDE if size > WHOLE_PIXELS else 0):
            yield slice(first, first + together), window


class _Annealer:
    """The work on one task. Symbols, residuals and changes are in quantisation steps, costs in bits of a picture."""

    @torch.no_grad()
    def __init__(self, network: CodecNetwork, task: Task, device: Device, mix: Mix) -> None:
        self.network, self.task, self.device, self.mix = network, task, device, mix
        model = network.entropy
        features = model.means.hyper_features(task.z)
        self.first, self.side = model.means.first(features), model.means.features(features)
        self.gain = model.gain(task.position)
        self.down = (model.shrink(task.position) - self.gain).exp()
        self.offset = rounding_offset(task.log_scale)
        pixels = task.x.shape[2] * task.x.shape[3]
        self.weight = network.lagrangian(task.quality) * pixels

    @torch.no_grad()
    def run(self, passes: int) -> Tensor:
        """``passes`` changes and one look at the last; the cheapest latents of each picture."""
        up = self.gain.exp()
        scaled = self.task.y * up
        best, least = scaled, torch.full((len(scaled),), math.inf, device=scaled.device)
        bend: Tensor | None = None
        disturbance = torch.full_like(least, DISTURBANCE)
        first = _first_margin(passes)
        linear = squared = None
        for number in range(passes + 1):
            latent, residual, symbols = self._decoded(scaled)
            last = number == passes
            x, error = self._distorted(latent, graph=not last)
            distortion = error.detach()
            bits = self._bits(symbols)
            cost = distortion + bits.sum(dim=(1, 2, 3))
            best = torch.where((cost < least)[:, None, None, None], scaled, best)
            least = torch.minimum(cost, least)
            if linear is not None and squared is not None:
                seen = (distortion - linear) / squared.clamp(min=1e-6)
                disturbance = seen.clamp(LEAST_DISTURBANCE, MOST_DISTURBANCE)
            if not last:
                bend = 0.5 * self._curvature(x, latent) if bend is None else bend
                slope = self._slope(error, latent)
                margin = first + (LAST_MARGIN - first) * number / max(1, passes - 1)
                change = self._change(symbols, bits, slope, margin * disturbance[:, None, None, None] * bend)
                change = torch.where(_parity(scaled, number), change, 0)
                linear = distortion + (slope * change).sum(dim=(1, 2, 3))
                squared = (bend * change.square()).sum(dim=(1, 2, 3))
                scaled = torch.where(change != 0, scaled - residual + symbols + change, scaled)
        latents: Tensor = best / up
        return latents

    def _decoded(self, scaled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        model: EntropyModel = self.network.entropy
        return model.refined(scaled, self.first, self.side, (self.gain, self.down), self.task.position, self._integers)

    def _integers(self, residual: Tensor) -> Tensor:
        symbols = quantise(residual, self.offset).clamp(-SYMBOL_LIMIT, SYMBOL_LIMIT)
        return torch.where(self.task.coded, symbols, 0)

    def _distorted(self, latent: Tensor, *, graph: bool) -> tuple[Tensor, Tensor]:
        """The decoded pictures and the weighted distortion of each, with the graph to the latents if asked for."""
        latent.requires_grad_(graph)
        with torch.set_grad_enabled(graph):
            with self.device.autocast():
                x = self.network.g_s(latent, self.task.position)
            shown = x.float()
            if self.mix.perceptual:  # where a picture is flat, what bytes cannot hold would count
                shown = shown + ((255 * shown.detach().clamp(0, 1)).round() / 255 - shown.detach())
            return x, self.weight * self.mix.distortion(shown, self.task.x)

    def _slope(self, distortion: Tensor, latent: Tensor) -> Tensor:
        """The slope of the distortion along each symbol. Means are taken as fixed."""
        with torch.enable_grad():
            (slope,) = torch.autograd.grad(distortion.sum(), [latent])
        along: Tensor = slope * self.down
        return along

    def _bits(self, symbols: Tensor) -> Tensor:
        return torch.where(self.task.coded, logistic_bits(symbols, self.task.log_scale), 0)

    def _curvature(self, x: Tensor, latent: Tensor) -> Tensor:
        """Second derivative of the distortion along each latent, broadcast to ``(N, C, H/16, W/16)``."""
        if self.mix.perceptual:
            return self._seen_curvature(latent.detach())
        with torch.enable_grad():
            (projected,) = torch.autograd.grad((x * self._random(x)).sum(), [latent], retain_graph=True)
        squares = (projected.float() * self.down).square().mean(dim=(2, 3), keepdim=True)
        curvature: Tensor = squares * (2 * 255**2 * self.weight / x[0].numel())[:, None, None, None]
        return curvature

    def _seen_curvature(self, latent: Tensor) -> Tensor:
        """The bend of what people see, which depends on the place, on what a change looks like and on its size.

        It is taken from how the slopes differ between many integers changed up and down, which is Hutchinson's estimate
        of a diagonal: too noisy for each latent, so a mean by channel times one by place stands for it.
        """
        total = torch.zeros_like(latent)
        for seed in range(PROBES):
            draws = self._random(latent, seed)
            changes = (draws > RARE).to(latent.dtype) - (draws < -RARE).to(latent.dtype)
            slopes = []
            for sign in (1, -1):
                moved = latent + sign * changes * self.down
                _, error = self._distorted(moved, graph=True)
                slopes.append(self._slope(error, moved))
            total += changes * (slopes[0] - slopes[1]) / (2 * PROBES * PROBED)
        by_place = F.avg_pool2d(total.sum(dim=1, keepdim=True), 3, stride=1, padding=1, count_include_pad=False)
        by_place = by_place / by_place.mean(dim=(2, 3), keepdim=True).clamp(min=1e-9)
        return total.mean(dim=(2, 3), keepdim=True).clamp(min=0) * by_place.clamp(min=LEAST_BEND)

    def _random(self, like: Tensor, seed: int = 1) -> Tensor:
        """Samples of a normal distribution, the same for the same picture every time."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(like.shape, generator=generator).to(like.device, like.dtype)

    def _change(self, symbols: Tensor, bits: Tensor, slope: Tensor, bend: Tensor) -> Tensor:
        """For each integer the change by one that lowers the cost most, or zero."""
        change, least = torch.zeros_like(symbols), torch.zeros_like(symbols)
        for step in (-1.0, 1.0):
            cost = step * slope + bend + logistic_bits(symbols + step, self.task.log_scale) - bits
            lower = cost < least
            least = torch.where(lower, cost, least)
            change = torch.where(lower, step, change)
        return torch.where(self.task.coded & (symbols.abs() < SYMBOL_LIMIT), change, 0)


def _first_margin(passes: int) -> float:
    """The more passes there are, the further they may go astray at first: 0.8 for 4, 0.7 for 8, 0.6 for 16."""
    return max(0.5, 1.0 - 0.1 * math.log2(passes))


def _parity(latent: Tensor, number: int) -> Tensor:
    """Every other latent, in space and across channels: the others in the next pass."""
    _, channels, height, width = latent.shape
    device = latent.device
    places = torch.arange(height, device=device)[:, None] + torch.arange(width, device=device)
    return (torch.arange(channels, device=device)[:, None, None] + places + number) % 2 == 0
