"""TIFF files whose pixels are not where they should be: refused, never read from somewhere else."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pictures_support import CASES, encoded
from PIL import Image

from lichen.errors import DamagedPicture, UndecodablePicture, UnsupportedPicture
from lichen.pipeline.pictures.reading import read_picture

rng = np.random.default_rng(8)
GREY = rng.integers(0, 256, (12, 16), dtype=np.uint8)
ROWS = 4
STRIPS = [GREY[row : row + ROWS].tobytes() for row in range(0, 12, ROWS)]


@dataclass
class Tiff:
    """A file of three strips: header, directory, tag values, then the strips."""

    offsets: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    extra: list[tuple[int, int, int, int]] = field(default_factory=list)
    compression: int = 1
    following: int = 0
    strips: list[bytes] = field(default_factory=lambda: list(STRIPS))

    def __post_init__(self) -> None:
        position = self.values + 24
        for strip in self.strips:
            self.offsets.append(position)
            self.counts.append(len(strip))
            position += len(strip)

    @property
    def values(self) -> int:
        return 8 + 2 + 12 * (9 + len(self.extra)) + 4

    def data(self) -> bytes:
        tags = [(256, 4, 1, 16), (257, 4, 1, 12), (258, 3, 1, 8), (259, 3, 1, self.compression), (262, 3, 1, 1)]
        tags += [(273, 4, len(self.offsets), self.values), (277, 3, 1, 1), (278, 4, 1, ROWS)]
        tags += [(279, 4, len(self.counts), self.values + 12), *self.extra]
        out = b"II*\0" + struct.pack("<IH", 8, len(tags))
        out += b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags)) + struct.pack("<I", self.following)
        out += struct.pack(f"<{len(self.offsets)}I", *self.offsets).ljust(12, b"\0")
        out += struct.pack(f"<{len(self.counts)}I", *self.counts).ljust(12, b"\0")
        return out + b"".join(self.strips)


def test_the_plain_file_is_read() -> None:
    assert np.array_equal(read_picture(Tiff().data()).pixels[:, :, 0], GREY)
    deflated = Tiff(compression=8, strips=[zlib.compress(strip) for strip in STRIPS])
    assert np.array_equal(read_picture(deflated.data()).pixels[:, :, 0], GREY)


def test_a_sparse_file_is_kept_as_it_is() -> None:
    with pytest.raises(UnsupportedPicture, match="holes"):
        read_picture((CASES / "tiff" / "sparse.tif").read_bytes(), name="s.tif")


@pytest.mark.parametrize("compression", [1, 8])
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"offsets": {1: 0}, "counts": {1: 0}}, "holes"),
        ({"offsets": {1: 0}}, "holes"),
        ({"counts": {2: 0}}, "holes"),
        ({"offsets": {1: 1 << 30}}, "truncated"),
        ({"counts": {2: 1 << 20}}, "truncated"),
        ({"offsets": {1: 4}}, "overlap"),
        ({"offsets": {0: 10}}, "overlap"),
        ({"offsets": {0: 140}}, "overlap"),
        ({"counts": {0: 70}}, "overlap"),
        ({"offsets": {3: 300}, "counts": {3: 64}}, "offsets"),
    ],
)
def test_strips_that_are_elsewhere(changes: dict[str, dict[int, int]], reason: str, compression: int) -> None:
    tiff = Tiff(compression=compression)
    for name, values in changes.items():
        numbers = getattr(tiff, name)
        for at, value in values.items():
            numbers[at : at + 1] = [value]
    with pytest.raises((UnsupportedPicture, UndecodablePicture), match=reason):
        read_picture(tiff.data())


def test_strips_that_are_missing_too_short_or_the_same() -> None:
    fewer = Tiff()
    del fewer.offsets[2], fewer.counts[2]
    with pytest.raises(UnsupportedPicture, match="2 offsets"):
        read_picture(fewer.data())
    short = Tiff()
    short.counts[1] -= 1
    with pytest.raises(DamagedPicture, match="too short"):
        read_picture(short.data())
    same = Tiff()
    same.offsets[1] = same.offsets[0]
    with pytest.raises(UnsupportedPicture, match="overlap"):
        read_picture(same.data())
    with pytest.raises(UnsupportedPicture, match="both strips and tiles"):
        read_picture(Tiff(extra=[(324, 4, 1, 8), (325, 4, 1, 8)]).data())


@given(
    name=st.sampled_from(["offsets", "counts"]),
    at=st.integers(0, 2),
    value=st.one_of(st.integers(0, 500), st.integers(0, (1 << 32) - 1)),
    compression=st.sampled_from([1, 8]),
)
def test_whatever_a_strip_says_pixels_are_right_or_refused(name: str, at: int, value: int, compression: int) -> None:
    strips = STRIPS if compression == 1 else [zlib.compress(strip) for strip in STRIPS]
    tiff = Tiff(compression=compression, strips=list(strips))
    getattr(tiff, name)[at] = value
    try:
        picture = read_picture(tiff.data())
    except (UnsupportedPicture, UndecodablePicture):
        return
    assert np.array_equal(picture.pixels[:, :, 0], GREY)


def test_tiles_are_read_and_holes_among_them_refused() -> None:
    """Four tiles of 16x16 for a picture of 20x20, as GDAL would write them."""
    pixels = rng.integers(0, 256, (32, 32), dtype=np.uint8)
    tiles = [pixels[y : y + 16, x : x + 16].tobytes() for y in (0, 16) for x in (0, 16)]
    tags = [(256, 4, 1, 20), (257, 4, 1, 20), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)]
    begin = 8 + 2 + 12 * 10 + 4
    tags += [(322, 4, 1, 16), (323, 4, 1, 16), (324, 4, 4, begin), (325, 4, 4, begin + 16)]
    offsets = [begin + 32 + 256 * number for number in range(4)]

    def data(offsets: list[int]) -> bytes:
        out = b"II*\0" + struct.pack("<IH", 8, len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
        return out + bytes(4) + struct.pack("<8I", *offsets, *[256] * 4) + b"".join(tiles)

    assert np.array_equal(read_picture(data(offsets)).pixels[:, :, 0], pixels[:20, :20])
    for wrong in ([*offsets[:3], 0], [offsets[0]] * 4, [*offsets[:3], offsets[3] + 1]):
        with pytest.raises((UnsupportedPicture, DamagedPicture)):
            read_picture(data(wrong))


def test_compressed_strips_are_checked_too() -> None:
    """libtiff looks neither at the checksum of deflated data nor at libjpeg's warnings."""
    pixels = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((64, 48), Image.Resampling.BICUBIC)
    for compression in ("tiff_adobe_deflate", "jpeg"):
        data = encoded(image, "TIFF", compression=compression)
        healthy = read_picture(data)
        told = 0
        for at in range(60, len(data) - 260, max(1, len(data) // 40)):
            broken = bytearray(data)
            broken[at : at + 6] = b"\xff\xff\xff\xff\xff\xff" if compression == "jpeg" else bytes(6)
            try:
                picture = read_picture(bytes(broken))
            except (UndecodablePicture, UnsupportedPicture):
                told += 1
            else:
                assert compression == "jpeg" or np.array_equal(picture.pixels, healthy.pixels)
        assert told > 25


def test_jpeg_data_inside_cannot_ask_for_more_than_their_strip() -> None:
    data = encoded(Image.fromarray(np.repeat(GREY[:, :, None], 3, axis=2)), "TIFF", compression="jpeg")
    assert read_picture(data).mode == "RGB"
    frame = data.rindex(b"\xff\xc0") + 5
    with pytest.raises(DamagedPicture, match="larger picture"):
        read_picture(data[:frame] + b"\xff\0\xff\0" + data[frame + 4 :])


def test_compressions_that_ask_for_memory_at_will_are_kept_as_they_are() -> None:
    for compression in (6, 34925, 34712):
        with pytest.raises(UnsupportedPicture, match=f"compression {compression}"):
            read_picture(Tiff(compression=compression).data())


def test_more_pages_are_not_walked_through() -> None:
    with pytest.raises(UnsupportedPicture, match="several pages"):
        read_picture(Tiff(following=8).data())  # a ring of directories
    many = Tiff().data()
    page = len(many) + len(many) % 2
    ring = many.ljust(page, b"\0") + b"".join(
        struct.pack("<HI", 0, page + 6 * (number + 1)) for number in range(100_000)
    )
    at = 8 + 2 + 12 * 9
    with pytest.raises(UnsupportedPicture, match="several pages"):
        read_picture(ring[:at] + struct.pack("<I", page) + ring[at + 4 :])


def test_big_tiff() -> None:
    buffer = io.BytesIO()
    Image.fromarray(GREY).save(buffer, "TIFF", big_tiff=True)
    data = buffer.getvalue()
    assert data[2] == 43
    assert np.array_equal(read_picture(data).pixels[:, :, 0], GREY)
    with pytest.raises(DamagedPicture, match="truncated"):
        read_picture(data[:-40])
