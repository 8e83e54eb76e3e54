"""The optimiser."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lichen.jobs.training.soap import Soap


def groups(parameters: list[nn.Parameter]) -> list[dict[str, object]]:
    return [{"params": parameters, "scale": 1.0}]


def least_squares(optimiser: type[torch.optim.Optimizer], lr: float, steps: int = 150) -> float:
    """Loss left of a badly conditioned regression whose directions are not the axes of the weight."""
    torch.manual_seed(0)
    turn = torch.linalg.qr(torch.randn(16, 16))[0]
    x = torch.randn(512, 16) * torch.logspace(0, -2, 16) @ turn.T
    target = x @ (turn @ torch.randn(16, 24) * 10)
    weight = nn.Parameter(torch.zeros(24, 16, 1, 1))
    train = optimiser(groups([weight]), lr=lr)  # type: ignore[arg-type, call-arg]
    loss = torch.tensor(0.0)
    for step in range(steps):
        for group in train.param_groups:
            group["lr"] = lr * (1 - step / steps)
        train.zero_grad()
        loss = (x @ weight[:, :, 0, 0].T - target).square().mean()
        loss.backward()  # type: ignore[no-untyped-call]
        train.step()
    return loss.item()


def test_the_basis_helps_where_directions_are_not_axes() -> None:
    def adam(params: object, lr: float) -> torch.optim.Adam:
        return torch.optim.Adam(params, lr=lr, betas=(0.9, 0.98))  # type: ignore[arg-type]

    best_adam = min(least_squares(adam, lr) for lr in (0.1, 0.3, 1.0))  # type: ignore[arg-type]
    best_soap = min(least_squares(Soap, lr) for lr in (0.1, 0.3, 1.0))
    assert best_soap < 0.5 * best_adam


def test_vectors_and_tables_are_adam() -> None:
    """After its first step, which only looks, the update of what is no matrix is Adam's."""
    ours, theirs = nn.Parameter(torch.ones(4, 7)), nn.Parameter(torch.ones(4, 7))
    soap = Soap(groups([ours]), lr=0.01, betas=(0.9, 0.98))
    adam = torch.optim.Adam([theirs], lr=0.01, betas=(0.9, 0.98), eps=1e-12)
    torch.manual_seed(1)
    ours.grad = torch.randn(4, 7)
    soap.step()
    assert torch.equal(ours, torch.ones(4, 7))
    # what it saw first does not count: compare from a clean state
    soap.state.clear()
    ours.grad = torch.zeros(4, 7)
    soap.step()
    for _ in range(5):
        gradient = torch.randn(4, 7)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        soap.step()
        adam.step()
    assert torch.allclose(ours, theirs, atol=1e-6)


def test_every_shape_and_resuming() -> None:
    """Wide, tall, depth-wise and too long matrices; a resumed optimiser goes on to the same weights."""
    shapes = [(8, 12, 1, 1), (12, 8, 1, 1), (16, 1, 5, 5), (6, 6, 3, 3), (5,), (450, 450, 1, 1)]

    def gradients(step: int) -> list[Tensor]:
        generator = torch.Generator().manual_seed(step)
        return [torch.randn(shape, generator=generator) for shape in shapes]

    def run(parameters: list[nn.Parameter], optimiser: Soap, steps: range) -> None:
        for step in steps:
            for parameter, gradient in zip(parameters, gradients(step), strict=True):
                parameter.grad = gradient
            optimiser.step()

    whole = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    first = Soap(groups(whole), lr=0.01)
    run(whole, first, range(30))
    halves = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    before = Soap(groups(halves), lr=0.01)
    run(halves, before, range(12))
    after = Soap(groups(halves), lr=0.01)
    after.load_state_dict(before.state_dict())
    run(halves, after, range(12, 30))
    for a, b in zip(whole, halves, strict=True):
        assert torch.equal(a, b)
        assert bool(torch.isfinite(a).all())
        assert a.abs().min() > 0
    assert "basis" not in first.state[whole[-1]]
