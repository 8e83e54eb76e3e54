"""Damaged JPEG files are told from healthy ones, though Pillow decodes both without a word."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np
import pytest
import simplejpeg
from pictures_support import CASES, DATA, encoded
from PIL import Image

from lichen.errors import DamagedPicture, UndecodablePicture, UnsupportedPicture
from lichen.pipeline.pictures import jpeg
from lichen.pipeline.pictures.reading import read_picture

SAMPLES = sorted((DATA / "samples").glob("*.jpg"))
with Image.open(SAMPLES[0]) as _image:
    PHOTO = _image.convert("RGB").resize((200, 152))

KINDS: dict[str, dict[str, Any]] = {
    "4:4:4": {"subsampling": 0},
    "4:2:0": {"subsampling": 2},
    "4:1:1": {"subsampling": "4:1:1"},
    "progressive": {"progressive": True},
    "optimised": {"optimize": True, "quality": 20},
    "restarts": {"restart_marker_blocks": 3},
    "restarts, progressive": {"restart_marker_rows": 1, "progressive": True},
    "RGB": {"keep_rgb": True},
}
END = b"\xff\xd9"


def make(kind: str) -> bytes:
    return encoded(PHOTO, "JPEG", **KINDS[kind])


def is_told(data: bytes) -> bool:
    try:
        read_picture(data)
    except (DamagedPicture, UnsupportedPicture):
        return True
    return False


# --- healthy -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_healthy_kinds_are_healthy(kind: str) -> None:
    data = make(kind)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(read_picture(data).pixels, np.asarray(image))


def test_more_healthy_files() -> None:
    for path in SAMPLES:
        assert read_picture(path.read_bytes()).mode == "RGB"
    for subsampling in ("440", "422", "Gray"):
        grey = subsampling == "Gray"
        pixels = np.asarray(PHOTO.convert("L") if grey else PHOTO).reshape(152, 200, -1).copy()
        space = {"colorspace": "GRAY" if grey else "RGB", "colorsubsampling": subsampling}
        read_picture(simplejpeg.encode_jpeg(pixels, **space))
    data = make("4:2:0")
    with_padding = data.replace(END, b"\0\0\0" + END)
    for healthy in (with_padding, data[:-2] + b"\xff" * 5 + END, data + bytes(700)):
        assert np.array_equal(read_picture(healthy).pixels, read_picture(data).pixels)


def test_a_comment_between_scans_is_kept() -> None:
    picture = read_picture((CASES / "jpeg" / "com_between_scans.jpg").read_bytes())
    assert [name for name, _ in picture.blocks] == ["jpeg:COM"]
    scans = make("progressive")
    second = [match.start() for match in re.finditer(rb"\xff\xda", scans)][1]
    text = b"a marker \xff\xd9 in a text"
    segment = b"\xff\xfe" + (len(text) + 2).to_bytes(2, "big") + text
    assert read_picture(scans[:second] + segment + scans[second:]).blocks == (("jpeg:COM", text),)


def test_odd_words_of_the_headers_are_no_damage() -> None:
    """Warnings about metadata would hide those about the data, or be taken for them."""
    data = make("4:2:0")
    jfif = data[:11] + b"\x07" + data[12:]  # an unknown version
    selection = data.index(b"\xff\xda") + 2 + int.from_bytes(data[data.index(b"\xff\xda") + 2 :][:2], "big") - 3
    spectral = data[:selection] + bytes(3) + data[selection + 3 :]  # ignored in sequential files
    for healthy in (jfif, spectral, data[:20] + b"junk" + data[20:]):
        assert np.array_equal(read_picture(healthy).pixels, read_picture(data).pixels)
        assert is_told(healthy[: len(healthy) // 2] + END)


# --- damaged -------------------------------------------------------------------------------------


def test_the_case_that_was_cut() -> None:
    data = (CASES / "jpeg" / "base_cut_eoi.jpg").read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        image.load()  # Pillow says nothing
    with pytest.raises(DamagedPicture, match="premature end"):
        read_picture(data)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", [b"", END, b"zeros"], ids=["cut", "cut, with an end", "zeros"])
def test_data_that_end_early(kind: str, end: bytes) -> None:
    data = make(kind)
    healthy = read_picture(data).pixels
    first = data.index(b"\xff\xda") + 14
    for length in (*range(first, len(data) - 2, max(1, len(data) // 60)), *range(len(data) - 12, len(data) - 2)):
        cut = data[:length] + (bytes(len(data) - length) if end == b"zeros" else end)
        if not is_told(cut):  # nothing but padding bits was lost
            assert end and length > len(data) - 4
            assert np.array_equal(read_picture(cut).pixels, healthy)


def test_a_progressive_file_that_ends_between_scans() -> None:
    """libjpeg does not even warn: what is there is whole, and what is missing was announced by nobody."""
    data = make("progressive")
    scans = [match.start() for match in re.finditer(rb"\xff\xda", data)]
    assert len(scans) > 6
    for begin in scans[1:]:
        tables = max(data.rfind(b"\xff\xc4", 0, begin), data.rfind(b"\xff\xda", 0, begin))
        for cut in (data[:begin] + END, data[:tables] + END):
            if b"\xff\xda" in cut:
                with pytest.raises(DamagedPicture, match="truncated"):
                    read_picture(cut)


def test_a_component_without_a_scan() -> None:
    """A sequential file may have a scan for each component; one that is missing comes out grey."""
    frame = jpeg._Frame(missing={1: [-1] * 64, 2: [-1] * 64})
    jpeg._note_scan(bytes([1, 1, 0, 0, 63, 0]), frame)
    with pytest.raises(DamagedPicture, match="last scans"):
        jpeg._check_complete(frame)
    jpeg._note_scan(bytes([1, 2, 0, 0, 63, 0]), frame)
    jpeg._check_complete(frame)


def test_restart_markers_that_are_missing_or_wrong() -> None:
    data = make("restarts")
    markers = [match.start() for match in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    assert len(markers) > 20
    for at in markers[::5]:
        assert is_told(data[:at] + data[at + 2 :])
        assert is_told(data[: at + 1] + bytes([0xD0 + (data[at + 1] + 3) % 8]) + data[at + 2 :])
    assert is_told(data[: markers[3]] + data[markers[4] :])


@pytest.mark.parametrize("kind", ["4:2:0", "progressive", "restarts"])
def test_blocks_of_a_file_that_were_lost(kind: str) -> None:
    """As after a bad disk or download: 256 bytes of something else in the middle."""
    data = make(kind)
    first = data.index(b"\xff\xda") + 14
    lost = 0
    places = range(first, len(data) - 260, 97)
    for at in places:
        for filling in (bytes(256), b"\xff" * 256, bytes(range(256))):
            lost += not is_told(data[:at] + filling + data[at + 256 :])
    assert lost <= 0.06 * 3 * len(places)  # by chance the rest has as many blocks as are left


def test_sampling_that_cannot_be_checked_is_not_compressed() -> None:
    data = bytearray(make("4:4:4"))
    frame = data.index(b"\xff\xc0")
    for component, factors in enumerate((0x22, 0x12, 0x21)):
        data[frame + 11 + 3 * component] = factors
    with pytest.raises(UnsupportedPicture, match="sampling"):
        read_picture(bytes(data))


# --- work ----------------------------------------------------------------------------------------


def test_scans_without_end() -> None:
    with pytest.raises(UndecodablePicture, match="scans of a large JPEG"):
        read_picture((CASES / "jpeg" / "jpeg_progressive_scans.jpg").read_bytes())
    data = make("progressive")
    last = data.rindex(b"\xff\xda")
    with pytest.raises(UndecodablePicture, match="501 or more scans"):
        read_picture(data[:-2] + data[last:-2] * 500 + END)


def test_segments_without_end() -> None:
    data = make("4:2:0")
    with pytest.raises(UnsupportedPicture, match="segments"):
        read_picture(data[:2] + b"\xff\xfe\0\2" * (1 << 18) + data[2:])
    with pytest.raises(UnsupportedPicture, match="blocks of metadata"):
        read_picture(data[:2] + b"\xff\xfe\0\2" * 70_000 + data[2:])
