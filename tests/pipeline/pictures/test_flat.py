"""Maps of flat regions: found, packed and painted exactly, and hostile ones refused."""

from __future__ import annotations

import random
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from lichen.errors import CorruptArchive
from lichen.models.codec import Pixels
from lichen.pipeline.engine.flatness import LEAST, SHARE, FlatMaps, flat_codes
from lichen.pipeline.pictures.flat import MAX_LEVEL, Flat, paint, squares
from lichen.pipeline.pictures.side import Side, apply_side, pack_side, unpack_side, with_flat


def patchwork(height: int, width: int, seed: int, colours: int) -> Pixels:
    """Rectangles of few colours over noise."""
    dice = np.random.default_rng(seed)
    pixels = dice.integers(0, 256, (height, width, 3), dtype=np.uint8)
    palette = dice.integers(0, 256, (colours, 3), dtype=np.uint8)
    for _ in range(6):
        top, left = dice.integers(0, height), dice.integers(0, width)
        pixels[top : top + dice.integers(1, 120), left : left + dice.integers(1, 120)] = palette[dice.integers(colours)]
    return pixels


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200), st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(0, 1 << 20))
def test_flat_regions_come_back_exactly(height: int, width: int, seed: int, colours: int, payload: int) -> None:
    picture = patchwork(height, width, seed, colours)
    decoded = np.clip(picture.astype(int) + np.random.default_rng(seed).integers(-9, 10, picture.shape), 0, 255)
    decoded = decoded.astype(np.uint8)
    side, painted = FlatMaps(picture).side(b"", payload, decoded)
    back, beside = apply_side(decoded, side)
    assert np.array_equal(back, painted)
    changed = (painted != decoded).any(axis=2)
    assert np.array_equal(painted[changed], picture[changed])
    if beside.flat is not None:
        codes = flat_codes(picture, 1 << beside.flat.level)
        names, counts = np.unique(flat_codes(picture, 8), return_counts=True)
        for name in names[(counts >= LEAST) & (names >= 0)]:
            where = np.kron(codes == name, np.ones((1 << beside.flat.level,) * 2, bool))[:height, :width]
            assert np.array_equal(painted[where], picture[where])


def test_white_stays_white_however_little_the_payload() -> None:
    picture = np.full((200, 300, 3), 255, np.uint8)
    picture[50:90, 100:140] = patchwork(40, 40, 1, 1)
    decoded = np.where(picture == 255, 254, picture).astype(np.uint8)
    _, painted = FlatMaps(picture).side(b"", 0, decoded)
    assert (painted[:32] == 255).all()
    assert (painted[112:] == 255).all()


def test_maps_are_as_fine_as_the_payload_pays_for() -> None:
    picture = patchwork(160, 200, 3, 2)
    maps, decoded = FlatMaps(picture), np.zeros_like(picture)
    sizes = {payload: maps.side(b"", payload, decoded)[0] for payload in (100, 10_000, 1_000_000)}
    levels = [flat.level for side in sizes.values() if (flat := unpack_side(side).flat)]
    assert levels[0] == MAX_LEVEL
    assert levels == sorted(levels, reverse=True)
    assert levels[-1] < levels[0]
    for payload, side in list(sizes.items())[1:]:
        assert len(side) <= SHARE * payload


def test_nothing_is_noted_of_a_photograph_or_of_what_the_codec_kept() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    assert FlatMaps(noise).side(b"", 10_000, np.zeros_like(noise))[0] == b""
    white = np.full((256, 256, 3), 255, np.uint8)
    assert FlatMaps(white).side(b"plain", 10_000, white) == (b"plain", white)


@st.composite
def maps(draw: st.DrawFn) -> Flat:
    colours = draw(arrays(np.uint8, (draw(st.integers(1, 255)), 3)))
    shape = draw(st.tuples(st.integers(1, 40), st.integers(1, 40)))
    plane = draw(arrays(np.uint8, shape, elements=st.integers(0, len(colours))))
    return Flat(level=draw(st.integers(0, MAX_LEVEL)), colours=colours, plane=plane)


@settings(max_examples=60, deadline=None)
@given(maps(), st.binary(max_size=50))
def test_a_map_round_trips(flat: Flat, xmp: bytes) -> None:
    packed = with_flat(pack_side(Side(xmp=xmp)), flat)
    side = unpack_side(packed)
    assert side.xmp == xmp
    assert side.flat is not None
    assert side.flat.level == flat.level
    assert np.array_equal(side.flat.colours, flat.colours)
    assert np.array_equal(side.flat.plane, flat.plane)
    back = unpack_side(with_flat(b"", flat)).flat
    assert back is not None
    assert np.array_equal(back.plane, flat.plane)


@given(st.integers(1, 100), st.integers(1, 100), st.integers(0, MAX_LEVEL))
def test_every_square_is_painted_and_nothing_else(height: int, width: int, level: int) -> None:
    dice = np.random.default_rng(height * 101 + width)
    colours = dice.integers(0, 256, (3, 3), dtype=np.uint8)
    plane = dice.integers(0, 4, squares(height, width, level)).astype(np.uint8)
    pixels = dice.integers(0, 256, (height, width, 3), dtype=np.uint8)
    painted = paint(pixels, Flat(level=level, colours=colours, plane=plane))
    for y in range(height):
        number = plane[y >> level].repeat(1 << level)[:width]
        expected = np.where(number[:, None] > 0, colours[number.astype(int) - 1], pixels[y])
        assert np.array_equal(painted[y], expected)


def _map(plane: NDArray[np.uint8], level: int = 3, colours: int = 1) -> bytes:
    return with_flat(b"", Flat(level=level, colours=np.zeros((colours, 3), np.uint8), plane=plane))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (_map(np.full((2, 2), 2, np.uint8)), "colour that it does not have"),
        (_map(np.ones((2, 2), np.uint8), level=5), "to the power of 5"),
        (_map(np.ones((2, 2), np.uint8), colours=0), "colour that it does not have"),
        (_map(np.ones((3, 2), np.uint8)), "another size than the picture"),
        (_map(np.ones((2, 2), np.uint8)) + _map(np.ones((2, 2), np.uint8))[1:], "twice"),
        (_map(np.ones((2, 2), np.uint8))[:-3], "ends early"),
    ],
)
def test_maps_that_nobody_wrote(data: bytes, said: str) -> None:
    with pytest.raises(CorruptArchive, match=said):
        apply_side(np.zeros((16, 16, 3), np.uint8), data)


def test_garbage_maps_end_in_errors_of_ours_and_in_bounded_memory() -> None:
    picture = patchwork(150, 170, 5, 3)
    good = FlatMaps(picture).side(b"", 1 << 20, np.zeros_like(picture))[0]
    dice = random.Random(2)
    refused = 0
    tracemalloc.start()
    for _ in range(1500):
        data = bytearray(good)
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(len(data))] = dice.randrange(256)
        try:
            pixels, _ = apply_side(picture, bytes(data[: dice.randint(0, len(data))] if dice.random() < 0.3 else data))
            assert pixels.shape == picture.shape
        except CorruptArchive:
            refused += 1
    assert refused > 700
    assert tracemalloc.get_traced_memory()[1] < 20 << 20
    tracemalloc.stop()
