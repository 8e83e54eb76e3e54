"""The range ANS coder trusts no byte: whatever it is given, it ends in symbols or in the one error that is allowed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rans_support import GAUSSIAN, SMALL, decode_by_the_book, gaussian_data, noise

from lichen.errors import CorruptBitstream
from lichen.models.entropy import rans
from lichen.models.entropy.tables import CoderTables


def outcome(data: bytes, indexes: NDArray[np.uint8], tables: CoderTables) -> NDArray[np.int32] | None:
    """What decoding gives: symbols of the right shape, or None for the one error that is allowed."""
    try:
        symbols = rans.decode(data, indexes, tables)
    except CorruptBitstream:
        return None
    assert symbols.shape == indexes.shape and symbols.dtype == np.int32
    return symbols


@pytest.mark.parametrize("size", [300, 20_000, 150_000])
def test_every_truncation_and_extension_is_noticed(size: int) -> None:
    symbols, indexes = gaussian_data(size, seed=8)
    indexes = np.maximum(indexes, GAUSSIAN.skip_index).astype(np.uint8)
    data = rans.encode(symbols, indexes, GAUSSIAN)
    step = max(1, len(data) // 150)
    for length in [*range(0, len(data), step), len(data) - 1, len(data) - 2]:
        assert outcome(data[:length], indexes, GAUSSIAN) is None
    for tail in (b"\0", b"\0\0", bytes(64), b"\xff" * 1000):
        assert outcome(data + tail, indexes, GAUSSIAN) is None


def test_flipped_bits_are_noticed_almost_always() -> None:
    symbols, indexes = gaussian_data(3000, seed=9)
    data = rans.encode(symbols, indexes, GAUSSIAN)
    unnoticed = 0
    for place in noise(600, 8 * len(data), 13).tolist():
        damaged = bytearray(data)
        damaged[place // 8] ^= 1 << place % 8
        unnoticed += outcome(bytes(damaged), indexes, GAUSSIAN) is not None
    assert unnoticed == 0


@settings(max_examples=400, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 400), st.integers(0, 255))
def test_random_bytes_end_in_symbols_or_in_our_error(data: bytes, size: int, seed: int) -> None:
    outcome(data, noise(size, 3, seed).astype(np.uint8), SMALL)
    outcome(data, noise(size, 64, seed).astype(np.uint8), GAUSSIAN)


def test_random_bytes_at_every_number_of_states() -> None:
    random = np.random.default_rng(4)
    for size in (1000, 20_000, 140_000):
        for length in (0, 4, 9, 18, 300, 40_000):
            indexes = random.integers(0, 64, size, dtype=np.uint8)
            assert outcome(random.bytes(length), indexes, GAUSSIAN) is None
            lanes_full = b"\xff" * length
            assert outcome(lanes_full, indexes, GAUSSIAN) is None


def escaped_stream(groups: list[int]) -> bytes:
    """A stream of one symbol of SMALL's second table: an escape and these groups, whatever they mean."""
    words: list[int] = []
    state = 1 << 20
    for group in reversed(groups):
        if state >= 1 << 32:
            words.insert(0, state & 0xFFFF)
            state >>= 16
        state = state << 4 | group
    if state >= 32768 << 20:
        words.insert(0, state & 0xFFFF)
        state >>= 16
    state = (state // 32768 << 16) + state % 32768 + 32768
    return state.to_bytes(5, "little") + b"".join(word.to_bytes(2, "little") for word in words)


def test_escapes_have_one_spelling_and_an_end() -> None:
    one = np.array([1], dtype=np.uint8)
    assert rans.decode(escaped_stream([0]), one, SMALL).tolist() == [8]
    assert rans.decode(escaped_stream([1]), one, SMALL).tolist() == [6]
    assert rans.decode(escaped_stream([8, 1]), one, SMALL).tolist() == [12]
    largest = 2 * ((1 << 31) - 1 - 8)
    spelled = [(largest >> shift & 7) | (8 if shift < 30 else 0) for shift in range(0, 33, 3)]
    assert rans.decode(escaped_stream(spelled), one, SMALL).tolist() == [(1 << 31) - 1]
    for groups in ([8, 0], [9, 8, 0], [15] * 11 + [1], [15] * 11 + [7], [8] * 12, [15] * 40, [8] * 4000):
        with pytest.raises(CorruptBitstream, match="escaped value"):
            rans.decode(escaped_stream(groups), one, SMALL)
    too_large = largest + 2
    spelled = [(too_large >> shift & 7) | (8 if shift < 30 else 0) for shift in range(0, 33, 3)]
    with pytest.raises(CorruptBitstream, match="escaped value"):
        rans.decode(escaped_stream(spelled), one, SMALL)


def test_hostile_but_valid_tables_are_safe() -> None:
    """One table with the longest searches there can be: 32,768 entries, all but one of frequency 1."""
    entries = 32_769
    frequencies = np.ones(entries, dtype=np.uint16)
    frequencies[0] = 65536 - (entries - 1)
    tables = CoderTables(
        frequencies=frequencies,
        sizes=np.array([entries], dtype=np.int32),
        minimums=np.array([-16_000], dtype=np.int32),
    )
    symbols = (noise(30_000, entries + 10, 17) - 16_005).astype(np.int32)
    indexes = np.zeros(symbols.size, dtype=np.uint8)
    data = rans.encode(symbols, indexes, tables)
    assert np.array_equal(rans.decode(data, indexes, tables), symbols)
    assert decode_by_the_book(data[:0], [], tables) == []
