"""Gradients by threads that share a batch are those of the whole batch."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lichen.jobs.training import gradients
from lichen.jobs.training.config import TrainConfig
from lichen.jobs.training.gradients import Gradients
from lichen.jobs.training.run import train
from lichen.models.decoupled.network import NetworkConfig


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(4)
        self.conv = nn.Conv2d(3, 5, 3)
        self.unused = nn.Linear(2, 2)
        self.fixed = nn.Parameter(torch.ones(1), requires_grad=False)
        self.threads: set[int] = set()
        self.crops: list[int] = []

    def forward(self, x: Tensor, quality: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.threads.add(threading.get_ident())
        self.crops.append(len(x))
        mse = (self.fixed * self.conv(x)).square().mean(dim=(1, 2, 3))
        return (mse * quality).mean(), mse, quality / 7


def batch(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(9)
    return torch.rand(count, 3, 64, 64, generator=generator), 1 + torch.arange(count, dtype=torch.float32)


@pytest.mark.parametrize("lanes", [2, 3])
@pytest.mark.parametrize("count", [1, 4, 7])
def test_shares_add_up(monkeypatch: pytest.MonkeyPatch, lanes: int, count: int) -> None:
    monkeypatch.setattr(gradients, "SHARE_PIXELS", 2 * 64 * 64)
    toy = Toy()
    alone, shared = (Gradients(toy, list(toy.parameters()), n) for n in (1, lanes))
    expected = [tensor.clone() for tensor in alone(*batch(count))]
    whole = {name: p.grad.clone() for name, p in toy.named_parameters() if p.grad is not None}
    assert set(whole) == {"conv.weight", "conv.bias"} and toy.threads == {threading.get_ident()}
    toy.crops.clear()
    for _ in range(2):  # set, not added
        found = shared(*batch(count))
    assert sorted(toy.crops) == sorted(2 * ([2] * (count // 2) + [1] * (count % 2)))
    assert threading.get_ident() in toy.threads and len(toy.threads) > 1
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(one, other)
        assert not other.requires_grad
    for name, p in toy.named_parameters():
        if name in whole:
            torch.testing.assert_close(p.grad, whole[name])
        else:
            assert p.grad is None


def test_an_error_in_a_share_is_raised() -> None:
    toy = Toy()
    with pytest.raises(RuntimeError, match="channels"):
        Gradients(toy, list(toy.parameters()), 2)(torch.rand(4, 2, 64, 64), torch.ones(4))


def test_a_run_in_lanes_ends_and_leaves_torch_its_threads(data_folder: Path, tmp_path: Path) -> None:
    config = TrainConfig(batch=4, crop=128, large_part=0.0, validation=1, validate_every=9, warmup=1, lanes=2)
    small = NetworkConfig(width=16, depth=1, hidden=16, hyper=16, features=16, context=16)
    before = torch.get_num_threads()
    states = []
    for steps in (1, 3):
        run = replace(config, steps=steps)
        result = train([data_folder / "samples"], tmp_path / "run", run, model=small, cache=tmp_path / "cache")
        states.append(torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["network"])
    assert result.steps == 3 and result.skipped == 0 and result.codec is not None
    assert torch.get_num_threads() == before
    moved = {name for name, value in states[0].items() if not torch.equal(value, states[1][name])}
    assert {"entropy.h_a.block1.ffn.gate.weight", "entropy.gain.table"} <= moved
    assert any(name.startswith("g_a.network") for name in moved) and any(name.startswith("g_s.") for name in moved)
