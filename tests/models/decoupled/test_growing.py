"""Deeper networks that begin as what a shallower one has learnt."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from learned_support import new_network

from lichen.errors import UsageError
from lichen.models.decoupled.growing import grow
from lichen.models.decoupled.network import CodecNetwork, NetworkConfig

CONFIG = NetworkConfig(
    luma=40, chroma=12, width=32, depth=2, hidden=16, hyper=16, features=16, context=16, anchors=4
)  # fmt: skip


def output(network: CodecNetwork) -> torch.Tensor:
    x = torch.rand(2, 3, 128, 64, generator=torch.Generator().manual_seed(1))
    decoded, y_bits, _ = network.eval()(x, torch.tensor([20.0, 80.0]))
    return torch.cat([decoded.flatten(), y_bits])


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("s2c-conv", "s2c-conv"),
        ("s2c-conv", "s2c-hybrid"),  # convolutions first, attention after
        ("s2c-identity", "s2c-identity"),
        ("s2c-attention", "s2c-attention"),
        ("tcm", "tcm"),
        ("hscatb:no-low", "hscatb:no-low"),
    ],
)
def test_a_grown_network_computes_the_same_and_learns_more(before: str, after: str) -> None:
    network = new_network(replace(CONFIG, blocks=before))
    grown = grow(network, replace(CONFIG, blocks=after, depth=4))
    assert grown.config.depth == 4
    with torch.no_grad():
        assert torch.equal(output(grown), output(network))
    x = torch.rand(1, 3, 64, 64)
    decoded, y_bits, z_bits = grown.train()(x, torch.tensor([50.0]))
    ((decoded - x).square().mean() + (y_bits + z_bits).mean() / 1e4).backward()
    for pixels in (grown.g_a.network, grown.g_s.network):
        for block in pixels.blocks[2:]:
            assert any(p.grad is not None and p.grad.abs().max() > 0 for p in block.parameters())


@pytest.mark.parametrize(
    "change",
    [{"depth": 1}, {"width": 48}, {"luma": 48}, {"blocks": "s2c-attention", "depth": 4}, {"anchors": 8}],
)
def test_what_cannot_grow_is_refused(change: dict[str, int | str]) -> None:
    with pytest.raises(UsageError):
        grow(new_network(CONFIG), replace(CONFIG, **change))


def test_blocks_that_are_never_identities_are_refused() -> None:
    with pytest.raises(UsageError, match="identities"):
        grow(new_network(replace(CONFIG, blocks="cwam")), replace(CONFIG, blocks="cwam", depth=3))


def test_other_schemes_are_refused() -> None:
    with pytest.raises(UsageError, match="decoupled"):
        grow(torch.nn.Identity(), CONFIG)
