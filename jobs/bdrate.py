"""Bjontegaard delta rate: how many more bits one codec needs than another for the same quality.

The logarithm of the rate is interpolated over the quality by a piecewise cubic Hermite polynomial (pchip),
and the mean difference over the interval of qualities that both curves cover is taken (Bjontegaard,
VCEG-M33, 2001, with the interpolation that JVET uses since), by the ``bjontegaard`` package.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from lichen.errors import NotComparable

Point: TypeAlias = tuple[float, float]
"""Rate in bits per pixel, quality in dB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BDRate:
    """A delta rate in percent (negative: the tested codec needs fewer bits), and what it rests on.

    ``low`` and ``high`` bound the interval of qualities (dB) that both curves cover, which is ``overlap``
    (0 to 1) of what they cover together: a small one says little. ``dropped`` counts the points left out as
    dominated.
    """

    percent: float
    low: float
    high: float
    overlap: float
    dropped: int


def bd_rate(anchor: Iterable[Point], test: Iterable[Point]) -> BDRate:
    """Delta rate of ``test`` against ``anchor`` over the interval of qualities that both cover.

    The curves need not have the same number of points, nor an order. Points are dropped that another point
    of the same curve beats in rate and quality, as they would make the curve ambiguous and nobody would
    choose them. Raises ``NotComparable`` when fewer than two points are left or the curves share no
    interval.
    """
    import bjontegaard  # imports pyplot, hence late

    anchor_points, test_points = list(anchor), list(test)
    anchor_front, test_front = pareto_front(anchor_points), pareto_front(test_points)
    for name, front in (("anchor", anchor_front), ("tested", test_front)):
        if len(front) < 2:
            raise NotComparable(f"the {name} curve has {len(front)} usable points; a curve needs two")
    low = max(anchor_front[0][1], test_front[0][1])
    high = min(anchor_front[-1][1], test_front[-1][1])
    if low >= high:
        raise NotComparable(f"no common quality: anchor {_span(anchor_front)}, tested curve {_span(test_front)}")
    percent = bjontegaard.bd_rate(
        *_columns(anchor_front),
        *_columns(test_front),
        method="pchip",
        require_matching_points=False,
        min_overlap=0,  # told by `overlap` instead of a warning
    )
    together = max(anchor_front[-1][1], test_front[-1][1]) - min(anchor_front[0][1], test_front[0][1])
    return BDRate(
        percent=float(percent),
        low=low,
        high=high,
        overlap=(high - low) / together,
        dropped=len(anchor_points) + len(test_points) - len(anchor_front) - len(test_front),
    )


def pareto_front(points: Iterable[Point]) -> list[Point]:
    """The points that no other beats in both rate and quality, by rising rate, hence by rising quality.

    Points whose quality is not finite (a lossless picture) or whose rate is not positive are left out.
    """
    front: list[Point] = []
    usable = (p for p in points if math.isfinite(p[0]) and p[0] > 0 and math.isfinite(p[1]))
    for rate, quality in sorted(usable, key=lambda point: (point[0], -point[1])):
        if not front or quality > front[-1][1]:
            front.append((rate, quality))
    return front


def _columns(front: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [rate for rate, _ in front], [quality for _, quality in front]


def _span(front: Sequence[Point]) -> str:
    return f"{front[0][1]:.2f} to {front[-1][1]:.2f} dB"
