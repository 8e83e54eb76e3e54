"""Coder tables: the frozen integers that every entropy-coded symbol is coded with.

A table is a list of integer frequencies that sum to 2^16: one for each value from ``minimum`` upwards, and a
last one for the escape symbol, which announces a value outside of the table. Tables are built once, at
export, from floats (:func:`gaussian_tables`, :func:`tables_from_pmfs`); from then on only the integers count.
They travel in the codec's file (:meth:`CoderTables.to_arrays`), so that no decoder ever recomputes them, and they are
validated when they come back (:meth:`CoderTables.from_arrays`), because the file may be somebody else's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lichen.errors import InvalidCodec

PRECISION: Final = 16
TOTAL: Final = 1 << PRECISION
"""Sum of the frequencies of every table."""
MAX_TABLES: Final = 256
"""Indexes are bytes."""
MAX_ENTRIES: Final = 1 << 16
"""Frequencies in all tables together, escapes included: the decoder's buckets point at them with 16 bits."""
MAX_VALUE: Final = 1 << 20
"""Values in a table lie in [-MAX_VALUE, MAX_VALUE]; beyond it symbols are escaped."""
ESCAPE: Final = -(1 << 31)
"""What the decoder's lookup holds in place of a value for the escape symbol. No table can contain it."""
ESCAPE_GROUP_BITS: Final = 3
"""Bits of an escaped value's distance that go into one group; a group's fourth bit says that another
follows."""

SYMBOL_LIMIT: Final = 32767
"""Encoders write no symbol of a larger magnitude, and decoders refuse one."""
SKIP_BELOW: Final = 0.17
"""Latents of a standard deviation below this are not coded: they would be zero 997 times in 1,000."""

_MIN_BUCKETS, _MAX_BUCKETS = 256, 4096
_BUCKETS_PER_SYMBOL = 4


class CoderLookup(NamedTuple):
    """What the coder's loops read: derived from the integers at load time, never stored.

    ``starts`` uint32[entries + 1], ``frequency << 16 | start`` of every symbol (one more, so that its
    neighbour can always be read); ``inverses`` float64[entries], 1 / frequency; ``entries`` uint64[entries +
    1], ``value << 32 | frequency << 16 | start``; ``buckets`` uint16: for each table ``TOTAL >> shift`` first
    candidates; ``encoding`` int64[tables, 3]: first entry, number of values (the escape's place), minimum;
    ``decoding`` uint32[tables]: ``first bucket << 5 | shift``.
    """

    starts: NDArray[np.uint32]
    inverses: NDArray[np.float64]
    entries: NDArray[np.uint64]
    buckets: NDArray[np.uint16]
    encoding: NDArray[np.int64]
    decoding: NDArray[np.uint32]


@dataclass(frozen=True, kw_only=True, eq=False)
class CoderTables:
    """A set of coder tables, selected by an index from 0 to ``count`` - 1.

    ``frequencies`` uint16[entries]: the tables back to back, the escape last in each; ``sizes``
    int32[tables]: entries of each; ``minimums`` int32[tables]: the value that each table's first entry stands
    for; ``skip_index``: symbols with an index below it are not coded and decode as zero. Raises
    ``InvalidCodec`` if the integers are no tables.
    """

    frequencies: NDArray[np.uint16]
    sizes: NDArray[np.int32]
    minimums: NDArray[np.int32]
    skip_index: int = 0

    def __post_init__(self) -> None:
        _validate(self)
        for array in (self.frequencies, self.sizes, self.minimums):
            array.setflags(write=False)

    @property
    def count(self) -> int:
        return len(self.sizes)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Cumulative frequency below each entry within its table: int64[entries]."""
        before = np.cumsum(self.frequencies, dtype=np.int64) - self.frequencies
        return before - np.repeat(np.arange(self.count, dtype=np.int64) * TOTAL, self.sizes)

    @cached_property
    def firsts(self) -> NDArray[np.int64]:
        """Place of each table's first entry: int64[tables]."""
        return np.cumsum(self.sizes, dtype=np.int64) - self.sizes

    @cached_property
    def lookup(self) -> CoderLookup:
        """The coder's lookup structure, built at first use."""
        return _build_lookup(self)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The integers to store in a codec's file; :meth:`from_arrays` takes them back."""
        return {
            "frequencies": self.frequencies.copy(),
            "sizes": self.sizes.copy(),
            "minimums": self.minimums.copy(),
            "skip_index": np.array([self.skip_index], dtype=np.int32),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> CoderTables:
        """Tables from arrays of a codec's file. Raises ``InvalidCodec`` unless they are exactly what is expected."""
        expected = {"frequencies": np.uint16, "sizes": np.int32, "minimums": np.int32, "skip_index": np.int32}
        if set(arrays) != set(expected):
            raise InvalidCodec(f"coder tables: expected the arrays {sorted(expected)}, found {sorted(arrays)}")
        for name, dtype in expected.items():
            array = arrays[name]
            if array.dtype != dtype or array.ndim != 1 or array.size > MAX_ENTRIES:
                raise InvalidCodec(
                    f"coder tables: {name} is {array.dtype}{list(array.shape)}, expected "
                    f"at most {MAX_ENTRIES} of {np.dtype(dtype)}"
                )
        if arrays["skip_index"].shape != (1,):
            raise InvalidCodec("coder tables: skip_index must have one element")
        return cls(
            frequencies=arrays["frequencies"].astype(np.uint16),
            sizes=arrays["sizes"].astype(np.int32),
            minimums=arrays["minimums"].astype(np.int32),
            skip_index=int(arrays["skip_index"].astype(np.int32)[0]),
        )


def _validate(tables: CoderTables) -> None:
    frequencies, sizes, minimums = tables.frequencies, tables.sizes, tables.minimums
    for name, array, dtype in (
        ("frequencies", frequencies, np.uint16),
        ("sizes", sizes, np.int32),
        ("minimums", minimums, np.int32),
    ):
        if array.dtype != dtype or array.ndim != 1:
            raise InvalidCodec(f"coder tables: {name} must be one-dimensional {np.dtype(dtype)}")
    if not 1 <= sizes.size <= MAX_TABLES or minimums.shape != sizes.shape:
        raise InvalidCodec(f"coder tables: {sizes.size} sizes and {minimums.size} minimums, expected 1 to {MAX_TABLES}")
    if not 2 <= frequencies.size <= MAX_ENTRIES:
        raise InvalidCodec(f"coder tables: {frequencies.size} frequencies, expected 2 to {MAX_ENTRIES}")
    if sizes.min() < 2 or int(sizes.sum(dtype=np.int64)) != frequencies.size:
        raise InvalidCodec("coder tables: sizes must be at least 2 and add up to the number of frequencies")
    if frequencies.min() < 1:
        raise InvalidCodec("coder tables: a frequency is zero")
    firsts = np.cumsum(sizes, dtype=np.int64) - sizes
    if np.any(np.add.reduceat(frequencies.astype(np.int64), firsts) != TOTAL):
        raise InvalidCodec(f"coder tables: the frequencies of a table do not add up to {TOTAL}")
    lowest, highest = minimums.astype(np.int64), minimums.astype(np.int64) + sizes - 2
    if lowest.min() < -MAX_VALUE or highest.max() > MAX_VALUE:
        raise InvalidCodec(f"coder tables: a value lies outside of [-{MAX_VALUE}, {MAX_VALUE}]")
    if not 0 <= tables.skip_index <= sizes.size:
        raise InvalidCodec(f"coder tables: skip index {tables.skip_index} of {sizes.size} tables")


def _build_lookup(tables: CoderTables) -> CoderLookup:
    frequencies = tables.frequencies.astype(np.uint64)
    starts = tables.starts.astype(np.uint64)
    low = np.append(frequencies << np.uint64(16) | starts, np.uint64(0))
    places = np.arange(frequencies.size, dtype=np.int64) - np.repeat(tables.firsts, tables.sizes)
    values = places + np.repeat(tables.minimums, tables.sizes)
    values[tables.firsts + tables.sizes - 1] = ESCAPE
    high = np.append(values.astype(np.int32), np.int32(0)).view(np.uint32).astype(np.uint64)

    buckets: list[NDArray[np.uint16]] = []
    decoding = np.empty(tables.count, dtype=np.uint32)
    used = 0
    for table, (first, size) in enumerate(zip(tables.firsts.tolist(), tables.sizes.tolist(), strict=True)):
        wanted = min(max(size * _BUCKETS_PER_SYMBOL, _MIN_BUCKETS), _MAX_BUCKETS)
        shift = PRECISION - math.ceil(math.log2(wanted))
        slots = np.arange(0, TOTAL, 1 << shift)
        candidates = first + np.searchsorted(tables.starts[first : first + size], slots, side="right") - 1
        buckets.append(candidates.astype(np.uint16))
        decoding[table] = used << 5 | shift
        used += slots.size
    return CoderLookup(
        starts=low.astype(np.uint32),
        inverses=1.0 / tables.frequencies.astype(np.float64),
        entries=high << np.uint64(32) | low,
        buckets=np.concatenate(buckets),
        encoding=np.stack([tables.firsts, tables.sizes - 1, tables.minimums], axis=1).astype(np.int64),
        decoding=decoding,
    )


# --- building, at export --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class GaussianScales:
    """The scales (standard deviations, in quantisation steps) of a set of Gaussian tables, log-spaced."""

    count: int = 64
    smallest: float = 0.11
    largest: float = 128.0

    def values(self) -> NDArray[np.float64]:
        """The scales, ascending: float64[count]."""
        if not (1 <= self.count <= MAX_TABLES and 0.0 < self.smallest <= self.largest <= 4096.0):
            raise ValueError(f"unusable scales: {self}")
        scales: NDArray[np.float64] = np.geomspace(self.smallest, self.largest, self.count)
        return scales


def gaussian_tables(scales: GaussianScales | None = None, *, skip_index: int = 0) -> CoderTables:
    """Tables of zero-mean Gaussians that are integrated over the unit interval around each integer.

    Every table is as wide as makes the expected code length least: wider ones give a frequency of 1 to values
    that deserve less, narrower ones escape too often. The result is symmetric but for rounding.
    """
    pmfs = [_gaussian_pmf(scale) for scale in (scales or GaussianScales()).values().tolist()]
    return tables_from_pmfs(pmfs, [-(len(pmf) // 2) for pmf in pmfs], skip_index=skip_index)


def tables_from_pmfs(
    pmfs: Sequence[NDArray[np.float64]], minimums: Sequence[int], *, skip_index: int = 0
) -> CoderTables:
    """Tables from probabilities: ``pmfs[i][k]`` is that of the value ``minimums[i] + k``.

    What a list lacks to a sum of 1 is the probability of an escape. Lists may sum to less than 1, not to
    more.
    """
    frequencies = [quantise_pmf(np.append(pmf, max(0.0, 1.0 - float(pmf.sum())))) for pmf in pmfs]
    return CoderTables(
        frequencies=np.concatenate(frequencies).astype(np.uint16),
        sizes=np.array([f.size for f in frequencies], dtype=np.int32),
        minimums=np.array(minimums, dtype=np.int32),
        skip_index=skip_index,
    )


def quantise_pmf(pmf: NDArray[np.float64]) -> NDArray[np.int64]:
    """Integer frequencies of at least 1 that sum to ``TOTAL``: int64, as many as ``pmf`` has entries (2 to
    TOTAL).

    Rounds, then moves single counts where the expected code length suffers least or gains most.
    """
    if pmf.ndim != 1 or not 2 <= pmf.size <= TOTAL or not np.all(np.isfinite(pmf)) or pmf.min() < 0 or pmf.sum() <= 0:
        raise ValueError("a probability mass function must be a list of at least two finite numbers, none below zero")
    ideal = pmf / pmf.sum()
    frequencies: NDArray[np.int64] = np.maximum(np.rint(ideal * TOTAL).astype(np.int64), 1)
    while (excess := int(frequencies.sum()) - TOTAL) != 0:
        if excess > 0:
            spare = np.flatnonzero(frequencies > 1)
            loss = ideal[spare] * np.log(frequencies[spare] / (frequencies[spare] - 1))
            frequencies[spare[np.argsort(loss, kind="stable")[:excess]]] -= 1
        else:
            gain = ideal * np.log((frequencies + 1) / frequencies)
            frequencies[np.argsort(-gain, kind="stable")[:-excess]] += 1
    return frequencies


def _gaussian_pmf(scale: float) -> NDArray[np.float64]:
    """Probabilities of -half..half for the best ``half``: float64[2 * half + 1]."""
    widest = math.ceil(5.5 * scale) + 2
    edges = [0.5 * math.erfc((k - 0.5) / (scale * math.sqrt(2.0))) for k in range(widest + 2)]  # P(X > k - 1/2)
    tails = np.array(edges)
    one_sided = tails[:-1] - tails[1:]  # P(X = k) for k = 0..widest
    best: tuple[float, NDArray[np.float64]] | None = None
    for half in sorted({math.ceil(width * scale) + 1 for width in np.arange(2.0, 5.5, 0.25).tolist()}):
        pmf = np.concatenate([one_sided[half:0:-1], one_sided[: half + 1]])
        escape = 2.0 * float(tails[half + 1])
        frequencies = quantise_pmf(np.append(pmf, escape))
        bits = PRECISION - np.log2(frequencies)
        cost = float(pmf @ bits[:-1]) + escape * (float(bits[-1]) + _mean_escape_bits(tails, half))
        if best is None or cost < best[0]:
            best = cost, pmf
    assert best is not None  # the set of widths is never empty
    return best[1]


def _mean_escape_bits(tails: NDArray[np.float64], half: int) -> float:
    """Expected bits behind an escape symbol."""
    beyond = tails[half + 1 : -1] - tails[half + 2 :]
    if beyond.size == 0 or beyond.sum() <= 0.0:
        return float(escape_bits(0))
    bits = np.array([escape_bits(2 * step) for step in range(beyond.size)], dtype=np.float64)
    return float(beyond @ bits / beyond.sum())


def ideal_bits(symbols: NDArray[np.int32], indexes: NDArray[np.uint8], tables: CoderTables) -> float:
    """Bits that a perfect coder with these tables would need, escapes included; for tests and
    measurements."""
    coded = indexes.ravel() >= tables.skip_index
    table = indexes.ravel()[coded].astype(np.int64)
    values = symbols.ravel()[coded].astype(np.int64)
    minimums, counts = tables.minimums[table].astype(np.int64), tables.sizes[table].astype(np.int64) - 1
    places = values - minimums
    escaped = (places < 0) | (places >= counts)
    entries = tables.firsts[table] + np.where(escaped, counts, places)
    bits = float(np.sum(PRECISION - np.log2(tables.frequencies[entries].astype(np.float64))))
    distance = np.where(places < 0, -2 * places - 1, 2 * (places - counts))[escaped]
    return bits + float(sum(escape_bits(int(d)) for d in distance))


def escape_bits(distance: int) -> int:
    """Bits that follow an escape symbol for a value at this folded distance (0 or more) outside of its
    table."""
    groups = max(1, -(-distance.bit_length() // ESCAPE_GROUP_BITS))
    return groups * (ESCAPE_GROUP_BITS + 1)
