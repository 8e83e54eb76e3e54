"""Snapping floats to integers so that every device finds the same ones.

A network in float64 gives nearly the same numbers everywhere. They are rounded to integers; the rare
ones that lie within ``GUARD`` of a rounding boundary, where two devices might disagree, the encoder lists with
the integer that it found, and the decoder takes that. Noise below the guard can then change nothing, and because
every step of the network sees integers only, it cannot add up either. (The idea of telling the decoder the
doubtful ones is that of calibration information: Tian et al., ACM Multimedia 2023.)

A batch of pictures is snapped together, with a list for each.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import torch
from torch import Tensor

from lichen.errors import CorruptBitstream, InvalidCodec
from lichen.models.bitstream import read_varint, varint

GUARD = 2.0**-22
"""Distance from a boundary, in units of the integer, within which a value is listed. Noise is some 2**-40."""
LARGEST = 1 << 30
"""Magnitude that snapped integers are clamped to."""


class Recorder:
    """Encoder's side: rounds, and lists what is doubtful, in the order of the calls."""

    def __init__(self, pictures: int) -> None:
        self._at = 0
        self._listed: list[list[tuple[int, int]]] = [[] for _ in range(pictures)]

    def snap(self, values: Tensor) -> Tensor:
        """Integers of float64 ``values`` ``(pictures, ...)``, as float64.

        Raises ``InvalidCodec`` for what is no number.
        """
        integers = _rounded(values)
        doubtful = (values - torch.floor(values) - 0.5).abs() < GUARD * (1 + values.abs())
        doubtful |= ~torch.isfinite(values)
        picture, place = doubtful.flatten(1).nonzero().unbind(1)
        found = torch.stack([picture.double(), place.double(), values.flatten(1)[picture, place]]).cpu()
        if not bool(torch.isfinite(found).all()):
            raise InvalidCodec("the entropy model gives values that are no numbers")
        chosen = integers.flatten(1)[picture, place].cpu().tolist()
        for one, at, value in zip(found[0].tolist(), found[1].tolist(), chosen, strict=True):
            self._listed[int(one)].append((self._at + int(at), int(value)))
        self._at += values[0].numel()
        return integers

    def pack(self, picture: int) -> bytes:
        """A picture's list: the number of entries; for each its distance from the last place, and its zigzag value."""
        parts = [varint(len(self._listed[picture]))]
        last = -1
        for place, value in self._listed[picture]:
            parts += [varint(place - last - 1), varint(2 * value if value >= 0 else -2 * value - 1)]
            last = place
        return b"".join(parts)


class Player:
    """Decoder's side: rounds, and takes the encoder's integers where it listed them."""

    def __init__(self, data: Sequence[bytes]) -> None:
        """Each picture's ``data`` begins with its list. Raises ``CorruptBitstream``."""
        lists = [_unpack(one) for one in data]
        self._places = [places for places, _, _ in lists]
        self._values = [values for _, values, _ in lists]
        self.ends = [end for _, _, end in lists]
        """Where each list ends in its data."""
        self._at = 0

    def snap(self, values: Tensor) -> Tensor:
        """Integers of float64 ``values`` ``(pictures, ...)``, as float64."""
        integers = torch.nan_to_num(_rounded(values)).contiguous()
        size = values[0].numel()
        for picture, places in enumerate(self._places):
            first, last = bisect_left(places, self._at), bisect_left(places, self._at + size)
            if first < last:
                where = torch.tensor(places[first:last], device=values.device) - self._at
                listed = torch.tensor(self._values[picture][first:last], device=values.device, dtype=integers.dtype)
                integers[picture].view(-1)[where] = listed
        self._at += size
        return integers

    def finish(self) -> None:
        """Raise ``CorruptBitstream`` if something is listed beyond the last value."""
        if any(places and places[-1] >= self._at for places in self._places):
            raise CorruptBitstream("an integer is listed for a place that does not exist")


def _rounded(values: Tensor) -> Tensor:
    return torch.floor(values.clamp(-LARGEST, LARGEST) + 0.5)


def _unpack(data: bytes) -> tuple[list[int], list[int], int]:
    """Places and values of a list, and where it ends."""
    count, at = read_varint(data, 0)
    if 2 * count > len(data):
        raise CorruptBitstream("more listed integers than bytes")
    places: list[int] = []
    values: list[int] = []
    last = -1
    for _ in range(count):
        step, at = read_varint(data, at)
        folded, at = read_varint(data, at)
        last += step + 1
        places.append(last)
        values.append(folded >> 1 if folded % 2 == 0 else -(folded >> 1) - 1)
    if any(abs(value) > LARGEST for value in values):
        raise CorruptBitstream("a listed integer is out of range")
    return places, values, at
