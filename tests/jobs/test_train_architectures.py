"""Every architecture trains, and what it exports goes through a whole job: compressed, verified, decoded."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lichen import QualityConfig, compress, verify
from lichen import open as open_archive
from lichen.jobs.training.config import TrainConfig
from lichen.jobs.training.data import open_cache
from lichen.jobs.training.loop import Trainer
from lichen.jobs.training.run import train
from lichen.models.blocks.network import Config
from lichen.models.decoupled.network import NetworkConfig
from lichen.models.decoupled.trunks import TRUNKS
from lichen.models.registry import architectures, build, config_of

FRAME = NetworkConfig(luma=40, chroma=12, width=32, depth=2, hidden=16, hyper=16, features=16, context=16, anchors=4)
PUBLISHED = {
    "tcm-small": {"half": 32},
    "cwam-128": {"channels": 16},
    "s2c-hybrid-large": {"widths": (16, 16, 32), "depths": (1, 1, 1), "expansion": 1},
    "hscatb-large": {"widths": (16, 32, 32), "depths": (1, 1, 1), "expansion": 1},
    "compressai/mbt2018-mean": {"channels": 16, "latent": 24, "anchors": 4},
}
SYSTEMS = [*TRUNKS, *PUBLISHED]


def small(name: str) -> Config:
    if name in TRUNKS:
        return replace(FRAME, blocks=name, depth=1 if name in ("cwam", "hscatb") else 2)
    return config_of(name, **PUBLISHED[name])


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("name", SYSTEMS)
def test_from_training_to_pictures(name: str, data_folder: Path, cache: Path, tmp_path: Path) -> None:
    run = TrainConfig(steps=2, batch=2, crop=128, large_crop=128, validation=1, validate_every=2, warmup=1)
    sources, folder = [data_folder / "samples"], tmp_path / "run"
    result = train(sources, folder, run, model=small(name), name="tiny", precision="float32", cache=cache)
    assert result.codec is not None
    archive = tmp_path / "archive"
    done = compress(
        [data_folder / "messy" / "pil_hopper_orientation_6.jpg", data_folder / "messy" / "pil_pil123rgba.png"],
        archive,
        codec=str(result.codec),
        quality=QualityConfig(quality=50, psnr_floor=0, block_psnr_floor=0),
        local=True,
    )
    assert done.counts.compressed + done.counts.packed + done.counts.stored == done.counts.sources == 2
    assert verify(archive).failed == 0
    opened = open_archive(archive)
    assert all(opened[row.key].size == (row.width, row.height) for row in opened.rows())


@pytest.mark.bench
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SYSTEMS)
def test_two_hundred_steps_lower_the_loss(name: str, data_folder: Path, cache: Path, tmp_path: Path) -> None:
    # The published ones work at full resolution, and are slow; the grid of TCM is 128.
    side = 128 if name in TRUNKS or name == "tcm-small" else 64
    run = TrainConfig(steps=200, batch=2, crop=side, large_crop=side, validation=1, warmup=10, seed=3)
    trainer = Trainer(small(name), run, open_cache([data_folder / "samples"], cache), tmp_path)
    before = trainer.validate()["loss"]
    for _ in range(200):
        trainer.train_step()
    assert trainer.skipped == 0
    assert trainer.validate()["loss"] < 0.99 * before  # those that start as a transform coder have little to gain


@pytest.mark.parametrize("name", architectures())
def test_every_name_makes_a_network(name: str) -> None:
    import torch

    with torch.device("meta"):
        network = build(config_of(name))
    assert sum(parameter.numel() for parameter in network.parameters()) > 2.8e6
