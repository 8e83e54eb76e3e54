"""Every system's blocks in the frame of the codec: size, cost, gradients, odd sizes, the way to bytes and back."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from learned_support import SMALL, new_network, photograph
from torch.utils.flop_counter import FlopCounterMode

from lichen.errors import InvalidCodec, UsageError
from lichen.models.bundle import parse_card
from lichen.models.decoupled.network import CodecNetwork, NetworkConfig
from lichen.models.decoupled.trunks import TRUNKS, parse
from lichen.models.device import find_device
from lichen.models.registry import codec_from_files, export, load_files

SWITCHED = ("s2c-conv:gated-conv", "s2c-attention:mlp", "hscatb:no-low,no-channel", "hscatb:squeeze,no-mixed")


def small(blocks: str) -> NetworkConfig:
    depth = 2 if blocks in ("tcm", "s2c-hybrid") else 1  # one block of each kind
    return replace(SMALL, blocks=blocks, width=32, depth=depth)


@pytest.mark.parametrize("blocks", TRUNKS)
def test_sizes_are_comparable(blocks: str) -> None:
    network = CodecNetwork(NetworkConfig.of(blocks)).eval()
    assert 3e6 <= sum(p.numel() for p in network.parameters()) <= 8e6
    x, position = torch.rand(1, 3, 128, 128), torch.zeros(1)
    with torch.no_grad(), FlopCounterMode(display=False) as flops:
        network.g_s(network.g_a(x, position), position)
    assert 20e3 <= flops.get_total_flops() / 2 / 128**2 <= 30e3


@pytest.mark.parametrize("blocks", [*TRUNKS, *SWITCHED])
def test_every_parameter_gets_a_gradient(blocks: str) -> None:
    network = new_network(small(blocks))
    decoded, y_bits, z_bits = network(torch.rand(2, 3, 64, 128), torch.tensor([10.0, 90.0]))
    assert decoded.shape == (2, 3, 64, 128)
    (decoded.square().sum() * 100 + y_bits.sum() + z_bits.sum()).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # a constant added to all keys changes no attention
    assert [n for n in without if not n.endswith("bias")] == []


@pytest.mark.parametrize("blocks", [*TRUNKS, *SWITCHED])
def test_to_bytes_and_back(blocks: str) -> None:
    files = export(new_network(small(blocks)), "small", {})
    codec = load_files(files, find_device("cpu", "float32"))
    sizes = [(1, 1), (1, 70), (65, 63), (130, 200)]
    images = [np.ascontiguousarray(photograph()[:h, :w]) for h, w in sizes]
    encoded = codec.encode(images, 70)
    archived = codec.decoder_files()
    decoder = codec_from_files(archived, precision="float32")
    for image, one, decoded in zip(images, encoded, decoder.decode([e.bitstream for e in encoded]), strict=True):
        assert decoded.symbols == one.symbols
        assert decoded.pixels.shape == image.shape
    error = np.mean((decoded.pixels.astype(float) - images[-1]) ** 2)
    assert 10 * np.log10(255**2 / error) > 25


def test_unknown_blocks_and_switches() -> None:
    with pytest.raises(UsageError, match="no architecture 'vgg'"):
        parse("vgg")
    with pytest.raises(UsageError, match="no switch 'fast'"):
        NetworkConfig.of("hscatb:no-low,fast")


@pytest.mark.parametrize("blocks", ["vgg", "tcm:mlp", 3, None, ["tcm"]])
def test_hostile_blocks(blocks: object) -> None:
    files = export(new_network(), "small", {})
    codec = load_files(files, find_device("cpu", "float32")).decoder_files()
    config = parse_card(codec)
    config["arguments"]["blocks"] = blocks
    with pytest.raises(InvalidCodec, match="blocks"):
        codec_from_files(codec | {"json": json.dumps(config).encode()}, precision="float32")
