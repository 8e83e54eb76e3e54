"""BMP, TGA and Netpbm protect no pixel: at least all are there, and where they should be."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures_support import RGB, encoded
from PIL import Image

from lichen.models.errors import DamagedPicture, UndecodablePicture, UnsupportedPicture
from lichen.pipeline.images import read_picture

BMP = encoded(Image.fromarray(RGB), "BMP")
GREY_BMP = encoded(Image.fromarray(RGB[:, :, 0]), "BMP")
FILES = {"x.bmp": BMP, "g.bmp": GREY_BMP, "x.tga": encoded(Image.fromarray(RGB), "TGA")}
FILES["x.ppm"] = encoded(Image.fromarray(RGB), "PPM")


@given(offset=st.one_of(st.integers(0, 3000), st.integers(0, (1 << 32) - 1)), file=st.sampled_from(["x.bmp", "g.bmp"]))
def test_a_bitmap_has_its_pixels_behind_its_header(offset: int, file: str) -> None:
    data = FILES[file]
    begin = struct.unpack_from("<I", data, 10)[0]
    moved = data[:10] + struct.pack("<I", offset) + data[14:]
    try:
        picture = read_picture(moved)
    except (UndecodablePicture, UnsupportedPicture):
        return
    healthy = read_picture(data).pixels
    # Without a palette's length the offset of a palette picture means the palette's end.
    assert offset in (begin, 54) and np.array_equal(picture.pixels, healthy)


@pytest.mark.parametrize("name", FILES)
def test_cut_files_are_damaged(name: str) -> None:
    data = FILES[name]
    healthy = read_picture(data, name=name).pixels
    for length in range(60, len(data), 29):
        try:
            picture = read_picture(data[:length], name=name)
        except DamagedPicture:
            continue
        assert length >= len(data) - 26  # the footer of a TGA
        assert np.array_equal(picture.pixels, healthy)


def test_pixels_from_the_top() -> None:
    """A negative height, also the one that is its own opposite."""
    top = BMP[:22] + struct.pack("<i", -23) + BMP[26:]
    assert np.array_equal(read_picture(top).pixels, RGB[::-1])
    for height in (-(1 << 31), 1 << 30, -(1 << 30)):
        with pytest.raises(UndecodablePicture, match="limit"):
            read_picture(BMP[:22] + struct.pack("<i", height) + BMP[26:])
