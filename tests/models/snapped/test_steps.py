"""Published networks in training: shapes, and a gradient for every parameter that is meant to learn."""

from __future__ import annotations

import pytest
import torch
from snapped_support import SMALL, lively


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    network = lively(name).train()
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():  # behind a layer of zeros nothing learns before that layer has
                parameter.normal_(0, 0.01)
    x = torch.rand(2, 3, 128, 128)
    decoded, y_bits, z_bits = network(x, torch.tensor([10.0, 90.0]))
    assert decoded.shape == x.shape and y_bits.shape == z_bits.shape == (2,)
    (decoded.square().sum() * 100 + y_bits.sum() + z_bits.sum()).backward()
    learning = {n: p.grad for n, p in network.named_parameters() if p.requires_grad}
    assert len(learning) > 20
    without = [n for n, grad in learning.items() if grad is None or not grad.abs().sum() > 0]
    assert without == []
