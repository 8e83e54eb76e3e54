"""What stands for rounding and clamping in training, with gradients that learn."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor


def noisy(x: Tensor) -> Tensor:
    """Additive uniform noise, for a rate with a gradient (Balle et al., 2017)."""
    return x + torch.empty_like(x).uniform_(-0.5, 0.5)


def rounded(x: Tensor) -> Tensor:
    """Rounding with the straight-through gradient."""
    return x + (x.round() - x).detach()


def bounded(x: Tensor, low: float, high: float = math.inf) -> Tensor:
    """Clamp whose gradient passes inside of the range, and outside where it leads back in.

    A plain clamp leaves what is outside stuck there; one that always passes drives it ever further out, because a
    symbol that is surely zero wants a smaller scale still.
    """
    y: Tensor = _Bounded.apply(x, low, high)
    return y


class _Bounded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.range = low, high
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors
        (grad,) = grads
        low, high = ctx.range
        outwards = ((x < low) & (grad > 0)) | ((x > high) & (grad < 0))  # a step goes against the gradient
        return grad.masked_fill(outwards, 0), None, None
