"""Pictures side by side at equal bytes: what numbers stand for, to be judged by looking.

The pictures are chosen by a rule and not by hand: that where the codec does worst against the best of its rivals by
SSIMULACRA 2, the one in the middle, and that where it does best. Shown is the square in which all codecs together err
most.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lichen.errors import UsageError
from lichen.models.codec import MAX_QUALITY, MIN_QUALITY, Codec, Pixels
from lichen.pipeline.measures.ssimulacra2 import ssimulacra2

SIDE = 256
"""Pixels of a square; smaller pictures are left out."""
_GRID = 64
_CAPTION = 34


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One codec's reconstruction of a picture: payload bytes, its quality, and the score of the whole picture."""

    codec: str
    bytes: int
    quality: float
    ssimulacra2: float
    pixels: Pixels


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """A picture by all codecs, the tested one first. ``lead`` is its score less that of the best rival."""

    name: str
    source: Pixels
    seen: tuple[Seen, ...]

    @property
    def lead(self) -> float:
        return self.seen[0].ssimulacra2 - max(one.ssimulacra2 for one in self.seen[1:])


def run(
    codec: Codec,
    rivals: Sequence[Codec],
    pictures: Mapping[str, Pixels],
    *,
    quality: float,
    progress: Callable[[int], None] | None = None,
) -> list[Sight]:
    """Every picture by ``codec`` at ``quality``, and by each rival at its highest quality that takes no more bytes.

    Sorted by ``lead``, the worst first. Raises ``UsageError`` if no picture is large enough or there is no rival.
    """
    large = {name: pixels for name, pixels in pictures.items() if min(pixels.shape[:2]) >= SIDE}
    if not large or not rivals:
        raise UsageError(f"to compare what is seen takes a rival, and pictures of at least {SIDE} pixels a side")
    sights = []
    for name, pixels in large.items():
        own = _seen(codec, pixels, quality)
        sights.append(
            Sight(name=name, source=pixels, seen=(own, *(_at_most(one, pixels, own.bytes) for one in rivals)))
        )
        if progress is not None:
            progress(1)
    return sorted(sights, key=lambda sight: (sight.lead, sight.name))


def chosen(sights: Sequence[Sight]) -> list[Sight]:
    """The worst, the middle and the best of sorted sights; fewer where there are fewer."""
    last = len(sights) - 1
    return [sights[number] for number in sorted({0, last // 2, last})]


def place(sight: Sight) -> tuple[int, int]:
    """Top and left of the square, on a grid, where the squared errors of all codecs add up to most."""
    source = sight.source.astype(np.int32)
    errors = sum(np.square(one.pixels - source).sum(axis=2) for one in sight.seen)
    sums = np.pad(np.cumsum(np.cumsum(errors, axis=0), axis=1), ((1, 0), (1, 0)))
    height, width = source.shape[:2]
    corners = [(y, x) for y in _starts(height) for x in _starts(width)]

    def total(corner: tuple[int, int]) -> int:
        y, x = corner
        return int(sums[y + SIDE, x + SIDE] - sums[y, x + SIDE] - sums[y + SIDE, x] + sums[y, x])

    return max(corners, key=total)


def draw(sights: Sequence[Sight], path: str | Path) -> None:
    """A sheet: a row for each picture, the source first, with bytes and scores below. PNG is meant."""
    columns = 1 + len(sights[0].seen)
    sheet = Image.new("RGB", (columns * (SIDE + 8) - 8, len(sights) * (SIDE + _CAPTION + 8)), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for row, sight in enumerate(sights):
        y, x = place(sight)
        top = row * (SIDE + _CAPTION + 8)
        source = (sight.source, f"{sight.name}\nsource, {SIDE}x{SIDE} pixels of it")
        rest = [
            (one.pixels, f"{one.codec}, {one.bytes:,} bytes\nSSIMULACRA 2 {one.ssimulacra2:.1f}") for one in sight.seen
        ]
        for column, (pixels, caption) in enumerate((source, *rest)):
            left = column * (SIDE + 8)
            sheet.paste(Image.fromarray(np.ascontiguousarray(pixels[y : y + SIDE, x : x + SIDE])), (left, top))
            pen.multiline_text((left + 2, top + SIDE + 2), caption, fill="black", font=font, spacing=2)
    sheet.save(path)


def _starts(length: int) -> list[int]:
    return [*range(0, length - SIDE, _GRID), length - SIDE]


def _seen(codec: Codec, pixels: Pixels, quality: float) -> Seen:
    (encoded,) = codec.encode([pixels], quality)
    (decoded,) = codec.decode([encoded.bitstream])
    score = ssimulacra2(pixels, decoded.pixels)
    assert score is not None  # the picture is large
    return Seen(
        codec=codec.name,
        bytes=len(encoded.bitstream),
        quality=quality,
        ssimulacra2=score,
        pixels=decoded.pixels,
    )


def _at_most(codec: Codec, pixels: Pixels, size: int) -> Seen:
    """At the highest whole quality of no more than ``size`` bytes, the lowest of all where there is none."""
    low, high = int(MIN_QUALITY), int(MAX_QUALITY)
    while low < high:
        middle = (low + high + 1) // 2
        if len(codec.encode([pixels], middle)[0].bitstream) <= size:
            low = middle
        else:
            high = middle - 1
    return _seen(codec, pixels, low)
