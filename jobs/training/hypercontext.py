"""Fits the context of the hyper-latent to a trained network: the last thing that is learnt, in a minute or so.

The network stays as it is. Its hyper-latents of random crops at random qualities are taken once; then two small layers
learn to predict every symbol from its neighbours, and become the integers of ``lichen.models.decoupled.hypercontext``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pad

from lichen.jobs.training.data import CropSampler, PictureCache, middles, split
from lichen.models.blocks.network import TrainableNetwork
from lichen.models.codec import MAX_QUALITY, MIN_QUALITY
from lichen.models.decoupled.entropy_model import (
    HYPER_RATE_WEIGHT,
    LOG_STEP,
    SCALE_MIN,
    SCALE_SLOPE,
    Z_STEP_MIN,
    logistic_bits,
    quantise,
    rounding_offset,
    symbol_scale,
)
from lichen.models.decoupled.fixedpoint import UNIT
from lichen.models.decoupled.freezing import coder_tables, integer_context
from lichen.models.decoupled.hypercontext import INPUT_UNIT, LARGEST, NEIGHBOURS, HyperContext
from lichen.models.decoupled.network import CodecNetwork

HIDDEN = 64
CROPS, SIDE = 1000, 512
"""Crops that hyper-latents are taken of, and their side in pixels at most."""
PASSES, BATCH, RATE = 10, 1024, 3e-3
"""Passes over all positions, positions in a step, and the learning rate, which falls linearly to nothing."""


@dataclass(frozen=True, slots=True)
class Symbols:
    """Hyper-latent symbols at ``n`` positions: int16 ``own`` ``(n, hyper)`` and ``around`` ``(n, 3, hyper)``, and the
    log scales that they have without a context, float32 ``(n, hyper)``."""

    own: Tensor
    around: Tensor
    log_scale: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedContext:
    """``context`` is None where it saves nothing on the pictures held out. Bits are means of theirs for a position, all
    channels together."""

    context: HyperContext | None
    bits_without: float
    bits_with: float

    @property
    def saved(self) -> float:
        """Part of the hyper-latent's bits that the context saves."""
        return 1 - self.bits_with / self.bits_without if self.context is not None else 0.0


def fit_context(
    network: TrainableNetwork, pictures: PictureCache, validation: int, *, crops: int = CROPS, seed: int = 1
) -> FittedContext:
    """The context of a network's hyper-latent, fitted to ``crops`` crops of the training pictures.

    The network is one of a scheme that has a use for it (``Scheme.fits_context``).
    ``validation`` pictures are held out, as in training, and decide whether it is worth having.
    """
    torch.manual_seed(seed)
    model = cast(CodecNetwork, network)
    training, held = split(pictures, validation)
    sides = [min(pictures.sizes[i]) for i in training]
    side = min(SIDE, max(sides)) // network.grid * network.grid
    sampler = CropSampler(pictures, training, seed)
    given = _gather(model, [torch.from_numpy(sampler.batch(1, side)) for _ in range(crops)], seed)
    repeats = -(-crops // (8 * len(held)))
    unseen = _gather(model, middles(pictures, held, network.grid) * repeats, seed + 1)

    hyper = given.own.shape[1]
    hidden, head = nn.Linear(2 * NEIGHBOURS * hyper, HIDDEN), nn.Linear(HIDDEN, 2 * hyper)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimiser = torch.optim.Adam([*hidden.parameters(), *head.parameters()], lr=RATE)
    everything, count = torch.arange(len(unseen.own)), len(given.own)
    with torch.no_grad():
        before = _bits(unseen, everything, hidden, head).item()
    steps = max(1, PASSES * count // BATCH)
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.0, steps)
    for step in range(steps):
        if step * BATCH % count < BATCH:
            order = torch.randperm(count)
        at = step * BATCH % count
        loss = _bits(given, order[at : at + BATCH], hidden, head)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        after = _bits(unseen, everything, hidden, head).item()
    context = integer_context(hidden, head) if after < before else None
    return FittedContext(context=context, bits_without=before, bits_with=after)


def _bits(symbols: Symbols, chosen: Tensor, hidden: nn.Linear, head: nn.Linear) -> Tensor:
    """Mean bits of a position, all channels together."""
    near = symbols.around[chosen].clamp(-LARGEST, LARGEST).flatten(1).float() * (INPUT_UNIT / UNIT)
    x = head(leaky_relu(hidden(torch.cat([near, near.abs()], dim=1)), SCALE_SLOPE))
    mean, growth = x.chunk(2, dim=1)
    plain = symbols.log_scale[chosen]
    bits = logistic_bits(symbols.own[chosen].float() - mean, symbol_scale(plain, growth))
    return torch.where(plain >= _first_coded(), bits, 0).sum(1).mean()


@cache
def _first_coded() -> float:
    """The log scale from which on a channel is coded; below, its symbols are zero and take no bits."""
    return math.log(SCALE_MIN) + LOG_STEP * (coder_tables().skip_index - 0.5)


@torch.no_grad()
def _gather(network: CodecNetwork, crops: Sequence[Tensor], seed: int) -> Symbols:
    """Symbols of crops ``(1, 3, H, W)`` uint8, each at a random quality."""
    device = next(network.parameters()).device
    random = np.random.default_rng(seed)
    parts: list[tuple[Tensor, Tensor, Tensor]] = []
    for crop in crops:
        quality = torch.tensor([random.uniform(MIN_QUALITY, MAX_QUALITY)], dtype=torch.float32, device=device)
        position = network.position(quality)
        x = (torch.from_numpy(np.ascontiguousarray(crop)).to(device) / 255).contiguous(
            memory_format=torch.channels_last
        )
        z = network.entropy.h_a(network.g_a(x, position)).float()
        log_scale = network.entropy.z_scale(position)
        offset = rounding_offset(log_scale, HYPER_RATE_WEIGHT)
        residual = z / network.entropy.z_step(position).clamp(min=Z_STEP_MIN)
        symbols = quantise(residual, offset) * (log_scale >= _first_coded())
        symbols = symbols.permute(0, 2, 3, 1)[0].cpu()
        padded = pad(symbols, (0, 0, 1, 0, 1, 0)).to(torch.int16)
        around = torch.stack([padded[1:, :-1], padded[:-1, 1:], padded[:-1, :-1]], dim=2)
        flat = log_scale.flatten().cpu().expand(symbols.shape)
        parts.append(tuple(t.flatten(0, 1) for t in (padded[1:, 1:], around, flat)))  # type: ignore[arg-type]
    return Symbols(*(torch.cat(kind) for kind in zip(*parts, strict=True)))
