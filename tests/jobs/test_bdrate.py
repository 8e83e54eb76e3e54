import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.errors import NotComparable
from lichen.jobs.bdrate import Point, bd_rate, pareto_front
from lichen.jobs.evaluate import read_anchors

CURVE: list[Point] = [(0.1, 28.0), (0.25, 31.0), (0.5, 34.0), (1.0, 37.5), (1.6, 40.0)]
AVIF = "AVIF iq (speed 6, 4:4:4)"
JPEG = "JPEG (optimised, progressive)"
VTM = "VTM 9.1"


# Computed once from unrounded points with the `bjontegaard` package, and published with the data.
@pytest.mark.parametrize(
    ("anchor", "test", "percent"),
    [
        (AVIF, JPEG, 85.2),
        (AVIF, "WebP (method 6)", 20.9),
        (AVIF, "JPEG XL (effort 7)", 30.6),
        (AVIF, VTM, -31.7),
        (AVIF, "mbt2018-mean", -17.5),
        (AVIF, "bmshj2018-factorized", 13.0),
        (AVIF, "bmshj2018-hyperprior", -11.3),
        (AVIF, "cheng2020-anchor", -30.3),
        (AVIF, "TCM-S", -36.2),
        (AVIF, "TCM-L", -39.6),
        (JPEG, AVIF, -46.0),
        (JPEG, "TCM-L", -66.1),
        (VTM, JPEG, 182.8),
        (VTM, AVIF, 46.4),
        (VTM, "TCM-S", -6.7),
    ],
)
def test_known_values_on_the_shipped_anchors(anchor: str, test: str, percent: float) -> None:
    curves = {curve.name: curve.front("psnr") for curve in read_anchors()}
    assert bd_rate(curves[anchor], curves[test]).percent == pytest.approx(percent, abs=0.051)


@given(factor=st.floats(0.2, 5), order=st.permutations(CURVE))
def test_a_constant_factor_in_rate_is_that_many_percent(factor: float, order: list[Point]) -> None:
    result = bd_rate(order, [(rate * factor, quality) for rate, quality in CURVE])
    assert result.percent == pytest.approx(100 * (factor - 1), abs=1e-6)
    assert (result.low, result.high, result.overlap, result.dropped) == (28.0, 40.0, 1.0, 0)


def test_only_the_common_interval_counts() -> None:
    # Twice the rate up to 34 dB, which is all that both cover; what the test does above has no counterpart.
    result = bd_rate(CURVE[:3], [(2 * rate, quality) for rate, quality in CURVE[:3]] + [(90.0, 40.0)])
    assert (result.low, result.high) == (28.0, 34.0)
    assert result.overlap == pytest.approx(0.5)
    assert 90 < result.percent < 110  # the far point bends the last piece of the interpolation a little


def test_dominated_points_are_dropped_and_counted() -> None:
    noisy = [*CURVE, (0.6, 33.0), (0.5, 33.9), (1.6, 40.0), (2.0, math.inf)]
    result = bd_rate(CURVE, noisy)
    assert result.percent == pytest.approx(0, abs=1e-9)
    assert result.dropped == 4


@given(st.lists(st.tuples(st.floats(0.01, 10), st.floats(20, 60)), max_size=20))
def test_the_front_rises_and_nothing_beats_it(points: list[Point]) -> None:
    front = pareto_front(points)
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(front))
    for rate, quality in points:
        assert any(r <= rate and q >= quality for r, q in front)


@pytest.mark.parametrize(
    "test",
    [[], CURVE[:1], [(0.5, 20.0), (1.0, 27.9)], [(0.1, math.nan), (0.2, 30.0)], [(0.0, 30.0), (0.1, 31.0)]],
)
def test_no_number_without_a_common_interval(test: list[Point]) -> None:
    with pytest.raises(NotComparable):
        bd_rate(CURVE, test)
