"""The range ANS coder: exact round trips, the promised rate, a frozen format, and no trust in any byte."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lichen.errors import CorruptBitstream, InvalidCodec
from lichen.models.entropy import rans
from lichen.models.entropy.tables import CoderTables, GaussianScales, gaussian_tables, ideal_bits

INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
GAUSSIAN = gaussian_tables(skip_index=6)
SMALL = CoderTables(
    frequencies=np.array([60000, 5000, 536, 32768, 32768, 1, 65534, 1], dtype=np.uint16),
    sizes=np.array([3, 2, 3], dtype=np.int32),
    minimums=np.array([-1, 7, 0], dtype=np.int32),
)
LENGTHS = [
    1,
    2,
    3,
    4,
    5,
    7,
    100,
    (1 << 14) - 1,
    1 << 14,
    (1 << 14) + 1,
    (1 << 17) - 1,
    1 << 17,
    (1 << 17) + 3,
]


def gaussian_data(size: int, seed: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Symbols drawn from the tables that their indexes select; zero where nothing is coded."""
    random = np.random.default_rng(seed)
    indexes = np.clip(random.normal(18, 12, size), 0, 63).astype(np.uint8)
    symbols = np.rint(random.normal(size=size) * GaussianScales().values()[indexes]).astype(np.int32)
    return np.where(indexes >= GAUSSIAN.skip_index, symbols, 0).astype(np.int32), indexes


def noise(size: int, modulus: int, seed: int) -> NDArray[np.int64]:
    """Integers that are the same in every version of every library."""
    state, values = seed, []
    for _ in range(size):
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        values.append((state >> 33) % modulus)
    return np.array(values, dtype=np.int64)


def decode_by_the_book(data: bytes, indexes: list[int], tables: CoderTables) -> list[int]:
    """A decoder written from docs/bitstream.md alone, slow and plain."""
    coded = [place for place, index in enumerate(indexes) if index >= tables.skip_index]
    lanes = 0 if not coded else 1 if len(coded) < 1 << 14 else 2 if len(coded) < 1 << 17 else 4
    head = (36 * lanes + 7) // 8
    packed = int.from_bytes(data[:head], "little")
    states = [packed >> 36 * lane & (1 << 36) - 1 for lane in range(lanes)]
    assert packed >> 36 * lanes == 0 and all(state >= 1 << 20 for state in states)
    words = [int.from_bytes(data[at : at + 2], "little") for at in range(head, len(data), 2)][::-1]

    def refilled(state: int) -> int:
        return state if state >= 1 << 20 else state << 16 | words.pop()

    symbols = [0] * len(indexes)
    for turn, place in enumerate(coded):
        state, index = states[turn % lanes], indexes[place]
        first, size, value = int(tables.firsts[index]), int(tables.sizes[index]), int(tables.minimums[index])
        slot, entry, start = state & 0xFFFF, 0, 0
        while slot >= start + (frequency := int(tables.frequencies[first + entry])):
            start += frequency
            entry += 1
        state = refilled(frequency * (state >> 16) + slot - start)
        if entry < size - 1:
            symbols[place] = value + entry
        else:
            distance, shift, group = 0, 0, 8
            while group & 8:
                group = state & 15
                state = refilled(state >> 4)
                distance |= (group & 7) << shift
                shift += 3
            beyond = distance // 2
            symbols[place] = value - 1 - beyond if distance % 2 else value + size - 1 + beyond
        states[turn % lanes] = state
    assert not words and all(state == 1 << 20 for state in states)
    return symbols


# --- round trips ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", LENGTHS)
def test_round_trip_at_every_number_of_states(size: int) -> None:
    symbols, indexes = gaussian_data(size, seed=size)
    indexes = np.maximum(indexes, GAUSSIAN.skip_index).astype(np.uint8)  # exactly ``size`` coded symbols
    symbols[::97] += 5000  # escapes in every state
    data = rans.encode(symbols, indexes, GAUSSIAN)
    assert np.array_equal(rans.decode(data, indexes, GAUSSIAN), symbols)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.one_of(st.integers(-3, 10), INT32), st.integers(0, 2)), max_size=60))
def test_any_integers_round_trip(pairs: list[tuple[int, int]]) -> None:
    symbols = np.array([symbol for symbol, _ in pairs], dtype=np.int32)
    indexes = np.array([index for _, index in pairs], dtype=np.uint8)
    data = rans.encode(symbols, indexes, SMALL)
    assert np.array_equal(rans.decode(data, indexes, SMALL), symbols)
    assert decode_by_the_book(data, indexes.tolist(), SMALL) == symbols.tolist()


def test_escapes_at_the_ends_of_every_table_and_of_int32() -> None:
    near = [-(1 << 31), -(1 << 31) + 1, -70000, 70000, (1 << 31) - 2, (1 << 31) - 1]
    for table in range(GAUSSIAN.skip_index, GAUSSIAN.count):
        low = int(GAUSSIAN.minimums[table])
        high = low + int(GAUSSIAN.sizes[table]) - 2
        edges = [low + d for d in range(-70, 2)] + [high + d for d in range(-1, 71)]
        symbols = np.array(near + edges, dtype=np.int32)
        indexes = np.full(symbols.size, table, dtype=np.uint8)
        assert np.array_equal(rans.decode(rans.encode(symbols, indexes, GAUSSIAN), indexes, GAUSSIAN), symbols)


def test_every_symbol_escaped_needs_no_more_room_than_there_is() -> None:
    symbols = np.where(noise(50_000, 2, 1) == 0, -(1 << 31), (1 << 31) - 1).astype(np.int32)
    indexes = np.full(symbols.size, 2, dtype=np.uint8)
    data = rans.encode(symbols, indexes, SMALL)
    assert np.array_equal(rans.decode(data, indexes, SMALL), symbols)
    assert len(data) <= 50_000 * 60 / 8 + 20


def test_skipped_symbols_cost_nothing_and_decode_as_zero() -> None:
    symbols = np.arange(1000, dtype=np.int32)
    low = np.full(1000, GAUSSIAN.skip_index - 1, dtype=np.uint8)
    assert rans.encode(symbols, low, GAUSSIAN) == b""
    assert not rans.decode(b"", low, GAUSSIAN).any()
    mixed = low.copy()
    mixed[[3, 500, 999]] = 40
    data = rans.encode(symbols, mixed, GAUSSIAN)
    assert data == rans.encode(symbols[[3, 500, 999]], mixed[[3, 500, 999]], GAUSSIAN)
    decoded = rans.decode(data, mixed, GAUSSIAN)
    assert decoded.nonzero()[0].tolist() == [3, 500, 999] and decoded.sum() == 3 + 500 + 999


def test_nothing_is_coded_as_nothing() -> None:
    symbols, indexes = np.zeros(0, np.int32), np.zeros(0, np.uint8)
    assert rans.encode(symbols, indexes, SMALL) == b""
    assert rans.decode(b"", indexes, SMALL).shape == (0,)
    with pytest.raises(CorruptBitstream):
        rans.decode(b"\0\0", indexes, SMALL)


def test_shape_and_memory_layout_are_the_callers_business() -> None:
    symbols, indexes = gaussian_data(2 * 30 * 50, seed=3)
    flat = rans.encode(symbols, indexes, GAUSSIAN)
    cube, cube_indexes = symbols.reshape(2, 30, 50), indexes.reshape(2, 30, 50)
    assert rans.encode(np.asfortranarray(cube), np.asfortranarray(cube_indexes), GAUSSIAN) == flat
    assert np.array_equal(rans.decode(memoryview(flat), np.asfortranarray(cube_indexes), GAUSSIAN), cube)
    with pytest.raises(ValueError, match="symbols must be"):
        rans.encode(symbols.astype(np.int64), indexes, GAUSSIAN)
    with pytest.raises(ValueError, match="symbols must be"):
        rans.encode(symbols[1:], indexes, GAUSSIAN)
    with pytest.raises(ValueError, match="indexes must be"):
        rans.decode(flat, indexes.astype(np.int32), GAUSSIAN)


def test_an_index_without_a_table_is_refused_both_ways() -> None:
    indexes = np.array([0, 3], dtype=np.uint8)
    with pytest.raises(InvalidCodec, match="table index 3"):
        rans.encode(np.zeros(2, np.int32), indexes, SMALL)
    with pytest.raises(InvalidCodec, match="table index 3"):
        rans.decode(bytes(9), indexes, SMALL)


# --- rate, and the format ------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "allowance"), [(16_000, 4.0), (130_000, 7.0), (600_000, 12.0)])
def test_rate_is_ideal_but_for_the_final_states(size: int, allowance: float) -> None:
    symbols, indexes = gaussian_data(size, seed=5)
    bits = 8 * len(rans.encode(symbols, indexes, GAUSSIAN))
    ideal = ideal_bits(symbols, indexes, GAUSSIAN)
    assert ideal <= bits < ideal * 1.0001 + 8 * allowance
    if size >= 600_000:
        assert bits < ideal * 1.001


def test_frozen_stream() -> None:
    symbols = np.array([0, 0, -1, 7, 9, 0, 1, -2, 2**31 - 1, 0, -(2**31)], dtype=np.int32)
    indexes = np.array([0, 0, 0, 1, 1, 2, 2, 2, 1, 0, 0], dtype=np.uint8)
    data = rans.encode(symbols, indexes, SMALL)
    assert data.hex() == "4cfd59020082813a19e3ecfdffffff3f78fdffffffff03"
    assert rans.decode(data, indexes, SMALL).tolist() == symbols.tolist()


@pytest.mark.parametrize(
    ("size", "digest"),
    [(20_000, "d8ca7b07a06611d9c3f191ba2d39823b"), (140_001, "5beb7c8ad5cd75772ebcbe9745a3e203")],
)
def test_frozen_streams_of_two_and_four_states(size: int, digest: str) -> None:
    symbols = (noise(size, 12, 7) - 2).astype(np.int32)
    indexes = noise(size, 3, 11).astype(np.uint8)
    data = rans.encode(symbols, indexes, SMALL)
    assert hashlib.sha256(data).hexdigest()[:32] == digest
    assert decode_by_the_book(data, indexes.tolist(), SMALL) == symbols.tolist()


# --- hostile bytes -------------------------------------------------------------------------------


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


# --- threads and processes -----------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["encode", "decode"])
def test_other_threads_run_during_one_call(direction: str) -> None:
    symbols, indexes = gaussian_data(6_000_000, seed=1)
    indexes = np.maximum(indexes, GAUSSIAN.skip_index).astype(np.uint8)
    data = rans.encode(symbols, indexes, GAUSSIAN)
    span: list[float] = []

    def work() -> None:
        begin = time.perf_counter()
        if direction == "encode":
            rans.encode(symbols, indexes, GAUSSIAN)
        else:
            rans.decode(data, indexes, GAUSSIAN)
        span.extend((begin, time.perf_counter()))

    worker = threading.Thread(target=work)
    worker.start()
    ticks = []
    while worker.is_alive():
        ticks.append(time.perf_counter())
        time.sleep(0.0005)
    worker.join()
    # A call that holds the interpreter's lock lets none of these through but at its two ends.
    assert sum(span[0] < tick < span[1] for tick in ticks) >= 8


def test_threads_do_not_disturb_each_other() -> None:
    jobs = [gaussian_data(40_000 + 7000 * n, seed=n) for n in range(6)]
    expected = [rans.encode(symbols, indexes, GAUSSIAN) for symbols, indexes in jobs]
    wrong: list[int] = []

    def work(n: int) -> None:
        symbols, indexes = jobs[n]
        for _ in range(5):
            data = rans.encode(symbols, indexes, GAUSSIAN)
            if data != expected[n] or not np.array_equal(rans.decode(data, indexes, GAUSSIAN), symbols):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_works_where_no_compiled_code_can_be_kept() -> None:
    program = (
        "from numba.core import caching\n"
        "for name in [n for n in dir(caching) if n.endswith('CacheLocator')]:\n"
        "    getattr(caching, name).from_function = classmethod(lambda cls, *_: None)\n"
        "import numpy as np\n"
        "from lichen.models.entropy import rans, tables\n"
        "t = tables.gaussian_tables(); s = np.arange(9, dtype=np.int32); i = np.full(9, 40, np.uint8)\n"
        "assert rans.decode(rans.encode(s, i, t), i, t).tolist() == s.tolist()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


# --- part by part ---------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.lists(st.integers(0, 400), min_size=0, max_size=6), st.integers(0, 2**32 - 1))
def test_a_reader_takes_a_stream_part_by_part(sizes: list[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    tables = GAUSSIAN
    parts = []
    for size in sizes:
        indexes = random.integers(0, tables.count, size).astype(np.uint8)
        symbols = np.rint(random.normal(0, 3, size)).astype(np.int32)
        symbols[indexes < tables.skip_index] = 0
        parts.append((symbols, indexes))
    whole = [np.concatenate([part[n] for part in parts] or [np.empty(0, t)]) for n, t in ((0, np.int32), (1, np.uint8))]
    data = rans.encode(whole[0], whole[1], tables, single=True)
    reader = rans.Reader(data, tables)
    for symbols, indexes in parts:
        assert np.array_equal(reader.read(indexes), symbols)
    reader.finish()


def test_a_reader_refuses_what_is_left_over_or_missing() -> None:
    tables = GAUSSIAN
    indexes = np.full(100, 40, np.uint8)
    data = rans.encode(np.arange(-50, 50, dtype=np.int32), indexes, tables, single=True)
    reader = rans.Reader(data, tables)
    reader.read(indexes[:99])
    with pytest.raises(CorruptBitstream, match="does not end"):
        reader.finish()
    with pytest.raises(CorruptBitstream):
        rans.Reader(data, tables).read(np.full(300, 40, np.uint8))
    with pytest.raises(CorruptBitstream):
        rans.Reader(b"", tables).read(indexes)
    with pytest.raises(CorruptBitstream):
        rans.Reader(b"123", tables)
    nothing = rans.Reader(bytes.fromhex("0000100000"), tables)  # a state, for no symbols
    nothing.read(np.zeros(3, np.uint8))
    with pytest.raises(CorruptBitstream, match="empty"):
        nothing.finish()
