"""Where a picture is exactly flat, and how finely that is worth telling (the other side: ``lichen.pipeline.flat``).

A colour counts if it fills at least ``LEAST`` whole squares of 8 pixels. How much a map costs depends on its squares:
of 16 pixels it is a tenth to a fiftieth of one by the pixel. So each payload gets the finest that costs no more than
``SHARE`` of it, and the coarsest in any case: exactly flat regions stay so at every quality.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lichen.models.codec import Pixels
from lichen.pipeline.flat import MAX_COLOURS, MAX_LEVEL, Flat, paint
from lichen.pipeline.measures.kernels import kernel
from lichen.pipeline.side import with_flat

LEAST = 16
SHARE = 0.02
_FIND_LEVEL = 3


class FlatMaps:
    """The maps of one picture, from coarse to fine; each is made when it is asked for."""

    def __init__(self, pixels: Pixels) -> None:
        self._pixels = pixels
        self._colours = flat_colours(pixels)
        self._maps: list[tuple[Flat | None, int]] = []

    def side(self, plain: bytes, payload: int, decoded: Pixels) -> tuple[bytes, Pixels]:
        """Side data with the map that suits a payload of this many bytes, and the pixels as a decoder paints them.

        Without a map where there is nothing to paint, or where the codec changed nothing of it.
        """
        best = None
        for level in range(MAX_LEVEL, -1, -1) if len(self._colours) else ():
            flat, cost = self._map(level)
            if flat is not None and (best is None or cost <= SHARE * payload):
                best = flat
            if 2 * cost > SHARE * payload:  # the next one takes twice as much, or more
                break
        if best is None:
            return plain, decoded
        painted = paint(decoded, best)
        return (plain, decoded) if np.array_equal(painted, decoded) else (with_flat(plain, best), painted)

    def _map(self, level: int) -> tuple[Flat | None, int]:
        """The flat map of a picture and what it costs in bytes."""
        while len(self._maps) <= MAX_LEVEL - level:
            flat = _flat_map(self._pixels, self._colours, MAX_LEVEL - len(self._maps))
            self._maps.append((flat, 0 if flat is None else len(with_flat(b"", flat))))
        return self._maps[MAX_LEVEL - level]


def flat_colours(pixels: Pixels) -> NDArray[np.int32]:
    """Colours that fill ``LEAST`` squares of 8 pixels, as 0xRRGGBB in ascending order; the most frequent ones."""
    codes = flat_codes(pixels, 1 << _FIND_LEVEL)
    colours, counts = np.unique(codes[codes >= 0], return_counts=True)
    order = np.argsort(-counts[counts >= LEAST], kind="stable")[:MAX_COLOURS]
    return np.sort(colours[counts >= LEAST][order])


def _flat_map(pixels: Pixels, colours: NDArray[np.int32], level: int) -> Flat | None:
    """The map with squares of one level; None if there is none of these colours."""
    codes = flat_codes(pixels, 1 << level)
    found = np.searchsorted(colours, codes).clip(max=len(colours) - 1)
    known = colours[found] == codes
    if not known.any():
        return None
    used, numbers = np.unique(found[known], return_inverse=True)
    plane = np.zeros(codes.shape, np.uint8)
    plane[known] = numbers + 1
    chosen = colours[used]
    rgb = np.stack([chosen >> 16, chosen >> 8 & 255, chosen & 255], axis=1).astype(np.uint8)
    return Flat(level=level, colours=rgb, plane=plane)


@kernel
def flat_codes(pixels: NDArray[np.uint8], side: int) -> NDArray[np.int32]:
    """For each square of a picture its colour as 0xRRGGBB, or -1 where it has several."""
    height, width = pixels.shape[:2]
    codes = np.empty((-(-height // side), -(-width // side)), np.int32)
    for row in range(codes.shape[0]):
        for column in range(codes.shape[1]):
            top, left = row * side, column * side
            r, g, b = pixels[top, left, 0], pixels[top, left, 1], pixels[top, left, 2]
            flat = True
            for y in range(top, min(top + side, height)):
                for x in range(left, min(left + side, width)):
                    if pixels[y, x, 0] != r or pixels[y, x, 1] != g or pixels[y, x, 2] != b:
                        flat = False
                        break
                if not flat:
                    break
            codes[row, column] = (np.int32(r) << 16 | np.int32(g) << 8 | np.int32(b)) if flat else -1
    return codes
