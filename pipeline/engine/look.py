"""A cheap look at a picture: is it a photograph? One pass over the pixels, in about a millisecond a megapixel.

Photographs have grain, so hardly two neighbours are equal. Where a part of a picture is exactly flat, or most
pixels are as their neighbours are, it was drawn, at least in part; then other codecs are worth a trial.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lichen.models.codec import Pixels
from lichen.pipeline.engine.flatness import flat_codes
from lichen.pipeline.measures.kernels import kernel

FLAT = 0.1
"""Share of squares of 8 pixels of one colour from which a picture is no photograph."""
SAME = 0.5
"""Share of pixels that are as their neighbour is, across and down, from which it is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a look at a picture saw."""

    flat: float
    same: float

    @property
    def photograph(self) -> bool:
        return self.flat < FLAT and self.same < SAME


def look_at(pixels: Pixels) -> Look:
    """Look at a picture."""
    height, width = pixels.shape[:2]
    across, down = _same(pixels)
    shares = across / max(1, height * (width - 1)), down / max(1, (height - 1) * width)
    return Look(flat=float((flat_codes(pixels, 8) >= 0).mean()), same=min(shares))


@kernel
def _same(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """How many pixels are as the one to the left, and as the one above."""
    height, width = pixels.shape[:2]
    across, down = 0, 0
    for y in range(height):
        for x in range(width):
            r, g, b = pixels[y, x, 0], pixels[y, x, 1], pixels[y, x, 2]
            if x > 0:
                across += r == pixels[y, x - 1, 0] and g == pixels[y, x - 1, 1] and b == pixels[y, x - 1, 2]
            if y > 0:
                down += r == pixels[y - 1, x, 0] and g == pixels[y - 1, x, 1] and b == pixels[y - 1, x, 2]
    return across, down
