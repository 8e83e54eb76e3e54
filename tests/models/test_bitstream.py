"""The container of one picture: exact round trips, one spelling of everything, and no trust in any byte."""

from __future__ import annotations

import google_crc32c
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lichen.errors import CorruptBitstream
from lichen.models.bitstream import (
    MAX_QUALITY_CODE,
    MAX_SIDE,
    Bitstream,
    Section,
    pack,
    tile_grid,
    unpack,
)

SMALL = Bitstream(codec=b"\x01\x02\x03\x04", width=768, height=512, quality=50, sections=(Section(z=b"zz", y=b"yyyy"),))
TILED = Bitstream(
    codec=b"\xff\0\xff\0",
    width=2049,
    height=1024,
    quality=300,
    tile_log2=10,
    sections=(Section(z=b"a", y=b"bc"), Section(z=b"", y=b"d" * 200), Section(z=b"", y=b"")),
)
EMPTY = (Section(z=b"", y=b""),)


def sealed(body: bytes) -> bytes:
    """A body with the checksum that belongs to it."""
    checksum: int = google_crc32c.value(body)
    return body + checksum.to_bytes(4, "little")


def header(*fields: bytes, codec: bytes = b"codc") -> bytes:
    return b"\xa7L\x01" + codec + b"".join(fields)


@st.composite
def bitstreams(draw: st.DrawFn) -> Bitstream:
    tile_log2 = draw(st.sampled_from([0, 6, 7, 9, 16]))
    limit = 64 * 5 if tile_log2 else 4000
    width, height = draw(st.integers(1, limit)), draw(st.integers(1, limit))
    rows, columns = tile_grid(width, height, tile_log2)
    streams = st.binary(max_size=5) if rows * columns > 4 else st.binary(max_size=300)
    section = st.builds(Section, z=streams, y=streams)
    return Bitstream(
        codec=draw(st.binary(min_size=4, max_size=4)),
        width=width,
        height=height,
        quality=draw(st.integers(0, MAX_QUALITY_CODE)),
        tile_log2=tile_log2,
        sections=tuple(draw(st.lists(section, min_size=rows * columns, max_size=rows * columns))),
    )


@settings(max_examples=200, deadline=None)
@given(bitstreams())
def test_round_trip(bitstream: Bitstream) -> None:
    assert unpack(pack(bitstream)) == bitstream


def test_frozen_bytes() -> None:
    assert pack(SMALL).hex() == "a74c010102030480068004320002047a7a79797979072e82e5"
    assert unpack(pack(SMALL)) == SMALL and unpack(memoryview(pack(SMALL))) == SMALL
    body = pack(TILED)[:-4]
    assert body[:14].hex() == "a74c01ff00ff00" + "8110" + "8008" + "ac02" + "0a"
    assert body[14:21].hex() == "0102" + "00c801" + "0000"
    assert body[21:] == b"abc" + b"d" * 200
    assert unpack(pack(TILED)) == TILED


def test_overhead_of_an_ordinary_picture() -> None:
    largest_ordinary = Bitstream(
        codec=bytes(4),
        width=16_383,
        height=16_383,
        quality=100,
        sections=(Section(z=bytes(16_383), y=bytes(2_000_000)),),
    )
    for bitstream in (SMALL, largest_ordinary):
        content = sum(len(section.z) + len(section.y) for section in bitstream.sections)
        assert len(pack(bitstream)) - content <= 24


def test_tile_grid() -> None:
    assert tile_grid(1, 1, 0) == (1, 1) and tile_grid(100_000, 100_000, 0) == (1, 1)
    assert tile_grid(64, 65, 6) == (2, 1) and tile_grid(4097, 1, 12) == (1, 2)
    assert TILED.grid == (1, 3)


@pytest.mark.parametrize(
    "change",
    [
        {"codec": b"abc"},
        {"width": 0},
        {"height": MAX_SIDE + 1},
        {"quality": -1},
        {"quality": MAX_QUALITY_CODE + 1},
        {"tile_log2": 5, "width": 1, "height": 1},
        {"tile_log2": 17},
        {"sections": ()},
        {"sections": SMALL.sections * 2},
    ],
)
def test_what_cannot_be_packed(change: dict[str, object]) -> None:
    fields = {name: getattr(SMALL, name) for name in ("codec", "width", "height", "quality", "tile_log2", "sections")}
    with pytest.raises(ValueError, match="out of range"):
        pack(Bitstream(**(fields | change)))


# --- hostile bytes -------------------------------------------------------------------------------


def test_every_truncation_flipped_bit_and_extension_is_noticed() -> None:
    data = pack(TILED)
    for length in range(len(data)):
        with pytest.raises(CorruptBitstream):
            unpack(data[:length])
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CorruptBitstream, match="checksum"):
            unpack(bytes(damaged))
    with pytest.raises(CorruptBitstream, match="checksum"):
        unpack(data + b"\0")


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80))
def test_random_bytes_even_with_a_good_checksum(noise: bytes) -> None:
    for data in (noise, sealed(noise)):
        with pytest.raises(CorruptBitstream):
            unpack(data)
    try:
        accepted = unpack(sealed(header(noise)))
    except CorruptBitstream:
        return
    assert pack(accepted) == sealed(header(noise))


@settings(max_examples=400, deadline=None)
@given(bitstreams(), st.data())
def test_damage_under_a_repaired_checksum(bitstream: Bitstream, data: st.DataObject) -> None:
    body = bytearray(pack(bitstream)[:-4])
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, min(len(body) - 1, 30)))] = data.draw(st.integers(0, 255))
    try:
        accepted = unpack(sealed(bytes(body)))
    except CorruptBitstream:
        return
    assert pack(accepted) == sealed(bytes(body))


BROKEN = {
    "magic": (b"\xa7M\x01codc\x01\x01\x01\0\0\0", "magic"),
    "version": (b"\xa7L\x02codc\x01\x01\x01\0\0\0", "version 2"),
    "no width": (header(b"\0\x01\x01\0\0\0"), "picture size 0x1"),
    "no height": (header(b"\x01\0\x01\0\0\0"), "picture size 1x0"),
    "too wide": (header(b"\x81\x80\x40\x01\x01\0\0\0"), "sides go from 1"),
    "quality": (header(b"\x01\x01\x80\x80\x04\0\0\0"), "quality code 65536"),
    "tiles too small": (header(b"\x01\x01\x01\x05\0\0"), "tile size"),
    "tiles too large": (header(b"\x01\x01\x01\x11\0\0"), "tile size"),
    "number too long by a zero": (header(b"\x81\0\x01\x01\0\0\0"), "longer than necessary"),
    "number of six bytes": (header(b"\xff\xff\xff\xff\xff\x01\x01\0\0\0"), "five bytes"),
    "number without an end": (header(b"\x01\x01\x01\0\0\xff"), "within a number"),
    "a byte left over": (header(b"\x01\x01\x01\0\0\0x"), "0 bytes by their lengths, and 1 in fact"),
    "a byte missing": (header(b"\x01\x01\x01\0\x01\x02ab"), "3 bytes by their lengths, and 2 in fact"),
    "a length of gigabytes": (header(b"\x01\x01\x01\0\xff\xff\xff\xff\x7f\x02ab"), "by their lengths"),
    "more tiles than bytes": (header(b"\x80\x80\x01\x80\x80\x01\x01\x06\0\0"), "cannot fit"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_each_field_is_checked(case: str) -> None:
    body, message = BROKEN[case]
    with pytest.raises(CorruptBitstream, match=message):
        unpack(sealed(body), max_pixels=1 << 40)


def test_limit_on_pixels_counts_padding() -> None:
    strip = pack(Bitstream(codec=bytes(4), width=1 << 20, height=1, quality=1, sections=EMPTY))
    assert unpack(strip).width == 1 << 20
    assert unpack(strip, max_pixels=64 << 20).height == 1
    with pytest.raises(CorruptBitstream, match="over the limit"):
        unpack(strip, max_pixels=(64 << 20) - 1)
    huge = pack(Bitstream(codec=bytes(4), width=1 << 15, height=1 << 14, quality=1, sections=EMPTY))
    with pytest.raises(CorruptBitstream, match="over the limit of 268435456 pixels"):
        unpack(huge)
