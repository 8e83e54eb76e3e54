"""Codec files: what is stored, what an archive carries, and what hostile files may not do."""

from __future__ import annotations

import json

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learned_support import damaged, photograph

from lichen.errors import InvalidCodec, UsageError
from lichen.models.decoupled.codec import DecoupledCodec
from lichen.models.decoupled.network import CodecNetwork, NetworkConfig
from lichen.models.device import find_device
from lichen.models.registry import codec_from_files, export, load_codec, load_files, network_from_files

CPU = find_device("cpu", "float32")


def test_an_archives_files_decode_and_do_not_encode(codec: DecoupledCodec) -> None:
    image = photograph()[:100, :150]
    (encoded,) = codec.encode([image], 70)
    decoder = codec_from_files(codec.decoder_files(), precision="float32")
    assert decoder.digest == codec.digest
    assert decoder.decoder_files() == codec.decoder_files()
    (decoded,) = decoder.decode([encoded.bitstream])
    assert decoded.symbols == encoded.symbols
    assert np.array_equal(decoded.pixels, codec.decode([encoded.bitstream])[0].pixels)
    with pytest.raises(UsageError):
        decoder.encode([image], 70)


def test_the_digest_covers_decoding_and_nothing_else(codec_files: dict[str, bytes], codec: DecoupledCodec) -> None:
    card = json.loads(codec_files["json"])
    card["notes"]["remark"] = "anything"
    assert load_files(codec_files | {"json": json.dumps(card).encode()}, CPU).digest == codec.digest
    arrays = safetensors.numpy.load(codec_files["safetensors"])
    arrays["encoder.g_a.network.stem.bias"] = arrays["encoder.g_a.network.stem.bias"] + np.float16(1)
    changed = codec_files | {"safetensors": safetensors.numpy.save(arrays)}
    assert load_files(changed, CPU).digest == codec.digest
    arrays["decoder.g_s.network.stem.bias"] = arrays["decoder.g_s.network.stem.bias"] + np.float16(1)
    with pytest.raises(InvalidCodec, match="digest"):
        load_files(codec_files | {"safetensors": safetensors.numpy.save(arrays)}, CPU)


@pytest.mark.parametrize(
    ("written", "flipped"),
    [(b'"format": 1', b'"format": 3'), (b'"decoupled"', b'"decouqled"'), (b'"small"', b'"smalm"')],
)
def test_a_flipped_byte_is_called_damage(codec_files: dict[str, bytes], written: bytes, flipped: bytes) -> None:
    changed = codec_files["json"].replace(written, flipped, 1)
    assert changed != codec_files["json"]
    for load in (lambda files: load_files(files, CPU), network_from_files):
        with pytest.raises(InvalidCodec, match="damaged"):
            load(codec_files | {"json": changed})


@pytest.mark.parametrize(
    ("written", "flipped"), [(b'"format":1', b'"format":3'), (b'"decoupled"', b'"decouqled"'), (b'"small"', b'"smalm"')]
)
def test_so_is_one_in_an_archive(codec: DecoupledCodec, written: bytes, flipped: bytes) -> None:
    files = dict(codec.decoder_files())
    changed = files | {"json": files["json"].replace(written, flipped, 1)}
    assert changed != files
    with pytest.raises(InvalidCodec, match="damaged"):
        codec_from_files(changed, digest=codec.digest)
    assert codec_from_files(files, digest=codec.digest).digest == codec.digest


def test_a_classical_codec_that_is_another_is_called_damage() -> None:
    codec = load_codec("webp")
    files = dict(codec.decoder_files())
    with pytest.raises(InvalidCodec, match="damaged"):
        codec_from_files({"json": files["json"].replace(b'"format":1', b'"format":2')}, digest=codec.digest)


def test_training_can_go_on_from_shipped_files(codec_files: dict[str, bytes], codec: DecoupledCodec) -> None:
    network = network_from_files(codec_files).train()

    again = load_files(export(network, "small", {}), CPU)
    assert again.digest == codec.digest
    decoded, y_bits, z_bits = network(torch.rand(1, 3, 64, 64), torch.tensor([50.0]))
    (decoded.sum() + y_bits.sum() + z_bits.sum()).backward()
    assert all(p.grad is not None for p in network.parameters())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hyper", 10**9),
        ("width", 10**6),
        ("width", [144]),
        ("width", True),
        ("depth", 10**6),
        ("anchors", 1),
        ("luma", "many"),
        ("luma", True),
        ("lambda_min", float("nan")),
        ("context", -1),
        ("features", None),
    ],
)
def test_absurd_constructor_arguments_are_refused(codec: DecoupledCodec, key: str, value: object) -> None:
    files = dict(codec.decoder_files())
    config = json.loads(files["json"])
    config["arguments"][key] = value
    with pytest.raises(InvalidCodec):
        codec_from_files(files | {"json": json.dumps(config).encode()})


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"family": "s2c-conv"}', b"[" * 100_000, b"1e999999", b'{"family": 3}'],
)
def test_malformed_json_is_refused(codec: DecoupledCodec, text: bytes) -> None:
    with pytest.raises(InvalidCodec):
        codec_from_files(dict(codec.decoder_files()) | {"json": text})


def test_unknown_format_and_self_test_are_refused(codec: DecoupledCodec) -> None:
    files = dict(codec.decoder_files())
    for change in ({"format": 2}, {"self_test": "0" * 32}, {"self_test": "zz"}, {"extra": 1}, {"name": ""}):
        config = json.loads(files["json"]) | change
        with pytest.raises(InvalidCodec):
            codec_from_files(files | {"json": json.dumps(config).encode()})


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_hostile_weights_are_refused(codec: DecoupledCodec, data: st.DataObject) -> None:
    files = dict(codec.decoder_files())
    weights = damaged(files["safetensors"], data, header=2000)
    try:
        changed = codec_from_files(files | {"safetensors": weights})
    except InvalidCodec:
        return
    assert changed.digest != codec.digest or weights == files["safetensors"]


def test_values_that_are_not_finite_are_refused(codec: DecoupledCodec) -> None:
    files = dict(codec.decoder_files())
    arrays = safetensors.numpy.load(files["safetensors"])
    arrays["g_s.network.stem.bias"][0] = np.nan
    with pytest.raises(InvalidCodec, match="finite"):
        codec_from_files(files | {"safetensors": safetensors.numpy.save(arrays)})


@pytest.mark.parametrize(("blocks", "width"), [("tcm", 145), ("hscatb", 145), ("s2c-attention", 56)])
def test_arguments_that_do_not_go_together_are_refused(codec: DecoupledCodec, blocks: str, width: int) -> None:
    """Networks that can be built, and all weights of which fit, but that cannot run."""
    files = dict(codec.decoder_files())
    config = json.loads(files["json"])
    config["arguments"] |= {"blocks": blocks, "width": width}
    with torch.device("meta"):
        shapes = {
            name: tensor.shape
            for name, tensor in CodecNetwork(NetworkConfig(**config["arguments"])).state_dict().items()
        }
    arrays = safetensors.numpy.load(files["safetensors"])
    weights = {name: array for name, array in arrays.items() if not name.startswith("g_s.")}
    weights |= {name: np.zeros(shape, np.float16) for name, shape in shapes.items() if name.startswith("g_s.")}
    with pytest.raises(InvalidCodec, match="runs"):
        codec_from_files({"json": json.dumps(config).encode(), "safetensors": safetensors.numpy.save(weights)})
