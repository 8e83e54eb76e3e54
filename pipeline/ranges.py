"""Which byte ranges to fetch together: a pure planner, without I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_GAP = 64 * 1024
MAX_REQUEST = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Part:
    """A wanted range inside a request: its number in the caller's list, and its place in the answer."""

    number: int
    start: int
    length: int


@dataclass(frozen=True, slots=True)
class Request:
    """One read of ``length`` bytes from ``start`` that answers all of ``parts``."""

    start: int
    length: int
    parts: tuple[Part, ...]


def plan_ranges(
    ranges: Sequence[tuple[int, int]], max_gap: int = MAX_GAP, max_request: int = MAX_REQUEST
) -> list[Request]:
    """Join (offset, length) ranges of one file into as few requests as the two limits allow.

    Ranges may come in any order, overlap and repeat. Two ranges share a request if at most ``max_gap``
    unwanted bytes lie between them and the request stays within ``max_request`` bytes; a longer single
    range is one request of its own length. Empty ranges are answered by an empty request or ride along.
    Raises ``ValueError`` on negative numbers.
    """
    if max_gap < 0 or max_request < 0:
        raise ValueError("limits must not be negative")
    if any(offset < 0 or length < 0 for offset, length in ranges):
        raise ValueError("ranges must not be negative")
    requests: list[Request] = []
    members: list[int] = []
    start = end = 0

    def close() -> None:
        if members:
            parts = tuple(Part(number, ranges[number][0] - start, ranges[number][1]) for number in members)
            requests.append(Request(start, end - start, parts))

    for number in sorted(range(len(ranges)), key=lambda n: ranges[n]):
        offset, length = ranges[number]
        joined = max(end, offset + length)
        # A range that lies inside the request already costs nothing, whatever the limit.
        fits = joined == end or (offset - end <= max_gap and joined - start <= max_request)
        if members and fits:
            members.append(number)
            end = joined
        else:
            close()
            members = [number]
            start, end = offset, offset + length
    close()
    return requests
