"""The exact half: integers in, integers out, the same for every order of summation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learned_support import altered, new_network

from lichen.errors import InvalidCodec
from lichen.models.codec import QUALITY_CODES, code_quality, quality_code
from lichen.models.decoupled.entropy_model import LOG_STEP, SCALE_MIN
from lichen.models.decoupled.fixedpoint import UNIT
from lichen.models.decoupled.freezing import integer_prior
from lichen.models.decoupled.integer import LAYERS, IntegerPrior, interpolate, self_test


@pytest.fixture(scope="module")
def prior() -> IntegerPrior:
    return integer_prior(new_network().entropy)


def test_quality_codes_cover_the_range() -> None:
    assert quality_code(1) == 0
    assert quality_code(100) == QUALITY_CODES - 1
    assert all(quality_code(code_quality(c)) == c for c in range(QUALITY_CODES))


@given(st.integers(0, QUALITY_CODES - 1), st.integers(2, 12), st.integers(0, 2**32 - 1))
def test_interpolation_is_the_rounded_exact_value(code: int, anchors: int, seed: int) -> None:
    table = np.random.default_rng(seed).integers(-5000, 5000, (anchors, 3), dtype=np.int32)
    exact = [np.interp(code / (QUALITY_CODES - 1) * (anchors - 1), np.arange(anchors), column) for column in table.T]
    assert np.abs(interpolate(table, np.array([code]))[0] - exact).max() <= 0.5 + 1e-6


def test_the_integer_network_follows_the_float_network(prior: IntegerPrior) -> None:
    network = new_network()
    symbols = torch.from_numpy(np.random.default_rng(5).integers(-3, 4, (2, 3, 4, prior.hyper)))
    codes = np.array([100, 700])
    exact = prior.dequantise(symbols, codes)
    indexes = prior.placed(torch.device("cpu")).indexes(exact, codes)
    position = network.position(torch.tensor([code_quality(int(c)) for c in codes]))
    with torch.no_grad():
        z = (exact / UNIT).float().permute(0, 3, 1, 2)
        log_scale = network.entropy.scales(z) + network.entropy.gain(position)
    wanted = ((log_scale - np.log(SCALE_MIN)) / LOG_STEP).permute(0, 2, 3, 1).clamp(0, prior.tables.count - 1)
    assert (indexes - wanted).abs().max() < 0.8  # half an index of rounding, and the fixed point


def test_summation_order_does_not_matter(prior: IntegerPrior) -> None:
    order = np.random.default_rng(1).permutation(prior.hyper)
    symbols = torch.from_numpy(np.random.default_rng(2).integers(-9, 9, (1, 4, 5, prior.hyper)))
    codes = np.array([400])
    plain = prior.placed(torch.device("cpu")).indexes(prior.dequantise(symbols, codes), codes)
    weight = prior.weights["conv1"].reshape(9, prior.hyper, -1)[:, order].reshape(prior.weights["conv1"].shape)
    permuted = IntegerPrior(
        weights=dict(prior.weights) | {"conv1": np.ascontiguousarray(weight)},
        biases=prior.biases,
        offset=prior.offset,
        z_step=prior.z_step[:, order],
        z_index=prior.z_index[:, order],
        tables=prior.tables,
    )
    other = permuted.placed(torch.device("cpu"))
    assert torch.equal(plain, other.indexes(permuted.dequantise(symbols[..., order], codes), codes))


def test_storage_round_trips(prior: IntegerPrior) -> None:
    again = IntegerPrior.from_arrays(prior.to_arrays())
    assert self_test(again.placed(torch.device("cpu"))) == self_test(prior.placed(torch.device("cpu")))


@settings(max_examples=60)
@given(st.data())
def test_hostile_arrays_are_refused_or_run(prior: IntegerPrior, data: st.DataObject) -> None:
    arrays = altered(prior.to_arrays(), data)
    try:
        changed = IntegerPrior.from_arrays(arrays)
    except InvalidCodec:
        return
    self_test(changed.placed(torch.device("cpu")))


def test_layers_are_those_of_the_network() -> None:
    assert {n for n, _ in new_network().entropy.scales.named_children()} == set(LAYERS)
