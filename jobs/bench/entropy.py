"""The entropy coder against CompressAI's, on the same symbols and the same tables, in one run.

The symbols are drawn as a codec has them: most channels carry next to nothing, and scales vary within a
channel. CompressAI's coder takes and gives Python lists; the times that count include the conversion of
symbols and indexes, because every caller has arrays, but not that of its tables (1.5 ms an image, which its
callers pay as well).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lichen.models.entropy import rans
from lichen.models.entropy.tables import CoderTables, GaussianScales, gaussian_tables, ideal_bits

CHANNELS: Final = 320
PLACES: Final = 32 * 48
"""Latent elements per channel of a Kodak picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CoderTimes:
    """Symbols per second through one direction of each coder, one thread; skipped symbols count."""

    lichen: float
    compressai: float
    compressai_without_lists: float
    """CompressAI's speed without turning the arrays into lists and back."""
    ratio: float
    """Speed of lichen's coder relative to CompressAI's."""
    two_threads: float
    """Work that two threads of lichen do in the time in which one does 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyCase:
    """One set of symbols. Rates are bits per symbol; excess is relative to the ideal with the same tables."""

    name: str
    symbols: int
    coded: int
    ideal_rate: float
    lichen_rate: float
    lichen_excess: float
    compressai_rate: float
    encode: CoderTimes
    decode: CoderTimes


@dataclass(frozen=True, slots=True, kw_only=True)
class EntropyBench:
    """What one run measured; the best of ``repeats`` each, the two coders taking turns."""

    repeats: int
    cases: tuple[EntropyCase, ...]

    def to_json(self) -> str:
        """Everything, as one JSON object."""
        return json.dumps(asdict(self), indent=2)


def run(*, pictures: int = 5, repeats: int = 7, skip_index: int = 8, seed: int = 1) -> EntropyBench:
    """Measure both coders on the latents of ``pictures`` imagined Kodak pictures, coded in one call.

    Raises ``RuntimeError`` if a decoder does not return what was encoded.
    """
    skipping = gaussian_tables(skip_index=skip_index)
    complete = gaussian_tables()
    indexes, symbols = codec_like_symbols(pictures, seed)
    coded = indexes >= skip_index
    cases = (
        _measure("a codec's latents", np.where(coded, symbols, 0).astype(np.int32), indexes, skipping, repeats),
        _measure("the same, nothing skipped", symbols, indexes, complete, repeats),
        _measure("only what is coded", *_tiled(symbols[coded], indexes[coded], symbols.size), complete, repeats),
    )
    return EntropyBench(repeats=repeats, cases=cases)


def codec_like_symbols(pictures: int, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Indexes into 64 Gaussian tables and symbols drawn from them, channel by channel."""
    random = np.random.default_rng(seed)
    scales = GaussianScales()
    channel = np.sort(random.normal(0.0, 14.0, (pictures, CHANNELS, 1)), axis=1)
    levels = channel + random.normal(0.0, 4.0, (pictures, CHANNELS, PLACES))
    indexes = np.clip(levels, 0, scales.count - 1).astype(np.uint8).reshape(-1)
    symbols = np.rint(random.normal(size=indexes.size) * scales.values()[indexes]).astype(np.int32)
    return indexes, symbols


def _tiled(
    symbols: NDArray[np.int32], indexes: NDArray[np.uint8], size: int
) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """The arrays repeated up to ``size`` elements."""
    return np.resize(symbols, size), np.resize(indexes, size)


def _measure(
    name: str, symbols: NDArray[np.int32], indexes: NDArray[np.uint8], tables: CoderTables, repeats: int
) -> EntropyCase:
    from compressai import ans  # slow to import, and needed for this comparison only

    cumulative, sizes, minimums = _lists(tables)

    def their_encode(values: list[int], places: list[int]) -> bytes:
        encoder = ans.BufferedRansEncoder()
        encoder.encode_with_indexes(values, places, cumulative, sizes, minimums)
        stream: bytes = encoder.flush()
        return stream

    def their_decode(stream: bytes, places: list[int]) -> list[int]:
        values: list[int] = ans.RansDecoder().decode_with_indexes(stream, places, cumulative, sizes, minimums)
        return values

    symbol_list, index_list = symbols.tolist(), indexes.tolist()
    ours, theirs = rans.encode(symbols, indexes, tables), their_encode(symbol_list, index_list)
    if not np.array_equal(rans.decode(ours, indexes, tables), symbols):
        raise RuntimeError("lichen's coder does not return what was encoded")
    if their_decode(theirs, index_list) != symbol_list:
        raise RuntimeError("CompressAI's coder does not return what was encoded")

    def encode() -> bytes:
        return rans.encode(symbols, indexes, tables)

    def decode() -> NDArray[np.int32]:
        return rans.decode(ours, indexes, tables)

    encoding = _times(
        symbols.size,
        repeats,
        encode,
        lambda: their_encode(symbols.tolist(), indexes.tolist()),
        lambda: their_encode(symbol_list, index_list),
    )
    decoding = _times(
        symbols.size,
        repeats,
        decode,
        lambda: np.array(their_decode(theirs, indexes.tolist()), dtype=np.int32),
        lambda: their_decode(theirs, index_list),
    )
    ideal = ideal_bits(symbols, indexes, tables)
    return EntropyCase(
        name=name,
        symbols=symbols.size,
        coded=int((indexes >= tables.skip_index).sum()),
        ideal_rate=ideal / symbols.size,
        lichen_rate=8 * len(ours) / symbols.size,
        lichen_excess=8 * len(ours) / ideal - 1.0,
        compressai_rate=8 * len(theirs) / symbols.size,
        encode=encoding,
        decode=decoding,
    )


def _lists(tables: CoderTables) -> tuple[list[list[int]], list[int], list[int]]:
    """Tables as CompressAI's coder wants them: cumulative frequencies, their lengths, offsets."""
    ends = tables.starts + tables.frequencies
    cumulative = [
        [0, *ends[first : first + size].tolist()] for first, size in zip(tables.firsts, tables.sizes, strict=True)
    ]
    return cumulative, (tables.sizes + 1).tolist(), tables.minimums.tolist()


def _times(
    size: int,
    repeats: int,
    ours: Callable[[], Any],
    theirs: Callable[[], Any],
    theirs_without_lists: Callable[[], Any],
) -> CoderTimes:
    best = [float("inf")] * 4
    for _ in range(repeats):
        for place, work in enumerate((ours, theirs, theirs_without_lists)):
            best[place] = min(best[place], _seconds(work))
        best[3] = min(best[3], _seconds_in_two_threads(ours))
    return CoderTimes(
        lichen=size / best[0],
        compressai=size / best[1],
        compressai_without_lists=size / best[2],
        ratio=best[1] / best[0],
        two_threads=2.0 * best[0] / best[3],
    )


def _seconds(work: Callable[[], Any]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _seconds_in_two_threads(work: Callable[[], Any], calls: int = 4) -> float:
    """Time per call when two threads make ``calls`` each."""
    gate = threading.Barrier(3)

    def many() -> None:
        gate.wait()
        for _ in range(calls):
            work()

    threads = [threading.Thread(target=many) for _ in range(2)]
    for thread in threads:
        thread.start()
    gate.wait()
    begin = time.perf_counter()
    for thread in threads:
        thread.join()
    return (time.perf_counter() - begin) / calls
