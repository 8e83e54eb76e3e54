"""Coder tables: what the builder promises, and what a hostile checkpoint may not contain."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lichen.errors import InvalidCodec
from lichen.models.entropy.tables import (
    MAX_ENTRIES,
    MAX_VALUE,
    TOTAL,
    CoderTables,
    GaussianScales,
    escape_bits,
    gaussian_tables,
    ideal_bits,
    quantise_pmf,
    tables_from_pmfs,
)


def small_arrays() -> dict[str, NDArray[np.generic]]:
    return {
        "frequencies": np.array([60000, 5000, 536, 32768, 32768], dtype=np.uint16),
        "sizes": np.array([3, 2], dtype=np.int32),
        "minimums": np.array([-1, 7], dtype=np.int32),
        "skip_index": np.array([1], dtype=np.int32),
    }


def cross_entropy(scale: float, tables: CoderTables, table: int) -> tuple[float, float]:
    """Entropy of a rounded Gaussian, and the bits that the table spends on it."""
    reach = math.ceil(12 * scale) + 4
    values = np.arange(-reach, reach + 1, dtype=np.int32)
    edges = [0.5 * math.erfc(-(v - 0.5) / (scale * math.sqrt(2))) for v in range(-reach, reach + 2)]
    pmf = np.diff(edges)
    bits = np.array([ideal_bits(np.array([v]), np.array([table], np.uint8), tables) for v in values])
    positive = pmf > 0
    return float(-(pmf[positive] @ np.log2(pmf[positive]))), float(pmf @ bits)


def test_default_gaussian_tables_are_small_and_complete() -> None:
    tables = gaussian_tables()
    assert tables.count == 64
    assert tables.frequencies.size < 12_000
    assert tables.frequencies.min() >= 1
    sums = np.add.reduceat(tables.frequencies.astype(np.int64), tables.firsts)
    assert sums.tolist() == [TOTAL] * 64
    assert np.all(np.diff(tables.sizes) >= 0)


@pytest.mark.parametrize("table", [16, 24, 32, 40, 48, 56, 63])
def test_gaussian_tables_cost_next_to_nothing_over_the_entropy(table: int) -> None:
    scales = GaussianScales()
    entropy, cost = cross_entropy(float(scales.values()[table]), gaussian_tables(scales), table)
    assert entropy <= cost < entropy * 1.0003


def test_the_number_and_range_of_scales_are_free() -> None:
    tables = gaussian_tables(GaussianScales(count=160, smallest=0.2, largest=60.0), skip_index=5)
    assert tables.count == 160 and tables.skip_index == 5
    assert np.isclose(GaussianScales(count=3, smallest=0.25, largest=4.0).values(), [0.25, 1.0, 4.0]).all()
    with pytest.raises(ValueError, match="unusable scales"):
        gaussian_tables(GaussianScales(count=257))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1, allow_subnormal=False), min_size=2, max_size=400))
def test_quantised_probabilities_sum_to_the_total(weights: list[float]) -> None:
    pmf = np.array(weights) + 1e-12
    frequencies = quantise_pmf(pmf)
    assert int(frequencies.sum()) == TOTAL and frequencies.min() >= 1


def test_quantisation_survives_extremes() -> None:
    certain = quantise_pmf(np.array([1.0, 0.0, 0.0]))
    assert certain.tolist() == [TOTAL - 2, 1, 1]
    assert set(quantise_pmf(np.full(TOTAL, 1.0)).tolist()) == {1}
    for bad in ([1.0], [0.5, -0.1], [0.0, 0.0], [math.nan, 1.0], [math.inf, 1.0]):
        with pytest.raises(ValueError, match="probability"):
            quantise_pmf(np.array(bad))


def test_tables_from_pmfs_give_the_escape_what_is_missing() -> None:
    tables = tables_from_pmfs([np.array([0.25, 0.5]), np.array([0.5, 0.5])], [3, -4])
    assert tables.sizes.tolist() == [3, 3]
    assert tables.frequencies[:3].tolist() == [16384, 32768, 16384]
    assert tables.frequencies[5] == 1


def test_ideal_bits_by_hand() -> None:
    tables = CoderTables.from_arrays(small_arrays())
    indexes = np.array([0, 1, 1, 1], dtype=np.uint8)
    symbols = np.array([99, 7, 8, -(1 << 31)], dtype=np.int32)
    far = 2 * (7 - 1 + (1 << 31)) + 1
    assert ideal_bits(symbols, indexes, tables) == pytest.approx(0 + 1 + (1 + 4) + (1 + escape_bits(far)))
    assert escape_bits(far) == 44 and escape_bits(7) == 4 and escape_bits(8) == 8


def test_arrays_round_trip() -> None:
    tables = gaussian_tables(skip_index=9)
    arrays = tables.to_arrays()
    again = CoderTables.from_arrays(arrays)
    assert again.skip_index == 9
    for name, array in again.to_arrays().items():
        assert array.dtype == arrays[name].dtype and np.array_equal(array, arrays[name])
    assert not again.frequencies.flags.writeable


def test_tables_do_not_change_with_the_arrays_that_they_came_from() -> None:
    arrays = small_arrays()
    tables = CoderTables.from_arrays(arrays)
    arrays["frequencies"][:] = 0
    assert tables.frequencies.tolist() == [60000, 5000, 536, 32768, 32768]


DAMAGE: dict[str, tuple[str, NDArray[np.generic]]] = {
    "a zero frequency": ("frequencies", np.array([65000, 0, 536, 32768, 32768], np.uint16)),
    "a wrong sum": ("frequencies", np.array([60001, 5000, 536, 32768, 32768], np.uint16)),
    "a sum that moves between tables": ("frequencies", np.array([60001, 5000, 536, 32767, 32768], np.uint16)),
    "too few frequencies": ("frequencies", np.array([60000, 5000, 536], np.uint16)),
    "no frequencies": ("frequencies", np.zeros(0, np.uint16)),
    "too many frequencies": ("frequencies", np.ones(MAX_ENTRIES + 1, np.uint16)),
    "frequencies of another type": ("frequencies", np.array([60000, 5000, 536, 32768, 32768], np.int32)),
    "frequencies in two dimensions": ("frequencies", np.ones((2, 3), np.uint16)),
    "floats": ("sizes", np.array([3.0, 2.0], np.float32)),
    "a size of one": ("sizes", np.array([4, 1], np.int32)),
    "a negative size": ("sizes", np.array([-3, 8], np.int32)),
    "sizes that overflow": ("sizes", np.array([2**31 - 1, 2**31 - 1], np.int32)),
    "sizes in another order": ("sizes", np.array([2, 3], np.int32)),
    "no tables": ("sizes", np.zeros(0, np.int32)),
    "too few minimums": ("minimums", np.zeros(1, np.int32)),
    "a minimum that is too low": ("minimums", np.array([-MAX_VALUE - 1, 7], np.int32)),
    "a maximum that is too high": ("minimums", np.array([MAX_VALUE, 7], np.int32)),
    "a minimum that overflows": ("minimums", np.array([2**31 - 1, 7], np.int32)),
    "a negative skip index": ("skip_index", np.array([-1], np.int32)),
    "a skip index behind the tables": ("skip_index", np.array([3], np.int32)),
    "two skip indexes": ("skip_index", np.array([1, 1], np.int32)),
    "no skip index": ("skip_index", np.zeros(0, np.int32)),
    "a scalar skip index": ("skip_index", np.array(1, np.int32)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_arrays_are_refused(damage: str) -> None:
    name, array = DAMAGE[damage]
    with pytest.raises(InvalidCodec, match="coder tables"):
        CoderTables.from_arrays(small_arrays() | {name: array})


def test_missing_and_unknown_arrays_are_refused() -> None:
    arrays = small_arrays()
    with pytest.raises(InvalidCodec, match="expected the arrays"):
        CoderTables.from_arrays({name: arrays[name] for name in arrays if name != "sizes"})
    with pytest.raises(InvalidCodec, match="expected the arrays"):
        CoderTables.from_arrays(arrays | {"more": np.zeros(1, np.int32)})
