"""Tiles of large pictures: one latent plane, cut on the 64-pixel grid, with halos in the transforms only.

A halo as wide as a network's receptive field makes the result inside of a tile the same as that of the untiled
network, so tiles show no seam and cost no rate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels, ``top <= row < bottom`` and ``left <= column < right``, multiples of 64."""

    top: int
    bottom: int
    left: int
    right: int

    def at(self, factor: int) -> tuple[slice, slice]:
        """Row and column slices of this window in a plane of 1/``factor`` resolution."""
        rows = slice(self.top // factor, self.bottom // factor)
        return rows, slice(self.left // factor, self.right // factor)

    def grown(self, halo: int, height: int, width: int) -> Window:
        """This window with a halo, clipped to the picture."""
        return Window(
            max(0, self.top - halo),
            min(height, self.bottom + halo),
            max(0, self.left - halo),
            min(width, self.right + halo),
        )

    def inside(self, outer: Window) -> Window:
        """This window in the coordinates of ``outer``."""
        return Window(self.top - outer.top, self.bottom - outer.top, self.left - outer.left, self.right - outer.left)


def tiles(height: int, width: int, side: int) -> Iterator[Window]:
    """Tiles of a picture, row by row; ``side`` 0 means one for all of it."""
    if side == 0:
        yield Window(0, height, 0, width)
        return
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield Window(top, min(top + side, height), left, min(left + side, width))
