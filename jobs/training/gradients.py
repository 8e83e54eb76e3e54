"""The gradient of one step, by threads that share the crops of a batch.

Where torch spreads each operation over the cores, all of them wait for the slowest after every operation; cores that
have crops of their own wait once a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""From crops ``(B, 3, H, W)`` and qualities ``(B,)``: the mean loss, then MSE and bits per pixel of each, ``(B,)``."""

SHARE_PIXELS = 1 << 16
"""Pixels that a thread takes at once: what it works on stays in its cache, and threads end together."""


class Gradients:
    """Gradients of an objective with respect to those ``parameters`` that learn, which are left in their ``grad``.

    With one lane a batch is one piece. More share it, each a thread with its part of torch's threads; then the noise
    of training falls differently every time, and runs are not repeatable to the bit.
    """

    def __init__(self, objective: Objective, parameters: Sequence[nn.Parameter], lanes: int = 1) -> None:
        self.objective, self.parameters = objective, [p for p in parameters if p.requires_grad]
        self.pool: ThreadPoolExecutor | None = None
        if lanes > 1:
            threads = max(1, torch.get_num_threads() // lanes)
            self.pool = ThreadPoolExecutor(lanes, "lichen-train", torch.set_num_threads, (threads,))

    def __call__(self, x: Tensor, quality: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The objective of a batch without its graph, after its gradients were set."""
        if self.pool is None:
            loss, mse, bpp = self.objective(x, quality)
            for parameter in self.parameters:
                parameter.grad = None
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach(), mse.detach(), bpp.detach()
        size = max(1, SHARE_PIXELS // (x.shape[2] * x.shape[3]))
        shares = [
            self.pool.submit(self._share, part, of, len(part) / len(x))
            for part, of in zip(torch.split(x, size), torch.split(quality, size), strict=True)
        ]
        results = [share.result() for share in shares]
        for number, parameter in enumerate(self.parameters):
            parts = [gradient for gradients, *_ in results if (gradient := gradients[number]) is not None]
            parameter.grad = torch.stack(parts).sum(0) if parts else None
        _, losses, mses, bpps = zip(*results, strict=True)
        return torch.stack(losses).sum(), torch.cat(mses), torch.cat(bpps)

    def _share(
        self, x: Tensor, quality: Tensor, weight: float
    ) -> tuple[tuple[Tensor | None, ...], Tensor, Tensor, Tensor]:
        loss, mse, bpp = self.objective(x, quality)
        loss = weight * loss
        gradients = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        return gradients, loss.detach(), mse.detach(), bpp.detach()
