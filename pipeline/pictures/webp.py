"""WebP files: the container, before libwebp allocates what it declares."""

from __future__ import annotations

import struct

from lichen.errors import DamagedPicture, UnsupportedPicture
from lichen.pipeline.pictures.directory import check_exif
from lichen.pipeline.pictures.limits import check_size
from lichen.pipeline.pictures.side import MAX_BLOCKS, Block

_ANIMATED = 0x02
_PIXELS = {b"VP8 ", b"VP8L", b"VP8X", b"ALPH"}
_ANNOUNCED = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}
"""Chunks that Pillow reads where the flags of the header announce them."""


def examine_webp(data: bytes, max_pixels: int) -> list[Block]:
    """Blocks of a WebP file: every chunk that Pillow's pixels, EXIF, ICC and XMP do not cover.

    Checks the canvas size, which libwebp would allocate on opening, and refuses animations.
    """
    if len(data) < 30 or len(data) < _le32(data, 4) + 8:
        raise DamagedPicture("the WebP file is truncated")
    end = _le32(data, 4) + 8
    if data[end:].strip(b"\0"):
        raise UnsupportedPicture("something follows the end of the WebP picture")
    check_size(*_canvas(data), max_pixels)
    position = 12
    flags = data[20] if data[12:16] == b"VP8X" else 0
    blocks: list[Block] = []
    while position + 8 <= end:
        kind, length = data[position : position + 4], _le32(data, position + 4)
        if position + 8 + length > end:
            raise DamagedPicture(f"the WebP file ends inside chunk {kind!r}")
        content = data[position + 8 : position + 8 + length]
        if kind == b"EXIF":
            check_exif(content.removeprefix(b"Exif\0\0"))
        if kind not in _PIXELS and not _ANNOUNCED.get(kind, 0) & flags:
            blocks.append((f"webp:{kind.decode('latin-1')}", content))
            if len(blocks) > MAX_BLOCKS:
                raise UnsupportedPicture(f"more than {MAX_BLOCKS} blocks of metadata")
        position += 8 + length + length % 2
    return blocks


def _canvas(data: bytes) -> tuple[int, int]:
    kind = data[12:16]
    if kind == b"VP8X":
        if data[20] & _ANIMATED:
            raise UnsupportedPicture("an animation (WebP)")
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and data[20] == 0x2F:
        packed = _le32(data, 21)
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    raise DamagedPicture("the WebP file has no valid header")


def _le32(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")
