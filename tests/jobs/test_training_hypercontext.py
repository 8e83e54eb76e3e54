"""Fitting the context of the hyper-latent after training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from learned_support import photograph
from PIL import Image
from typer.testing import CliRunner

from lichen import defaults
from lichen.jobs.cli import build_app
from lichen.jobs.training.data import PictureCache, open_cache
from lichen.jobs.training.hypercontext import fit_context
from lichen.models.decoupled.network import CodecNetwork
from lichen.models.device import find_device
from lichen.models.registry import export, full_files, load_codec, load_files, network_from_files


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def pictures(data_folder: Path, cache: Path) -> PictureCache:
    return open_cache([data_folder / "samples"], cache)


def test_a_fitted_context_saves_what_it_says(pictures: PictureCache) -> None:
    """A few crops are enough for the codec whose hyper-latents have settled most."""
    network = network_from_files(full_files(defaults.EXACT_CODEC))
    assert isinstance(network, CodecNetwork)
    fitted = fit_context(network, pictures, 2, crops=24)
    assert fitted.context is not None and 0.003 < fitted.saved < 0.3
    plain, better = (
        load_files(export(network, "x", {}, c), find_device("cpu", "float32")) for c in (None, fitted.context)
    )
    image = np.ascontiguousarray(photograph()[:512, :512])
    sizes = []
    for quality in (10.0, 50.0):
        (before,), (after,) = plain.encode([image], quality), better.encode([image], quality)
        assert after.symbols == before.symbols == better.decode([after.bitstream])[0].symbols
        sizes.append((len(before.bitstream), len(after.bitstream)))
    assert sum(after for _, after in sizes) < sum(before for before, _ in sizes)


def test_a_context_that_saves_nothing_is_left_out(pictures: PictureCache) -> None:
    network = network_from_files(full_files(defaults.CODEC))
    assert isinstance(network, CodecNetwork)
    network.entropy.z_step.table.data.fill_(1e6)  # every symbol is zero,
    network.entropy.z_scale.table.data.fill_(-9)  # and costs nothing
    fitted = fit_context(network, pictures, 2, crops=1)
    assert fitted.context is None and fitted.saved == 0 and fitted.bits_without < 0.2


def test_the_command_fits_one_to_a_codec_that_stays_as_it_is(data_folder: Path, cache: Path, tmp_path: Path) -> None:
    command = ["train", str(data_folder / "samples"), "--out", str(tmp_path), "--name", "again", "--steps", "0"]
    command += ["--from-codec", defaults.CODEC, "--context-crops", "8", "--validation", "2", "--cache", str(cache)]
    done = CliRunner().invoke(build_app(), [*command, "--json"])
    assert done.exit_code == 0, done.output
    card = json.loads((tmp_path / "again.json").read_text())
    assert card["notes"]["hyper_context"]["crops"] == 8 and card["notes"]["training"]["steps"] == 0
    with Image.open(sorted((data_folder / "kodak").glob("*.png"))[0]) as picture:
        image = np.asarray(picture.convert("RGB"))[:256, :256]
    (again,), (shipped,) = (load_codec(n).encode([image], 40) for n in (str(tmp_path / "again.json"), defaults.CODEC))
    assert again.symbols == shipped.symbols
