"""BMP, TGA and Netpbm protect no pixel: at least all are there, and where they should be."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures_support import RGB, encoded
from PIL import Image

from lichen.errors import DamagedPicture, UndecodablePicture, UnsupportedPicture
from lichen.pipeline.pictures.reading import read_picture, save_picture, to_pil
from lichen.pipeline.pictures.saving import not_carried

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


def test_what_somebody_wrote_about_a_picture_is_kept() -> None:
    named = encoded(Image.fromarray(RGB), "TGA", id_section=b"the red one")
    assert read_picture(named, name="x.tga").blocks == (("tga:id", b"the red one"),)
    assert read_picture(FILES["x.tga"], name="x.tga").blocks == ()  # an empty footer
    for packing in ("tga_rle", None):
        body = encoded(Image.fromarray(RGB), "TGA", compression=packing)[:-26]
        about = struct.pack("<H41s", 495, b"somebody").ljust(495, b"\0")
        footer = struct.pack("<II18s", len(body), 0, b"TRUEVISION-XFILE.\0")
        ((kind, kept),) = read_picture(body + about + footer, name="x.tga").blocks
        assert kind == "tga:trailer" and kept.startswith(about.rstrip(b"\0"))
        premultiplied = about[:-1] + b"\4"
        with pytest.raises(UnsupportedPicture, match="premultiplied"):
            read_picture(body + premultiplied + footer, name="x.tga")
    commented = b"P6 # by somebody\n#in May\n2 1\n255\n" + bytes(6)
    assert read_picture(commented).blocks == (("ppm:comment", b" by somebody"), ("ppm:comment", b"in May"))


@pytest.mark.parametrize(("density", "kept"), [((300, 300), True), ((72, 72), False), ((96, 96), False), (None, False)])
def test_a_density_that_somebody_chose_is_kept(density: tuple[int, int] | None, kept: bool) -> None:
    settings = {} if density is None else {"dpi": density}
    picture = read_picture(encoded(Image.fromarray(RGB), "BMP", **settings))
    assert [name for name, _ in picture.blocks] == ["bmp:density"] * kept
    buffer = io.BytesIO()
    save_picture(to_pil(picture.pixels, picture.mode, picture), buffer, "PNG", blocks=picture.blocks)
    with Image.open(buffer) as image:
        assert ("dpi" in image.info) == kept and round(image.info.get("dpi", (300,))[0]) == 300
    assert not_carried(picture.blocks, "PNG") == set()
