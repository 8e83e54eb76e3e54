"""Ablations: every variant trains, and differs from the shipped choice in what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lab.ablation import VARIANTS, run, walsh
from lichen.errors import UsageError
from lichen.models.decoupled.network import NetworkConfig

SMALL = NetworkConfig(luma=40, chroma=12, width=18, depth=1, hidden=16, hyper=16, features=16, context=16, anchors=4)


def test_walsh_functions_are_orthonormal_by_frequency() -> None:
    matrix = walsh(16)
    assert torch.allclose(matrix @ matrix.T, torch.eye(16, dtype=torch.float64))
    assert [int((row[1:] * row[:-1] < 0).sum()) for row in matrix] == list(range(16))


def test_every_variant_trains(data_folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[float, str]] = []

    def report(share: float, name: str) -> None:
        seen.append((share, name))

    result = run([data_folder / "samples"], steps=3, batch=2, cache=tmp_path, model=SMALL, held=1, report=report)
    assert [name for _, name in seen[:: len(seen) // len(VARIANTS)]] == [variant.name for variant in VARIANTS]
    assert [case.name for case in result.cases] == [variant.name for variant in VARIANTS]
    assert [share for share, _ in seen] == sorted(share for share, _ in seen) and seen[-1][0] == 1
    losses = {case.name: case.loss for case in result.cases}
    assert len(set(losses.values())) == len(losses)  # none of the choices is without effect
    assert all(0 < loss < 200 for loss in losses.values()), losses
    assert all(case.speed > 0 and case.seconds_per_step > 0 for case in result.cases)


def test_unknown_variants(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no nonsense; there are shipped, "):
        run([tmp_path], names=["nonsense"])
