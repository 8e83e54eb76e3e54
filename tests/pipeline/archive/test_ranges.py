"""The range planner, against its contract."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.pipeline.ranges import plan_ranges

ranges = st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 400)), max_size=40)


@given(ranges, st.integers(0, 300), st.integers(0, 1000))
def test_every_range_is_answered_within_the_limits(wanted: list[tuple[int, int]], gap: int, limit: int) -> None:
    file = bytes((n * 7 + n // 256) % 256 for n in range(3500))
    requests = plan_ranges(wanted, gap, limit)
    answered = {}
    for request in requests:
        assert request.parts
        answer = file[request.start : request.start + request.length]
        longest = max(part.length for part in request.parts)
        assert request.length <= max(limit, longest)
        covered = sorted((wanted[part.number] for part in request.parts), key=lambda r: r[0])
        end = covered[0][0]
        for offset, length in covered:
            assert offset - end <= gap
            end = max(end, offset + length)
        assert (covered[0][0], end) == (request.start, request.start + request.length)
        for part in request.parts:
            assert part.number not in answered
            answered[part.number] = answer[part.start : part.start + part.length]
    assert answered == {n: file[offset : offset + length] for n, (offset, length) in enumerate(wanted)}


@given(ranges, st.integers(0, 300), st.integers(0, 1000))
def test_no_two_neighbours_could_have_been_joined(wanted: list[tuple[int, int]], gap: int, limit: int) -> None:
    requests = plan_ranges(wanted, gap, limit)
    for one, two in pairwise(requests):
        first = wanted[two.parts[0].number]
        end = one.start + one.length
        assert first[0] - end > gap or max(end, first[0] + first[1]) - one.start > limit


def test_payloads_back_to_back_are_one_request() -> None:
    wanted = [(n * 1000, 1000) for n in range(100)]
    assert len(plan_ranges(wanted)) == 1
    assert len(plan_ranges(wanted, max_request=50_000)) == 2
    assert len(plan_ranges([(0, 1), (1 << 20, 1)])) == 2


def test_planning_many_ranges_is_fast() -> None:
    wanted = [(n * 100_000, 10) for n in reversed(range(50_000))]
    assert len(plan_ranges(wanted, max_gap=10)) == 50_000


@pytest.mark.parametrize("wanted", [[(-1, 5)], [(0, -5)]])
def test_negative_ranges_are_refused(wanted: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="negative"):
        plan_ranges(wanted)
