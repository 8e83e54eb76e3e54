"""The factorised prior of a hyper-latent: a density learned for each channel (Balle et al., ICLR 2018, appendix 6.1).

Names and shapes of the weights are those of CompressAI's ``EntropyBottleneck``.
"""

from __future__ import annotations

import copy
import math
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

INNER = (3, 3, 3, 3)
INIT_SCALE = 10.0
LEAST = 1e-9
"""Probabilities are not smaller in training."""
TAIL = 2.0**-17
"""Probability of what lies beyond a table on each side: rarer than the least frequency of a table."""
WIDEST = 2048


class FactorisedPrior(nn.Module):
    """Cumulative densities as monotone networks of five layers.

    ``spread`` channels in a row have one density: places that have been moved into channels.
    """

    def __init__(self, channels: int, spread: int = 1) -> None:
        super().__init__()
        self.spread = spread
        channels //= spread
        widths = (1, *INNER, 1)
        scale = INIT_SCALE ** (1 / len(widths[1:]))
        self.matrices, self.biases, self.factors = nn.ParameterList(), nn.ParameterList(), nn.ParameterList()
        for inputs, outputs in pairwise(widths):
            start = math.log(math.expm1(1 / scale / outputs))
            self.matrices.append(nn.Parameter(torch.full((channels, outputs, inputs), start)))
            self.biases.append(nn.Parameter(torch.empty(channels, outputs, 1).uniform_(-0.5, 0.5)))
        for width in INNER:
            self.factors.append(nn.Parameter(torch.zeros(channels, width, 1)))
        quantiles = torch.tensor([-INIT_SCALE, 0.0, INIT_SCALE]).repeat(channels, 1, 1)
        self.quantiles = nn.Parameter(quantiles, requires_grad=False)

    @property
    def medians(self) -> Tensor:
        """Where rounding is centred, ``(channels,)``."""
        return self.quantiles[:, 0, 1].detach().repeat_interleave(self.spread)

    def logits(self, x: Tensor) -> Tensor:
        """Logits of the cumulative density, ``(channels, 1, n)`` to the same shape."""
        for layer, (matrix, bias) in enumerate(zip(self.matrices, self.biases, strict=True)):
            x = F.softplus(matrix) @ x + bias
            if layer < len(self.factors):
                x = x + torch.tanh(self.factors[layer]) * torch.tanh(x)
        return x

    def probability(self, x: Tensor) -> Tensor:
        """Probability of the unit interval around ``x``, ``(channels, 1, n)``; from the thinner tail, for precision."""
        lower, upper = self.logits(x - 0.5), self.logits(x + 0.5)
        sign = -torch.sign(lower + upper).detach()
        return (torch.sigmoid(sign * upper) - torch.sigmoid(sign * lower)).abs()

    def bits(self, z: Tensor) -> Tensor:
        """Bits of ``(B, channels, h, w)``, elementwise."""
        flat = z.permute(1, 0, 2, 3).reshape(len(self.quantiles), 1, -1)
        bits = -torch.log2(self.probability(flat).clamp(min=LEAST))
        return bits.reshape(z.shape[1], z.shape[0], *z.shape[2:]).permute(1, 0, 2, 3)

    @torch.no_grad()
    def solve_medians(self) -> None:
        """Set the medians by bisection, after training."""
        low = torch.full((len(self.quantiles), 1, 1), -float(WIDEST), device=self.quantiles.device)
        high = -low
        for _ in range(60):
            middle = (low + high) / 2
            above = self.logits(middle) > 0
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        self.quantiles[:, :, 1] = ((low + high) / 2)[:, :, 0]

    @torch.no_grad()
    def pmfs(self) -> tuple[list[NDArray[np.float64]], list[int]]:
        """Each density's probabilities of the integers ``round(z - median)``, and the first of those integers."""
        double = copy.deepcopy(self).double()
        medians = double.medians[:: self.spread, None, None]
        places = torch.arange(-WIDEST, WIDEST + 1, dtype=torch.float64, device=medians.device)
        likely = double.probability(medians + places)[:, 0].cpu().numpy()
        pmfs, firsts = [], []
        for row in likely:
            below = np.flatnonzero(np.cumsum(row) > TAIL)[0]
            above = len(row) - np.flatnonzero(np.cumsum(row[::-1]) > TAIL)[0]
            pmfs.append(row[below:above])
            firsts.append(int(below) - WIDEST)
        return pmfs, firsts
