"""The comparison with CompressAI compares equals: the same symbols, from its own network, at its own rate."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from learned_support import photograph
from PIL import Image
from typer.testing import CliRunner

from lab import compressai as bench
from lab import mean_scale
from lab.commands import build_app
from lab.mean_scale import MeanScaleCodec, mean_scale_network, to_tensor
from lichen.errors import UsageError, VerificationFailed
from lichen.models import bitstream
from lichen.models.bundle import write_codec
from lichen.models.codec import Pixels, symbol_digest
from lichen.models.registry import build, config_of, export
from lichen.pipeline.lanes import Lanes

SMALL = (16, 24)
STREAM_BYTES = 20
"""What lichen's states may take over CompressAI's in one stream."""


@pytest.fixture(scope="module")
def pictures() -> list[Pixels]:
    """Two that are padded to one size, 192x256, and whose sides are no multiples of 64."""
    photo = photograph()
    return [np.ascontiguousarray(photo[:190, :250]), np.ascontiguousarray(photo[100:292, 60:300])]


@pytest.fixture(scope="module")
def network(pictures: list[Pixels]) -> Any:
    return mean_scale_network(SMALL, pictures)


def test_rates_are_realistic(network: Any, pictures: list[Pixels]) -> None:
    x = to_tensor(pictures, torch.device("cpu"))
    with torch.inference_mode():
        likelihoods = network(x)["likelihoods"]
    y, z = (-likelihoods[name].log2().mean(dim=(0, 2, 3)) for name in ("y", "z"))
    assert 0.6 < y.mean() < 1.2  # bits a symbol: with 192 channels at 1/16 of the size about 0.7 bits per pixel
    assert y.min() < 0.05 and y.max() > 2
    assert 1 < z.mean() < 5


def test_symbols_and_rate_are_compressai_s_own(network: Any, pictures: list[Pixels]) -> None:
    codec = MeanScaleCodec(network)
    encoded = codec.encode(pictures)
    with torch.inference_mode():
        strings, shape = network.compress(to_tensor(pictures, torch.device("cpu"))).values()
        z = network.entropy_bottleneck.decompress(strings[1], shape)
        scales, _ = network.h_s(z).chunk(2, 1)
        indexes = network.gaussian_conditional.build_indexes(scales)
        y = network.gaussian_conditional.decompress(strings[0], indexes)
        z = (z - network.entropy_bottleneck.quantiles[:, 0, 1][:, None, None]).round()
        own_indexes, _ = codec._gaussians(z)
    np.testing.assert_array_equal(own_indexes, indexes.numpy())
    for n, one in enumerate(encoded):
        symbols = [plane[n].to(torch.int32).numpy() for plane in (z, y)]
        assert one.symbols == symbol_digest(*symbols)
        section = bitstream.unpack(one.bitstream).sections[0]
        for ours, theirs in ((section.z, strings[1][n]), (section.y, strings[0][n])):
            assert abs(len(ours) - len(theirs)) <= STREAM_BYTES + 0.001 * len(theirs)


def test_what_lichen_decodes_is_what_compressai_decodes(network: Any, pictures: list[Pixels]) -> None:
    codec, theirs = MeanScaleCodec(network), bench.Theirs("CompressAI", network)
    encoded = codec.encode(pictures)
    decoded = codec.decode([one.bitstream for one in encoded])
    assert [one.symbols for one in decoded] == [one.symbols for one in encoded]
    for one, other in zip(decoded, theirs.decode(theirs.encode(pictures)), strict=True):
        assert one.pixels.shape == other.shape and np.ptp(other) > 0
        assert np.abs(one.pixels.astype(int) - other).max() <= 1


def test_other_symbols_end_the_benchmark(network: Any, pictures: list[Pixels]) -> None:
    codec = MeanScaleCodec(network)
    ours = bench.Ours("ours", codec.encode, codec.decode)
    coded = ours.encode(pictures)
    decoded = ours.decode(coded)
    streams = ours.check(coded, decoded)
    assert 0 < sum(len(one.bitstream) for one in coded) - streams <= 2 * 25
    with pytest.raises(VerificationFailed, match="other symbols"):
        ours.check(coded, [decoded[0], replace(decoded[1], symbols=bytes(16))])


def test_the_command_reports_every_contestant(
    tmp_path: Path, network: Any, pictures: list[Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(tmp_path / f"{number}.png")
    monkeypatch.setattr(bench, "mean_scale_network", lambda *_: network)
    # One thread each in both ways: on a busy machine threads of one network wait for each other.
    monkeypatch.setattr(bench, "Lanes", lambda codecs, count=2: Lanes(codecs, count=count, cpus=count))
    before = torch.get_num_threads()
    done = CliRunner().invoke(build_app(), ["compressai", str(tmp_path), "--repeats", "1", "--json"])
    assert done.exit_code == 0, done.output
    assert torch.get_num_threads() == before
    result = json.loads(done.stdout)
    assert "untrained" in result["network"] and result["pictures"] == 2
    ways = [(row["name"], row["lanes"], row["threads"]) for row in result["speeds"]]
    names = ("CompressAI", "same network, lichen's coder", "s2c-conv")
    assert ways == [(name, *way) for name in names for way in ((1, 1), (2, 1))]
    assert all(row[key] > 0 for row in result["speeds"] for key in ("encode", "decode", "bpp"))
    assert result["speeds"][0]["encode_ratio"] == result["speeds"][0]["decode_ratio"] == 1
    # These pictures are so small that the states of two streams count.
    streams_of_theirs = result["speeds"][0]["bpp"] * result["megapixels"] * 1e6 / 8
    assert abs(result["rate_excess"]) < 0.001 + 4 * STREAM_BYTES / streams_of_theirs


def test_without_compressai_the_command_says_so(monkeypatch: pytest.MonkeyPatch, pictures: list[Pixels]) -> None:
    monkeypatch.setitem(sys.modules, "compressai.models", None)
    with pytest.raises(UsageError, match="CompressAI"):
        mean_scale.mean_scale_network(SMALL, pictures)


def test_only_learned_codecs_are_compared(tmp_path: Path, pictures: list[Pixels]) -> None:
    Image.fromarray(pictures[0]).save(tmp_path / "one.png")
    with pytest.raises(UsageError, match="webp"):
        bench.run(str(tmp_path), codec="webp")


def test_a_trained_network_is_the_one_that_was_trained(tmp_path: Path, pictures: list[Pixels]) -> None:
    torch.manual_seed(2)
    ours = build(config_of("compressai/mbt2018-mean", channels=16, latent=24))
    write_codec(tmp_path, "mbt", export(ours, "mbt", {}))
    theirs = mean_scale.trained_network(str(tmp_path / "mbt.json"))
    x = to_tensor(pictures, torch.device("cpu"))
    with torch.inference_mode():
        y = ours.analyse(x)
        assert torch.allclose(theirs.g_a(x), y, atol=1e-5)
        assert torch.allclose(theirs.g_s(y), ours.synthesise(y), atol=1e-5)
    assert theirs.gaussian_conditional.quantized_cdf.numel() > 0
    with pytest.raises(UsageError, match="no mbt2018-mean"):
        mean_scale.trained_network("s2c-conv")
