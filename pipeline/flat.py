"""Regions of exactly one colour, as a decoder paints them over what the codec made of them.

A lossy codec lets white become almost white, and grey beside a line. So the encoder notes where a picture is
exactly flat (``lichen.pipeline.engine.flatness``): a plane with one sample for each square of 1 to 16 pixels, which
is 0 or the number of a colour, counted from 1. It is a section of the side data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lichen.errors import CorruptArchive
from lichen.models.codec import Pixels

MAX_LEVEL = 4
MAX_COLOURS = 255


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Flat:
    """Squares of one colour: their side is 2 to the power of ``level``; those at the right and below may be cut."""

    level: int
    colours: NDArray[np.uint8]
    """The colours of the map, ``(number, 3)`` RGB."""
    plane: NDArray[np.uint8]
    """(rows, columns) of squares: 0 where the picture is as the codec gives it, else 1 + the number of its colour."""

    def check(self) -> None:
        """Raise ``CorruptArchive`` unless every square is of a colour that is there."""
        if self.plane.max(initial=0) > len(self.colours):
            raise CorruptArchive("a flat map with a colour that it does not have")

    def check_size(self, height: int, width: int) -> None:
        """Raise ``CorruptArchive`` unless it is the map of a picture of this size."""
        if self.plane.shape != squares(height, width, self.level):
            raise CorruptArchive("the flat map has another size than the picture")


def squares(height: int, width: int, level: int) -> tuple[int, int]:
    """Rows and columns of squares that cover a picture."""
    side = 1 << level
    return -(-height // side), -(-width // side)


def paint(pixels: Pixels, flat: Flat) -> Pixels:
    """A copy of decoded pixels with the flat regions in their colours. Raises ``CorruptArchive`` for another size."""
    height, width = pixels.shape[:2]
    flat.check_size(height, width)
    painted = pixels.copy()
    side = 1 << flat.level
    for row, numbers in enumerate(flat.plane):
        if numbers.any():
            across = np.repeat(numbers, side)[:width]
            columns = np.flatnonzero(across)
            painted[row * side : (row + 1) * side, columns] = flat.colours[across[columns] - 1]
    return painted
