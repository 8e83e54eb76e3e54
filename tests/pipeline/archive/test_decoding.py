"""Original files that are shown: whatever Pillow reads, but for what would cost more than a file of its size may."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lichen.errors import UndecodablePicture
from lichen.pipeline.archive.decoding import open_original

CASES = Path(__file__).parents[2] / "data" / "cases"


def test_originals_that_take_their_decoder_hours_are_not_opened() -> None:
    path = CASES / "jpeg" / "jpeg_progressive_scans.jpg"
    with pytest.raises(UndecodablePicture, match="scans"):
        open_original(path.read_bytes(), path.name)


def test_originals_that_are_mostly_holes_are_not_opened() -> None:
    """81 megapixels of a file of some hundred bytes."""
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(buffer, "TIFF")
    data = bytearray(buffer.getvalue())
    (start,) = struct.unpack_from("<I", data, 4)
    for entry in range(struct.unpack_from("<H", data, start)[0]):
        at = start + 2 + 12 * entry
        if struct.unpack_from("<H", data, at)[0] in (256, 257):
            struct.pack_into("<HII", data, at + 2, 4, 1, 9000)
    with pytest.raises(UndecodablePicture, match="9000x9000"):
        open_original(bytes(data), "a.tif")


@pytest.mark.parametrize("mode", ["CMYK", "I;16", "P", "1"])
def test_what_no_codec_takes_is_shown(mode: str) -> None:
    buffer = io.BytesIO()
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
    image = Image.fromarray(pixels.astype(np.uint16)) if mode == "I;16" else Image.fromarray(pixels).convert(mode)
    image.save(buffer, "TIFF")
    assert open_original(buffer.getvalue(), "a.tif").mode == mode
    if mode == "P":
        gif = io.BytesIO()
        image.save(gif, "GIF")
        assert open_original(gif.getvalue(), "a.gif").size == (8, 8)
