"""Real sizes beside ideal ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from learned_support import new_network, photograph
from PIL import Image

from lab.rate import ideal_bits, run
from lichen.errors import UsageError
from lichen.models.bundle import write_codec
from lichen.models.device import find_device
from lichen.models.registry import build, config_of, export, load_files


def test_real_sizes_are_near_the_information_under_the_float_model(tmp_path: Path) -> None:
    network = new_network()
    files = export(network, "small", {})
    write_codec(tmp_path, "small", files)
    torch.save({"model": network.config.to_json(), "average": network.state_dict()}, tmp_path / "best.pt")
    (tmp_path / "pictures").mkdir()
    Image.fromarray(photograph()[:256, :320]).save(tmp_path / "pictures" / "one.png")
    result = run(
        str(tmp_path / "pictures"),
        codec=str(tmp_path / "small.json"),
        weights=tmp_path / "best.pt",
        qualities=(50.0, 90.0),
    )
    low, high = result.cases
    assert low.real < high.real
    assert 0 < low.hyper_share < 0.5
    overhead = 8 * 40 / (256 * 320)  # the container, which is large beside so small a picture
    for case in result.cases:
        assert -0.005 < case.excess < 0.01 + overhead / case.ideal


def test_ideal_bits_are_those_of_training(tmp_path: Path) -> None:
    """The same symbols have the rate that the network itself gives them in evaluation."""
    network = new_network().eval()
    codec = load_files(export(network, "small", {}), find_device("cpu", "float32"))
    picture = photograph()[:128, :192]
    z, y = codec.symbols(codec.encode([np.ascontiguousarray(picture)], 60.0)[0].bitstream)
    ours = sum(ideal_bits(network, z, y, 60.0))
    x = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        _, y_bits, z_bits = network(x, torch.tensor([60.0]))
    assert ours == pytest.approx((y_bits + z_bits).item(), rel=0.02)


def test_weights_of_something_else(tmp_path: Path) -> None:
    torch.save({"something": 1}, tmp_path / "best.pt")
    Image.fromarray(photograph()[:64, :64]).save(tmp_path / "one.png")
    with pytest.raises(UsageError, match="no weights of this architecture"):
        run(str(tmp_path / "one.png"), weights=tmp_path / "best.pt", qualities=(50.0,))


def test_a_published_network_loses_nothing_by_snapping(tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = build(config_of("compressai/mbt2018-mean", channels=16, latent=24))
    with torch.no_grad():
        network.g_a[-1].weight.mul_(100)  # an untrained network's latents are all zero,
        x = torch.from_numpy(photograph()[:256, :320].copy()).permute(2, 0, 1)[None].float() / 255
        network.h_s[-1].bias[:24] = 2 * network.analyse(x).std()  # and its scales next to it
        network.h_a[-1].weight.mul_(0.01)
    write_codec(tmp_path, "mbt", export(network, "mbt", {}))
    Image.fromarray(photograph()[:256, :320]).save(tmp_path / "one.png")
    result = run(str(tmp_path / "one.png"), codec=str(tmp_path / "mbt.json"), qualities=(50.0,))
    (case,) = result.cases
    assert case.real > 0.5
    assert abs(case.excess) < 0.02
