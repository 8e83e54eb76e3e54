"""Hostile picture files: reading ends in a picture or in one of its own errors, within bounded memory."""

from __future__ import annotations

import resource
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pictures_support import ALPHA, CASES, MESSY, RGB, encoded, round_trip
from PIL import Image

from lichen.errors import NotAPicture, UndecodablePicture, UnsupportedPicture
from lichen.pipeline.pictures.reading import Picture, read_picture

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

OWN = (NotAPicture, UnsupportedPicture, UndecodablePicture)
MAX_PIXELS = 1 << 22
MEMORY = 1 << 29
"""More than reading pictures of ``MAX_PIXELS`` may ever add to the process, in bytes."""

WAYS: dict[str, dict[str, Any]] = {
    "a.jpg": {"file_format": "JPEG"},
    "progressive.jpg": {"file_format": "JPEG", "progressive": True, "restart_marker_rows": 1},
    "a.png": {"file_format": "PNG"},
    "a.webp": {"file_format": "WEBP"},
    "lossless.webp": {"file_format": "WEBP", "lossless": True},
    "a.avif": {"file_format": "AVIF"},
    "raw.tif": {"file_format": "TIFF"},
    "lzw.tif": {"file_format": "TIFF", "compression": "tiff_lzw"},
    "deflate.tif": {"file_format": "TIFF", "compression": "tiff_adobe_deflate"},
    "jpeg.tif": {"file_format": "TIFF", "compression": "jpeg"},
    "big.tif": {"file_format": "TIFF", "big_tiff": True},
    "a.bmp": {"file_format": "BMP"},
    "a.tga": {"file_format": "TGA"},
    "rle.tga": {"file_format": "TGA", "compression": "tga_rle"},
    "a.ppm": {"file_format": "PPM"},
    "a.jp2": {"file_format": "JPEG2000"},
    "tiles.j2k": {"file_format": "JPEG2000", "no_jp2": True, "tile_size": (16, 16)},
}
WITH_ALPHA = ("a.png", "a.webp", "a.avif", "raw.tif", "a.tga")


@cache
def files() -> dict[str, bytes]:
    """Healthy files of every format, with metadata where there can be some, and the small messy ones."""
    image = Image.fromarray(RGB).resize((62, 46))
    transparent = image.copy()
    transparent.putalpha(Image.fromarray(ALPHA).resize((62, 46)))
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    made = {name: encoded(image, **way) for name, way in WAYS.items()}
    made |= {f"alpha-{name}": encoded(transparent, **WAYS[name], exif=exif) for name in WITH_ALPHA}
    folders = [*MESSY.iterdir(), *(CASES / "jpeg").glob("c*.jpg"), *(CASES / "colour").iterdir()]
    return made | {path.name: path.read_bytes() for path in folders if path.stat().st_size < 50_000}


NAMES = sorted([*WAYS, *(f"alpha-{name}" for name in WITH_ALPHA)])


def read(data: bytes, name: str) -> Picture | None:
    try:
        picture = read_picture(data, name=name, max_pixels=MAX_PIXELS)
        round_trip(picture)
    except OWN:
        return None
    return picture


@st.composite
def mutations(draw: st.DrawFn) -> tuple[str, bytes]:
    """A file that was cut, changed, filled or spliced, mostly near its headers."""
    name = draw(st.sampled_from(sorted(files())))
    data = bytearray(files()[name])
    for _ in range(draw(st.integers(1, 6))):
        reach = min(len(data), draw(st.sampled_from((32, 128, 1024, 1 << 20))))
        at = draw(st.integers(0, max(0, reach - 1)))
        way = draw(st.sampled_from(("byte", "bit", "number", "fill", "cut", "repeat", "remove")))
        if way == "byte":
            data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
        elif way == "bit" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif way == "number":
            value = draw(st.sampled_from((0, 1, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 0xFFFFFFF0)))
            size = draw(st.sampled_from((2, 4)))
            order = draw(st.sampled_from(("big", "little")))
            data[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, order)  # type: ignore[arg-type]
        elif way == "fill":
            data[at : at + 256] = draw(st.sampled_from((b"\0", b"\xff", b"\x55"))) * 256
        elif way == "cut":
            del data[at + draw(st.integers(0, 4096)) :]
        elif way == "repeat":
            data[at:at] = data[at : at + draw(st.integers(1, 512))] * draw(st.integers(1, 40))
        else:
            del data[at : at + draw(st.integers(1, 64))]
    return name, bytes(data)


def used() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def attack(name: str, data: bytes) -> None:
    before = used()
    read(data, name)
    assert used() - before < MEMORY


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutations())
def test_mutated_files_end_in_pictures_or_in_our_errors(mutation: tuple[str, bytes]) -> None:
    attack(*mutation)


@pytest.mark.fuzz
@pytest.mark.timeout(3600)
@settings(max_examples=40_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutations())
def test_mutated_files_for_long(mutation: tuple[str, bytes]) -> None:
    attack(*mutation)


@pytest.mark.parametrize("name", NAMES)
def test_a_cut_file_is_refused_or_whole(name: str) -> None:
    """No format lets the first part of a file pass for a picture."""
    data = files()[name]
    healthy = read(data, name)
    assert healthy is not None
    for length in {*range(1, len(data), max(1, len(data) // 50)), *range(max(1, len(data) - 9), len(data))}:
        picture = read(data[:length], name)
        assert picture is None or (
            picture.pixels.tobytes() == healthy.pixels.tobytes() and picture.mode == healthy.mode
        ), length


@pytest.mark.parametrize("name", ["a.png", "alpha-a.png", "deflate.tif"])
def test_formats_with_checksums_let_no_flip_pass(name: str) -> None:
    data = files()[name]
    healthy = read(data, name)
    assert healthy is not None
    for at in range(0, len(data), max(1, len(data) // 300)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        picture = read(bytes(flipped), name)
        assert picture is None or picture.pixels.tobytes() == healthy.pixels.tobytes(), at
