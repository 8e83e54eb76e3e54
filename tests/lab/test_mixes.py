"""Mixes of measures, trained from the same weights and told apart by real bytes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from learned_support import kodak, new_network
from PIL import Image
from typer.testing import CliRunner

from lab.commands import build_app
from lab.mixes import CHOICES, ByActivity, run
from lichen.errors import UsageError
from lichen.models.bundle import write_codec
from lichen.models.perceptual.distortion import Mix
from lichen.models.registry import export


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    folder = tmp_path / "photographs"
    folder.mkdir()
    for number in range(4):
        Image.fromarray(np.ascontiguousarray(kodak(number)[:256, :320])).save(folder / f"{number}.png")
    return folder


def test_every_mix_begins_with_the_same_weights_and_is_measured(photographs: Path, tmp_path: Path) -> None:
    codec = write_codec(tmp_path, "small", export(new_network(), "small", {}))
    told: list[float] = []
    cases = run(
        [photographs], codec=str(codec), steps=2, pictures=1, held=2, names=["squared-error", "activity"],
        report=lambda share, _name: told.append(share),
    )  # fmt: skip
    assert [case.name for case in cases] == ["before", "squared-error", "activity"]
    assert told[-1] == 1
    for case in cases:
        assert set(case.bd_rate) == {"avif", "avif-psnr"}
        assert {"psnr", "ms_ssim", "ssimulacra2"} <= set(case.bd_rate["avif"])
    with pytest.raises(UsageError, match=r"ms-ssim-0\.5"):
        run([photographs], codec=str(codec), steps=1, names=["prettier"])


def test_the_command_prints_what_it_measured(photographs: Path, tmp_path: Path) -> None:
    codec = write_codec(tmp_path, "small", export(new_network(), "small", {}))
    arguments = ["mixes", *map(str, sorted(photographs.iterdir()) * 7), "--codec", str(codec), "--steps", "1"]
    done = CliRunner().invoke(build_app(), [*arguments, "--pictures", "1", "--mix", "ms-ssim-0.5", "--json"])
    assert done.exit_code == 0, done.output
    assert [case["name"] for case in json.loads(done.stdout)] == ["before", "ms-ssim-0.5"]


def test_activity_hides_errors() -> None:
    """The same error costs less where the picture is busy, and as much on the whole."""
    torch.manual_seed(1)
    target = torch.full((1, 3, 64, 64), 0.5)
    target[..., 32:] += 0.2 * torch.randn(1, 1, 64, 32)
    flat, busy = torch.zeros_like(target), torch.zeros_like(target)
    flat[..., 4:24], busy[..., 40:60] = 0.02, 0.02
    mix = ByActivity()
    assert mix.perceptual and mix.distortion(target + busy, target) < 0.5 * mix.distortion(target + flat, target)
    everywhere = mix.distortion(target + 0.02, target).item()
    assert everywhere == pytest.approx(Mix().distortion(target + 0.02, target).item(), rel=1e-4)
    assert len({choice.name for choice in CHOICES}) == len(CHOICES)
