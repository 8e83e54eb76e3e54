"""The range ANS coder: exact round trips, the promised rate, a frozen format, threads, and streams part by part."""

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
from rans_support import GAUSSIAN, SMALL, decode_by_the_book, gaussian_data, noise

from lichen.errors import CorruptBitstream, InvalidCodec
from lichen.models.entropy import rans
from lichen.models.entropy.tables import ideal_bits

INT32 = st.integers(-(1 << 31), (1 << 31) - 1)
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
