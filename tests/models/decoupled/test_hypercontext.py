"""The context of the hyper-latent: exact, reversible, and safe for hostile files and streams."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learned_support import altered, new_network, photograph
from torch import nn

from lichen.errors import CorruptBitstream, InvalidCodec
from lichen.models.decoupled.codec import DecoupledCodec
from lichen.models.decoupled.freezing import context_tables, integer_context
from lichen.models.decoupled.hypercontext import LEVELS, PHASES, HyperContext
from lichen.models.device import find_device
from lichen.models.entropy import rans
from lichen.models.registry import codec_from_files, export, load_files, network_from_files

HYPER = 6


def new_context(seed: int = 0, *, hyper: int = HYPER, size: float = 0.2) -> HyperContext:
    torch.manual_seed(seed)
    hidden, head = nn.Linear(6 * hyper, 8), nn.Linear(8, 2 * hyper)
    for layer in (hidden, head):
        nn.init.normal_(layer.weight, std=size)
        nn.init.normal_(layer.bias, std=size)
    return integer_context(hidden, head)


def base(*levels: float) -> np.ndarray:
    """Levels of the scales in 1/256; -1 for channels that are not coded."""
    return np.array([round(256 * level) if level >= 0 else -1 for level in levels])


BASE = base(12, 20, 30, -1, 5.5, 47)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.sampled_from([1, 3, 30, 32767]))
def test_every_symbol_comes_back(height: int, width: int, seed: int, largest: int) -> None:
    context = new_context(seed % 7)
    symbols = np.random.default_rng(seed).integers(-largest, largest + 1, (height, width, HYPER)).astype(np.int16)
    symbols[..., BASE < 0] = 0
    data = context.encode(symbols, BASE)
    assert np.array_equal(context.decode(data, height, width, BASE), symbols)


def test_channels_that_are_not_coded_take_nothing_and_are_zero() -> None:
    symbols = np.zeros((5, 4, HYPER), np.int16)
    nothing = np.full(HYPER, -1)
    assert new_context().encode(symbols, nothing) == b""
    assert not new_context().decode(b"", 5, 4, nothing).any()


def test_neighbours_make_symbols_cheaper() -> None:
    """Means that are the symbol to the left: where nothing changes along rows, nothing is left to code."""
    hidden, head = nn.Linear(6, 1, bias=False), nn.Linear(1, 2)
    hidden.bias = nn.Parameter(torch.zeros(1))
    with torch.no_grad():
        hidden.weight[:] = torch.tensor([4.0, 0, 0, 0, 0, 0])
        hidden.bias[:] = 8  # no activation below zero
        head.weight[:] = torch.tensor([[1.0], [0]])
        head.bias[:] = torch.tensor([-8.0, 0])
    context = integer_context(hidden, head)
    symbols = np.repeat(np.random.default_rng(0).integers(-7, 8, (40, 1, 1)), 40, axis=1).astype(np.int16)
    plain = np.random.default_rng(0).permutation(symbols.ravel()).reshape(symbols.shape)
    level = base(16)
    assert np.array_equal(context.decode(context.encode(symbols, level), 40, 40, level), symbols)
    assert len(context.encode(symbols, level)) < 0.4 * len(context.encode(plain, level))


def test_indexes_do_not_depend_on_the_order_of_summation() -> None:
    context, order = new_context(), np.random.default_rng(1).permutation(HYPER)
    around = np.random.default_rng(2).integers(-9, 10, (50, 3, HYPER)).astype(np.int32)
    hidden = context.weights["hidden"].reshape(2, 3, HYPER, -1)[:, :, order].reshape(6 * HYPER, -1)
    permuted = replace(context, weights=dict(context.weights) | {"hidden": np.ascontiguousarray(hidden)})
    for one, other in zip(context.indexes(around, BASE), permuted.indexes(around[..., order], BASE), strict=True):
        assert np.array_equal(one, other)


def test_indexes_follow_the_float_network() -> None:
    torch.manual_seed(4)
    hidden, head = nn.Linear(6 * HYPER, 8), nn.Linear(8, 2 * HYPER)
    context = integer_context(hidden, head)
    around = np.random.default_rng(2).integers(-12, 13, (200, 3, HYPER)).astype(np.int32)
    near = torch.from_numpy(around).clamp(-8, 8).flatten(1).float() / 4
    with torch.no_grad():
        x = head(nn.functional.leaky_relu(hidden(torch.cat([near, near.abs()], dim=1)), 0.25)).numpy()
    index, shift, sign = context.indexes(around, base(*[24] * HYPER))
    level, phase = index // PHASES, index % PHASES
    mean = shift + sign * (phase + 0.5) / (2 * PHASES)
    assert np.abs(mean - x[:, :HYPER]).max() < 0.5 / (2 * PHASES) + 0.02
    assert np.abs(level - (24 + x[:, HYPER:] * 2285 / 256)).max() < 0.6


def test_tables_have_their_means() -> None:
    tables = context_tables()
    assert tables.count == PHASES * LEVELS
    for index in (PHASES * 20, PHASES * 20 + 3, PHASES * 40 + 2):
        first, size = tables.firsts[index], tables.sizes[index] - 1
        frequencies = tables.frequencies[first : first + size].astype(np.float64)
        mean = frequencies @ (tables.minimums[index] + np.arange(size)) / frequencies.sum()
        assert abs(mean - (index % PHASES + 0.5) / (2 * PHASES)) < 0.01


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_streams_are_refused_or_decode_to_something_else(data: st.DataObject) -> None:
    context = new_context()
    symbols = np.random.default_rng(3).integers(-2, 3, (6, 5, HYPER)).astype(np.int16)
    symbols[..., BASE < 0] = 0
    stream = bytearray(context.encode(symbols, BASE))
    if data.draw(st.booleans()):
        stream[data.draw(st.integers(0, len(stream) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    else:
        del stream[data.draw(st.integers(0, len(stream) - 1)) :]
    try:
        found = context.decode(bytes(stream), 6, 5, BASE)
    except CorruptBitstream:
        return
    assert not np.array_equal(found, symbols)


def test_symbols_out_of_range_are_refused() -> None:
    context = new_context()
    around = np.zeros((1, 3, HYPER), np.int32)
    index, _, _ = context.indexes(around, BASE)
    stream = rans.encode(np.full((1, HYPER), 1 << 20, np.int32), index, context.tables, single=True)
    with pytest.raises(CorruptBitstream, match="larger"):
        context.decode(stream, 1, 1, BASE)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_hostile_arrays_are_refused_or_run(data: st.DataObject) -> None:
    arrays = altered(new_context().to_arrays(), data)
    try:
        changed = HyperContext.from_arrays(arrays)
    except InvalidCodec:
        return
    levels = np.full(changed.hyper, 20 * 256)
    symbols = np.random.default_rng(0).integers(-3, 4, (3, 3, changed.hyper)).astype(np.int16)
    assert np.array_equal(changed.decode(changed.encode(symbols, levels), 3, 3, levels), symbols)


# --- in a codec -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    network = new_network()
    return export(network, "small", {}, new_context(hyper=network.config.hyper, size=0.1))


@pytest.fixture(scope="module")
def with_context(files: dict[str, bytes]) -> DecoupledCodec:
    return load_files(files, find_device("cpu", "float32"))


def test_a_codec_with_a_context_decodes_the_same_pictures(codec: DecoupledCodec, with_context: DecoupledCodec) -> None:
    assert with_context.digest != codec.digest
    image = photograph()[:200, :300]
    for quality in (5, 50, 95):
        (plain,), (encoded,) = codec.encode([image], quality), with_context.encode([image], quality)
        assert encoded.symbols == plain.symbols and encoded.bitstream != plain.bitstream
        archived = codec_from_files(with_context.decoder_files(), precision="float32")
        (decoded,) = archived.decode([encoded.bitstream])
        assert decoded.symbols == encoded.symbols
        assert np.array_equal(decoded.pixels, codec.decode([plain.bitstream])[0].pixels)


def test_tiles_have_contexts_of_their_own(with_context: DecoupledCodec) -> None:
    large = np.tile(photograph()[:256, :256], (12, 9, 1))  # more than one section
    (encoded,) = with_context.encode([large], 30)
    assert with_context.decode([encoded.bitstream])[0].symbols == encoded.symbols


def mixed(json_of: dict[str, bytes], weights_of: dict[str, bytes]) -> dict[str, bytes]:
    """What an archive would carry of two codecs, the JSON of one and the weights of the other."""
    config, weights = (load_files(files, find_device("cpu", "float32")) for files in (json_of, weights_of))
    return {"json": config.decoder_files()["json"], "safetensors": weights.decoder_files()["safetensors"]}


def test_the_self_test_covers_the_context(files: dict[str, bytes], with_context: DecoupledCodec) -> None:
    context = with_context.prior.context
    assert context is not None
    biases = {name: bias + 40_000 for name, bias in context.biases.items()}
    other = export(new_network(), "small", {}, replace(context, biases=biases))
    with pytest.raises(InvalidCodec, match="self-test"):
        codec_from_files(mixed(files, other), precision="float32")


def test_versions_of_the_format_are_not_mixed(files: dict[str, bytes], codec_files: dict[str, bytes]) -> None:
    for json_of, weights_of in ((files, codec_files), (codec_files, files)):
        with pytest.raises(InvalidCodec, match="version"):
            codec_from_files(mixed(json_of, weights_of), precision="float32")


def test_training_goes_on_without_the_context(files: dict[str, bytes], codec: DecoupledCodec) -> None:
    again = export(network_from_files(files), "small", {})
    assert load_files(again, find_device("cpu", "float32")).digest == codec.digest
