"""SOAP, one-sided: Adam in the eigenbasis of the gradient's second moments.

After Vyas et al., "SOAP: Improving and Stabilizing Shampoo using Adam" (2024). Rate and distortion pull a codec's
weights with gradients of very different size along different directions; Adam scales every weight by itself
and cannot tell them apart, the eigenbasis can. Only the shorter side of each matrix has a basis: in short runs the
longer sides cost time and brought nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

FIRST_BASES = frozenset((1, 4, 10, 20, 40))
"""Steps at which every basis is found anew, because the gradients still change quickly."""
ALL_GRADIENTS = 20
"""Steps at the start whose gradients all count for the second moments."""

SMALLEST = 16
"""Sides of a dense layer that has a basis are longer than this."""


class Soap(torch.optim.Optimizer):
    """Weights of convolutions are matrices ``(outputs, inputs * kernel)``, those of dense layers ``(outputs, inputs)``;
    all other parameters, and small ones, have plain Adam.

    ``gram`` is the decay of the second-moment matrices, which take every ``gram_every``-th gradient; a basis is
    found anew every ``basis_every`` steps. Sides longer than ``limit`` have no basis. The first step only
    finds the bases.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-12,
        gram: float = 0.95,
        gram_every: int = 2,
        basis_every: int = 50,
        limit: int = 400,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "gram": gram}
        super().__init__(params, defaults | {"gram_every": gram_every, "basis_every": basis_every, "limit": limit})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update from the gradients. A ``closure`` is not supported."""
        if closure is not None:
            raise NotImplementedError("Soap takes no closure")
        place = 0
        for group in self.param_groups:
            for parameter in group["params"]:
                place += 1
                if parameter.grad is not None:
                    self._update(parameter, group, place)

    def _update(self, parameter: Tensor, group: dict[str, Any], place: int) -> None:
        state = self.state[parameter]
        matrix = _as_matrix(parameter.grad) if parameter.ndim == 4 or _is_dense(parameter) else None
        if matrix is not None and not 1 < len(matrix) <= group["limit"]:
            matrix = None
        gradient = parameter.grad if matrix is None else matrix
        assert gradient is not None
        if not state:
            state["step"] = 0
            state["mean"], state["square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
            if matrix is not None:
                state["gram"] = matrix.new_zeros(len(matrix), len(matrix))
                state["basis"] = torch.eye(len(matrix), device=matrix.device)
        step = state["step"] = state["step"] + 1
        if matrix is not None:
            if step % group["gram_every"] == 0 or step < ALL_GRADIENTS:
                state["gram"].mul_(group["gram"]).addmm_(matrix, matrix.T, alpha=1 - group["gram"])
            # spread over the steps, so that no step has to find all bases
            if step in FIRST_BASES or step % group["basis_every"] == place % group["basis_every"]:
                _turn(state)
            gradient = state["basis"].T @ matrix
        if step == 1:
            return
        slow, fast = group["betas"]
        state["mean"].lerp_(gradient, 1 - slow)
        state["square"].mul_(fast).addcmul_(gradient, gradient, value=1 - fast)
        spread = (state["square"] / (1 - fast ** (step - 1))).sqrt_().add_(group["eps"])
        change = state["mean"] / spread
        if matrix is not None:
            change = _from_matrix(state["basis"] @ change, parameter)
        parameter.add_(change, alpha=-group["lr"] / (1 - slow ** (step - 1)))


def _turn(state: dict[str, Any]) -> None:
    """Find the eigenbasis anew and express the running moments in it (the squares as if they were independent)."""
    gram = state["gram"]
    size = len(gram)
    normal = gram * (size / gram.trace().clamp(min=1e-30)) + 1e-9 * torch.eye(size, device=gram.device)
    if not bool(torch.isfinite(normal).all()):
        return
    basis = torch.linalg.eigh(normal)[1]
    turn = basis.T @ state["basis"]
    state["basis"] = basis
    state["mean"] = turn @ state["mean"]
    state["square"] = turn.square() @ state["square"]


def _is_dense(parameter: Tensor) -> bool:
    """Whether a parameter is a dense layer; tables over quality have two dimensions as well, but few rows."""
    return parameter.ndim == 2 and min(parameter.shape) > SMALLEST


def _as_matrix(x: Tensor | None) -> Tensor:
    """``(outputs, inputs, kh, kw)`` as a matrix with the shorter side first."""
    assert x is not None
    matrix = x.reshape(len(x), -1)
    return matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T


def _from_matrix(matrix: Tensor, like: Tensor) -> Tensor:
    """A matrix of ``_as_matrix`` as ``(outputs, inputs, kh, kw)`` again."""
    wide = len(like) <= like[0].numel()
    return (matrix if wide else matrix.T).reshape(like.shape)
