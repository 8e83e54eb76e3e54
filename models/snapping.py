"""Snapping floats to integers so that every device finds the same ones.

A network in float64 gives nearly the same numbers everywhere. They are rounded to integers; the rare
ones that lie within ``GUARD`` of a rounding boundary, where two devices might disagree, the encoder lists with
the integer that it found, and the decoder takes that. Noise below the guard can then change nothing, and because
every step of the network sees integers only, it cannot add up either. (The idea of telling the decoder the
doubtful ones is that of calibration information: Tian et al., ACM Multimedia 2023.)
"""

from __future__ import annotations

from bisect import bisect_left

import torch
from torch import Tensor

from lichen.models.bitstream import read_varint, varint
from lichen.models.errors import CorruptBitstream, InvalidCodec

GUARD = 2.0**-22
"""Distance from a boundary, in units of the integer, within which a value is listed. Noise is some 2**-40."""
LARGEST = 1 << 30
"""Magnitude that snapped integers are clamped to."""


class Recorder:
    """Encoder's side: rounds, and lists what is doubtful in the order of the calls."""

    def __init__(self) -> None:
        self._at = 0
        self._listed: list[tuple[int, int]] = []

    def snap(self, values: Tensor) -> Tensor:
        """Integers of float64 ``values`` of any shape, as float64. Raises ``InvalidCodec`` for what is no number."""
        integers, doubtful = _rounded(values)
        places = doubtful.reshape(-1).nonzero()[:, 0]
        chosen = integers.reshape(-1)[places]
        self._listed += [
            (self._at + place, int(value)) for place, value in zip(places.tolist(), chosen.tolist(), strict=True)
        ]
        self._at += values.numel()
        return integers

    def pack(self) -> bytes:
        """The list as bytes: a number of entries; for each its distance from the last place, and its zigzag value."""
        parts = [varint(len(self._listed))]
        last = -1
        for place, value in self._listed:
            parts += [varint(place - last - 1), varint(2 * value if value >= 0 else -2 * value - 1)]
            last = place
        return b"".join(parts)


class Player:
    """Decoder's side: rounds, and takes the encoder's integers where it listed them."""

    def __init__(self, data: bytes) -> None:
        """``data`` begins with a packed list. Raises ``CorruptBitstream``."""
        count, at = read_varint(data, 0)
        if 2 * count > len(data):
            raise CorruptBitstream("more listed integers than bytes")
        self._places: list[int] = []
        self._values: list[int] = []
        last = -1
        for _ in range(count):
            step, at = read_varint(data, at)
            folded, at = read_varint(data, at)
            last += step + 1
            self._places.append(last)
            self._values.append(folded >> 1 if folded % 2 == 0 else -(folded >> 1) - 1)
        if any(abs(value) > LARGEST for value in self._values):
            raise CorruptBitstream("a listed integer is out of range")
        self.end = at
        """Where the list ends in ``data``."""
        self._at = 0

    def snap(self, values: Tensor) -> Tensor:
        """Integers of float64 ``values``, as float64."""
        integers, _ = _rounded(values)
        first = bisect_left(self._places, self._at)
        last = bisect_left(self._places, self._at + values.numel())
        if first < last:
            places = torch.tensor(self._places[first:last], device=values.device) - self._at
            listed = torch.tensor(self._values[first:last], device=values.device, dtype=integers.dtype)
            integers = integers.contiguous()
            integers.view(-1)[places] = listed
        self._at += values.numel()
        return integers

    def finish(self) -> None:
        """Raise ``CorruptBitstream`` if something is listed beyond the last value."""
        if self._places and self._places[-1] >= self._at:
            raise CorruptBitstream("an integer is listed for a place that does not exist")


def _rounded(values: Tensor) -> tuple[Tensor, Tensor]:
    if not bool(torch.isfinite(values).all()):
        raise InvalidCodec("the entropy model gives values that are no numbers")
    values = values.clamp(-LARGEST, LARGEST)
    integers = torch.floor(values + 0.5)
    doubtful = (values - torch.floor(values) - 0.5).abs() < GUARD * (1 + values.abs())
    return integers, doubtful
