"""The container of one compressed picture: what a codec wrote it with, its size, and its entropy-coded
streams.

Pure functions on bytes; ``docs/bitstream.md`` specifies every byte. The checksum is tested before anything is
parsed, every field has one spelling only, and lengths must add up to the bytes exactly, so that a bitstream
that is accepted is also what :func:`pack` makes of its parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import google_crc32c

from lichen.errors import CorruptBitstream

MAGIC: Final = b"\xa7L"
VERSION: Final = 1
CODEC_BYTES: Final = 4
"""Leading bytes of the codec's digest (sha256) that a bitstream carries."""
MAX_SIDE: Final = 1 << 20
MAX_PIXELS: Final = 1 << 28
"""Default limit of :func:`unpack`: a flat picture of any size fits into a few bytes, so the header decides
how much memory a decoder needs."""
PADDING: Final = 64
"""Sides are rounded up to multiples of this for the limit: codecs pad, and a strip one pixel high is not
small."""
MAX_QUALITY_CODE: Final = (1 << 16) - 1
MIN_TILE_LOG2, MAX_TILE_LOG2 = 6, 16

_CRC_BYTES = 4
_FIXED_BYTES = len(MAGIC) + 1 + CODEC_BYTES
_SHORTEST = _FIXED_BYTES + 6 + _CRC_BYTES  # four header fields and two lengths of one byte each
_VARINT_BITS = 35


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """The two entropy-coded streams of a picture or of one of its tiles: hyper-latent and latent."""

    z: bytes
    y: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Bitstream:
    """One compressed picture.

    ``codec``: the first four bytes of the codec's digest; ``width`` and ``height`` in pixels; ``quality``:
    the integer that the codec derives its gains and table indexes from; ``tile_log2``: 0 for a picture in one
    section, else its tiles have sides of 2^tile_log2 pixels (6 to 16); ``sections``: one per tile, row by
    row.
    """

    codec: bytes
    width: int
    height: int
    quality: int
    tile_log2: int = 0
    sections: tuple[Section, ...]

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of tiles; (1, 1) for a picture in one section."""
        return tile_grid(self.width, self.height, self.tile_log2)


def tile_grid(width: int, height: int, tile_log2: int) -> tuple[int, int]:
    """Rows and columns of tiles of a picture; ``tile_log2`` 0 means one for all of it."""
    if tile_log2 == 0:
        return 1, 1
    return -(-height >> tile_log2), -(-width >> tile_log2)


def pack(bitstream: Bitstream) -> bytes:
    """The bytes of a picture. Raises ``ValueError`` for fields that no bitstream can hold."""
    rows, columns = bitstream.grid
    if (
        len(bitstream.codec) != CODEC_BYTES
        or not 1 <= bitstream.width <= MAX_SIDE
        or not 1 <= bitstream.height <= MAX_SIDE
        or not 0 <= bitstream.quality <= MAX_QUALITY_CODE
        or not (bitstream.tile_log2 == 0 or MIN_TILE_LOG2 <= bitstream.tile_log2 <= MAX_TILE_LOG2)
        or len(bitstream.sections) != rows * columns
    ):
        raise ValueError("a field of the bitstream is out of range, or there is not one section for each tile")
    parts = [MAGIC, bytes([VERSION]), bitstream.codec]
    parts += map(varint, (bitstream.width, bitstream.height, bitstream.quality, bitstream.tile_log2))
    for section in bitstream.sections:
        parts += (varint(len(section.z)), varint(len(section.y)))
    for section in bitstream.sections:
        parts += (section.z, section.y)
    body = b"".join(parts)
    return body + _checksum(body)


def unpack(data: bytes | bytearray | memoryview, *, max_pixels: int = MAX_PIXELS) -> Bitstream:
    """Parse a picture's bytes. Raises ``CorruptBitstream`` for anything that :func:`pack` cannot have
    written.

    ``max_pixels`` limits width times height, both rounded up to multiples of 64, and so what a decoder will
    allocate; raise it for larger pictures.
    """
    data = bytes(data)
    if len(data) < _SHORTEST:
        raise CorruptBitstream(f"a bitstream has at least {_SHORTEST} bytes, this one {len(data)}")
    body = data[:-_CRC_BYTES]
    if data[-_CRC_BYTES:] != _checksum(body):
        raise CorruptBitstream("checksum mismatch: the bitstream is damaged, or is none")
    if body[: len(MAGIC)] != MAGIC:
        raise CorruptBitstream("not a bitstream of lichen: wrong magic")
    if (version := body[len(MAGIC)]) != VERSION:
        raise CorruptBitstream(f"bitstream version {version}, only {VERSION} is known; a newer lichen may read it")
    codec = body[len(MAGIC) + 1 : _FIXED_BYTES]

    at = _FIXED_BYTES
    width, at = read_varint(body, at)
    height, at = read_varint(body, at)
    quality, at = read_varint(body, at)
    tile_log2, at = read_varint(body, at)
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise CorruptBitstream(f"picture size {width}x{height}: sides go from 1 to {MAX_SIDE}")
    if _padded(width) * _padded(height) > max_pixels:
        raise CorruptBitstream(f"picture size {width}x{height} is over the limit of {max_pixels} pixels")
    if quality > MAX_QUALITY_CODE:
        raise CorruptBitstream(f"quality code {quality} is over {MAX_QUALITY_CODE}")
    if tile_log2 != 0 and not MIN_TILE_LOG2 <= tile_log2 <= MAX_TILE_LOG2:
        raise CorruptBitstream(f"tile size 2^{tile_log2}: only 2^{MIN_TILE_LOG2} to 2^{MAX_TILE_LOG2} exist")

    rows, columns = tile_grid(width, height, tile_log2)
    count = 2 * rows * columns
    if count > len(body) - at:  # each length takes a byte at least: refuse before listing them
        raise CorruptBitstream(f"{rows}x{columns} tiles cannot fit into {len(body)} bytes")
    lengths = []
    for _ in range(count):
        length, at = read_varint(body, at)
        lengths.append(length)
    if sum(lengths) != len(body) - at:
        raise CorruptBitstream(f"the sections have {sum(lengths)} bytes by their lengths, and {len(body) - at} in fact")
    streams = []
    for length in lengths:
        streams.append(body[at : at + length])
        at += length
    sections = tuple(Section(z=z, y=y) for z, y in zip(streams[::2], streams[1::2], strict=True))
    return Bitstream(codec=codec, width=width, height=height, quality=quality, tile_log2=tile_log2, sections=sections)


def _padded(side: int) -> int:
    return -(-side // PADDING) * PADDING


def _checksum(body: bytes) -> bytes:
    checksum: int = google_crc32c.value(body)
    return checksum.to_bytes(_CRC_BYTES, "little")


def varint(value: int) -> bytes:
    """LEB128: seven bits a byte from the lowest up, the eighth set on all but the last."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The number that begins at ``at``, and where it ends; only its shortest spelling is accepted."""
    value = 0
    for shift in range(0, _VARINT_BITS, 7):
        if at >= len(data):
            raise CorruptBitstream("the bitstream ends within a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if byte == 0 and shift > 0:
                raise CorruptBitstream("a number is written longer than necessary")
            return value, at
    raise CorruptBitstream("a number is longer than five bytes")
