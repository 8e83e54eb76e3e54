"""JPEG 2000 files: boxes that Pillow drops, and a codestream that may ask for more than its pixels are worth."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from lichen.errors import DamagedPicture, UndecodablePicture, UnsupportedPicture
from lichen.pipeline.pictures.limits import check_size
from lichen.pipeline.side import Block

MAX_TILES = 1 << 14
MAX_CODE_BLOCKS = 1 << 21
MAX_PACKETS = 1 << 20
"""Most packets of one picture; usual settings need 10,000 packets, and 300,000 code blocks, for 256 megapixels."""

_ENUMERATED = {16, 17, 18}
"""sRGB, grey, and sYCC, which the decoder turns into sRGB."""
_SOT, _SOD, _COD, _COC, _COM, _EOC = 0x90, 0x93, 0x52, 0x53, 0x64, b"\xff\xd9"
_WRITERS = (b"Created by OpenJPEG", b"Kakadu")


@dataclass(frozen=True, slots=True)
class _Size:
    width: int
    height: int
    tiles: int
    components: int


def examine_jpeg2000(data: bytes, max_pixels: int) -> list[Block]:
    """Comments of a JPEG 2000 file.

    Refuses pictures that are not 8-bit, or have metadata or profiles, which Pillow drops, and those that end early or
    whose tiles, layers and precincts would take for ever.
    """
    start = data.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(data) < start + 45:
        raise UndecodablePicture("the JPEG 2000 file has no codestream")
    for box in (b"uuid", b"xml ", b"asoc", b"jumb"):
        if box in data[:start] or box in data[-(1 << 16) :]:
            raise UnsupportedPicture("a JPEG 2000 picture with metadata boxes")
    if re.search(rb"colr[\2\3]", data[:start]) or b"pclr" in data[:start]:
        raise UnsupportedPicture("a JPEG 2000 picture with a colour profile or palette")
    for match in re.finditer(rb"colr\x01[\0-\xff]{2}([\0-\xff]{4})", data[:start]):
        if int.from_bytes(match[1], "big") not in _ENUMERATED:
            raise UnsupportedPicture("a JPEG 2000 picture in another colour space than sRGB")
    size = _read_size(data, start, max_pixels)
    depths = {data[start + 42 + 3 * i] for i in range(size.components) if start + 42 + 3 * i < len(data)}
    if depths != {7}:  # 8 bits, unsigned
        raise UnsupportedPicture("a JPEG 2000 picture of other than 8 bits")
    blocks: list[Block] = []
    position = start + 2
    for marker, body, end in _segments(data, start + 2):
        position = end
        if marker in (_COD, _COC):
            _check_style(marker, body, size)
        elif marker == _COM and body[:2] == b"\0\1" and not body[2:].startswith(_WRITERS):
            blocks.append(("jpeg2000:COM", body[2:]))
    _check_tiles(data, position, size)
    return blocks


def _read_size(data: bytes, start: int, max_pixels: int) -> _Size:
    right, bottom, left, top, across, down, tile_left, tile_top, components = struct.unpack_from(
        ">8IH", data, start + 8
    )
    check_size(right - left, bottom - top, max_pixels)
    if not (across > 0 and down > 0 and tile_left <= left and tile_top <= top and components):
        raise UndecodablePicture("the JPEG 2000 file has a header that cannot be")
    tiles = -(-(right - tile_left) // across) * -(-(bottom - tile_top) // down)
    if tiles > MAX_TILES:
        raise UndecodablePicture(f"a JPEG 2000 picture of {tiles} tiles exceeds the limit of {MAX_TILES}")
    return _Size(right - left, bottom - top, tiles, components)


def _segments(data: bytes, position: int) -> Iterator[tuple[int, bytes, int]]:
    """(marker, body, end) of marker segments, up to the first tile or its data; raises ``DamagedPicture``."""
    while position + 4 <= len(data):
        prefix, marker, length = struct.unpack_from(">BBH", data, position)
        if prefix != 0xFF:
            raise DamagedPicture("the JPEG 2000 is damaged: there is no marker where one has to be")
        if marker in (_SOT, _SOD):
            return
        end = position + 2 + length
        if length < 2 or end > len(data):
            break
        yield marker, data[position + 4 : end], end
        position = end
    raise DamagedPicture("the JPEG 2000 is truncated: it ends inside its headers")


def _check_style(marker: int, body: bytes, size: _Size) -> None:
    """How many packets and code blocks a coding style makes, if all tiles had it."""
    if marker == _COD:
        flags, layers, style = body[0] if body else 0, int.from_bytes(body[2:4], "big"), body[5:]
    else:
        index = 1 if size.components < 257 else 2
        flags, layers, style = body[index] if len(body) > index else 0, 1, body[index + 1 :]
    if len(style) < 5:
        raise DamagedPicture("the JPEG 2000 is damaged: a coding style is cut")
    levels, block = style[0], 1 << (style[1] + style[2] + 4) if style[1] + style[2] <= 8 else 1 << 12
    precincts = style[5 : 6 + levels] if flags & 1 else b"\xff" * (levels + 1)
    if levels > 32 or len(precincts) <= levels:
        raise DamagedPicture("the JPEG 2000 is damaged: a coding style is cut")
    packets = blocks = 0
    for level, exponents in enumerate(precincts):
        area = size.width * size.height >> 2 * (levels - level)
        packets += (area >> (exponents & 15) + (exponents >> 4)) + size.tiles
        blocks += area // min(block, 1 << (exponents & 15) + (exponents >> 4)) + size.tiles
    if packets * layers * size.components > MAX_PACKETS or blocks * size.components > MAX_CODE_BLOCKS:
        raise UndecodablePicture("a JPEG 2000 picture in so many packets or code blocks would take for ever to decode")


def _check_tiles(data: bytes, position: int, size: _Size) -> None:
    """Every tile is there, and what follows the last one is the end."""
    seen: set[int] = set()
    while data[position : position + 2] == b"\xff\x90" and position + 12 <= len(data):
        tile, length = struct.unpack_from(">HI", data, position + 4)
        seen.add(tile)
        header = position + 12
        for marker, body, end in _segments(data, position + 12):
            header = end
            if marker in (_COD, _COC):
                _check_style(marker, body, size)
        if length == 0:  # up to the end, of the last tile alone
            position = data.rfind(_EOC, header)
        elif length < 14 or position + length > len(data):
            raise DamagedPicture("the JPEG 2000 is truncated: it ends inside a tile")
        else:
            position += length
    if position < 0 or data[position : position + 2] != _EOC or len(seen) != size.tiles:
        raise DamagedPicture("the JPEG 2000 is truncated: tiles or the end are missing")
