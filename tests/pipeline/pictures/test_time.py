"""Small files that are made to be slow: examined in time that grows with their size, not with its square."""

from __future__ import annotations

import contextlib
import struct
from time import perf_counter

import pytest
from pictures_support import RGB, encoded
from PIL import Image

from lichen.errors import LichenError
from lichen.pipeline.pictures.reading import read_picture

IMAGE = Image.fromarray(RGB)
JPEG, AVIF = encoded(IMAGE, "JPEG"), encoded(IMAGE, "AVIF", exif=b"II*\0\x08\0\0\0\0\0")
SIZE = 1 << 20


def _previews() -> bytes:
    """An index of many pictures whose tags all have the same long list."""
    tags = 1000
    index = b"MM\0*" + struct.pack(">IH", 8, tags)
    index += struct.pack(">HHII", 0xB002, 7, 60_000, 0) * tags
    index = index.ljust(60_000, b"\1")
    return JPEG[:2] + (b"\xff\xe2" + struct.pack(">H", len(index) + 6) + b"MPF\0" + index) * 16 + JPEG[2:]


FILES = {
    "white space.ppm": b"P6" + b" " * 60 + b"x" + bytes(100),
    "comments.ppm": b"P6" + b"#\n" * 1000 + b"\n" * 60 + b"x" + bytes(100),
    "fill bytes.jpg": JPEG[:-2] + b"\xff" * SIZE + b"\0" + JPEG[-2:],
    "fill bytes at the end.jpg": JPEG[:-2] + b"\xff" * SIZE,
    "previews.jpg": _previews(),
    "exif.avif": AVIF + struct.pack(">I4s", 8 + SIZE, b"free") + b"II*\0" * (SIZE // 4),
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_made_to_be_slow(name: str) -> None:
    start = perf_counter()
    with contextlib.suppress(LichenError):
        read_picture(FILES[name], name=name)
    assert perf_counter() - start < 5  # some milliseconds; otherwise minutes, or years
