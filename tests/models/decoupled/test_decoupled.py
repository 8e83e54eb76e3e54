"""The learned codec from pixels to bytes and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from learned_support import kodak, new_network, photograph

from lichen import defaults
from lichen.errors import CodecMismatch, CorruptBitstream, UnsupportedPicture, UsageError
from lichen.models import planes
from lichen.models.bitstream import pack, unpack
from lichen.models.codec import Codec
from lichen.models.decoupled.codec import DecoupledCodec
from lichen.models.device import find_device
from lichen.models.registry import export, load_codec, load_files

SHIPPED = (defaults.CODEC, defaults.STRONG_CODEC, defaults.EXACT_CODEC)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((a.astype(float) - b) ** 2), 1e-9)))


def squared_error(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.mean((a.astype(float) - b) ** 2, axis=2)


def test_is_a_codec(codec: DecoupledCodec) -> None:
    assert isinstance(codec, Codec)
    assert len(bytes.fromhex(codec.digest)) == 32


@pytest.mark.parametrize("size", [(1, 1), (1, 70), (63, 65), (64, 64), (129, 200)])
def test_any_size_round_trips(codec: DecoupledCodec, size: tuple[int, int]) -> None:
    image = photograph()[: size[0], : size[1]]
    (encoded,) = codec.encode([image], 80)
    (decoded,) = codec.decode([encoded.bitstream])
    assert decoded.symbols == encoded.symbols
    assert decoded.pixels.shape == image.shape
    assert decoded.pixels.dtype == np.uint8
    assert psnr(decoded.pixels, image) > 25


def test_higher_quality_costs_more_and_looks_better(codec: DecoupledCodec) -> None:
    image = photograph()[:256, :256]
    lengths, quality = [], []
    for q in (1, 25.5, 60, 100):
        (encoded,) = codec.encode([image], q)
        lengths.append(len(encoded.bitstream))
        quality.append(psnr(codec.decode([encoded.bitstream])[0].pixels, image))
    assert lengths == sorted(lengths)
    assert quality == sorted(quality)


def test_batches_give_the_same_symbols_as_single_pictures(codec: DecoupledCodec) -> None:
    image = photograph()
    images = [image[i * 16 : i * 16 + 128, i * 8 : i * 8 + 192] for i in range(5)] + [image[:70, :90]]
    qualities = [20, 30, 40, 50, 60, 70.0]
    together = codec.encode(images, qualities)
    for one, picture, quality in zip(together, images, qualities, strict=True):
        (alone,) = codec.decode([one.bitstream])
        assert alone.symbols == one.symbols
        assert alone.pixels.shape == picture.shape
        assert unpack(one.bitstream).quality == round((quality - 1) * 8)
    mixed = codec.decode([e.bitstream for e in together[::-1]])
    assert [d.symbols for d in mixed] == [e.symbols for e in together[::-1]]


def test_tiles_have_no_seams_and_cost_no_rate(codec: DecoupledCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.tile(photograph()[:512, :512], (2, 2, 1))[:700, :900]
    (whole,) = codec.encode([image], 60)
    untiled = codec.decode([whole.bitstream])[0].pixels
    monkeypatch.setattr(planes, "UNTILED_PIXELS", 1 << 16)
    monkeypatch.setattr(planes, "TILE_LOG2", 8)
    (encoded,) = codec.encode([image], 60)
    assert unpack(encoded.bitstream).tile_log2 == 8
    (decoded,) = codec.decode([encoded.bitstream])
    assert decoded.symbols == encoded.symbols
    # the networks see halos as wide as their receptive fields, so tiles change nothing but rounding
    assert np.mean(np.abs(decoded.pixels.astype(int) - untiled.astype(int)) > 1) < 1e-4
    overhead = 12 * (3 * 4 + 16)  # lengths and coder states of twelve tiles
    assert len(encoded.bitstream) < len(whole.bitstream) * 1.005 + overhead


@pytest.mark.parametrize("name", SHIPPED)
def test_no_seam_shows_with_the_shipped_weights(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = load_codec(name)
    image = np.concatenate([kodak(0), kodak(3)], axis=1)  # 512 x 1536
    (whole,) = shipped.encode([image], 50)
    untiled = squared_error(shipped.decode([whole.bitstream])[0].pixels, image)
    monkeypatch.setattr(planes, "UNTILED_PIXELS", 1 << 16)
    monkeypatch.setattr(planes, "TILE_LOG2", 9)
    (encoded,) = shipped.encode([image], 50)
    assert unpack(encoded.bitstream).tile_log2 == 9
    tiled = squared_error(shipped.decode([encoded.bitstream])[0].pixels, image)
    band = np.zeros(image.shape[1], dtype=bool)
    for border in (512, 1024):
        band[border - 8 : border + 8] = True
    # relative to the untiled picture, since what the picture shows there differs from what it shows elsewhere
    at_borders, elsewhere = (tiled[:, where].mean() / untiled[:, where].mean() for where in (band, ~band))
    assert at_borders / elsewhere == pytest.approx(1, abs=0.02)
    assert len(encoded.bitstream) < len(whole.bitstream) * 1.005


@pytest.mark.parametrize("name", SHIPPED)
def test_half_precision_shows_nowhere(name: str) -> None:
    """Of the sample photographs this one suffers most from half precision."""
    image = np.ascontiguousarray(photograph()[:256, :256])
    (encoded,) = load_codec(name, precision="float32").encode([image], 50)
    errors = []
    for precision in ("float32", "bfloat16"):
        (decoded,) = load_codec(name, precision=precision).decode([encoded.bitstream])
        assert decoded.symbols == encoded.symbols
        errors.append(psnr(decoded.pixels, image))
    assert errors[0] == pytest.approx(errors[1], abs=0.02)


def test_another_codecs_bitstream_is_told_apart(codec: DecoupledCodec) -> None:
    (encoded,) = codec.encode([photograph()[:64, :64]], 50)
    parsed = unpack(encoded.bitstream)
    other = pack(type(parsed)(**{f: getattr(parsed, f) for f in parsed.__slots__} | {"codec": b"\0\1\2\3"}))
    with pytest.raises(CodecMismatch):
        codec.decode([other])


def test_sections_of_another_picture_are_corrupt(codec: DecoupledCodec) -> None:
    (encoded,) = codec.encode([photograph()[:128, :128]], 50)
    parsed = unpack(encoded.bitstream)
    wrong = {f: getattr(parsed, f) for f in parsed.__slots__}
    with pytest.raises(CorruptBitstream):
        codec.decode([pack(type(parsed)(**wrong | {"width": 256}))])
    with pytest.raises(CorruptBitstream):
        codec.decode([pack(type(parsed)(**wrong | {"tile_log2": 11}))])


@pytest.mark.parametrize("quality", [0.5, 101, -3])
def test_quality_out_of_range_is_refused(codec: DecoupledCodec, quality: float) -> None:
    with pytest.raises(UsageError):
        codec.encode([photograph()[:64, :64]], quality)


def test_one_quality_for_each_picture(codec: DecoupledCodec) -> None:
    with pytest.raises(UsageError):
        codec.encode([photograph()[:64, :64]], [50, 60])


def test_hyper_latent_channels_that_are_not_coded_are_zero(codec: DecoupledCodec) -> None:
    network = new_network()
    with torch.no_grad():
        network.entropy.z_scale.table[:, ::2] = -10.0
        network.entropy.z_step.table.mul_(0.2)  # so that their symbols would not be zero
    quiet = load_files(export(network, "quiet", {}), find_device("cpu", "float32"))
    (encoded,) = quiet.encode([photograph()[:192, :256]], 60)
    assert quiet.decode([encoded.bitstream])[0].symbols == encoded.symbols


@pytest.mark.parametrize("size", [(1, (1 << 20) + 1), (16384, 16385)])
def test_what_the_decoder_would_refuse_is_not_encoded(codec: DecoupledCodec, size: tuple[int, int]) -> None:
    image = np.broadcast_to(np.zeros(3, np.uint8), (*size, 3))
    with pytest.raises(UnsupportedPicture, match="pixels"):
        codec.encode([image], 50)
