"""BMP, TGA and Netpbm: plain rows of pixels behind a short header, and nothing that protects them."""

from __future__ import annotations

import re

from lichen.errors import DamagedPicture, UndecodablePicture, UnsupportedPicture
from lichen.pipeline.pictures.limits import check_size, trailer
from lichen.pipeline.pictures.side import Block

_BMP_V4, _BMP_SRGB = 108, (b"BGRs", b" niW")
_BMP_MASKS, _BMP_UNPACKED = 3, (0, 3, 6)


def examine_bmp(data: bytes, max_pixels: int) -> list[Block]:
    """Refuses bitmaps with a colour profile or a calibration, which Pillow ignores, and pixels inside the header.

    What follows them is kept, and a density that somebody may have chosen.
    """
    header = _le(data, 14, 4)
    if header >= _BMP_V4 and data[70:74] not in _BMP_SRGB and data[70:122].strip(b"\0"):
        raise UnsupportedPicture("a BMP picture with a colour profile or calibration")
    if header == 12:
        width, height, bits, compression, colours = _le(data, 18, 2), _le(data, 20, 2), _le(data, 24, 2), 0, 0
    elif header >= 40:
        width, height, bits, compression = _le(data, 18, 4), _le(data, 22, 4), _le(data, 28, 2), _le(data, 30, 4)
        height = min(height, (1 << 32) - height)  # negative ones are stored from the top
        colours = _le(data, 46, 4)
    else:
        raise UnsupportedPicture(f"a BMP picture with a header of {header} bytes")
    check_size(width, height, max_pixels)
    begin = _le(data, 10, 4)
    if bits <= 8:
        colours = min(colours or 1 << bits, 1 << bits)
        tables = colours * (3 if header == 12 else 4)
        if begin == 14 + header:
            begin += tables  # a common mistake of writers, which Pillow knows
    else:
        tables = 12 if header == 40 and compression == _BMP_MASKS else 0
    if begin < 14 + header + tables:
        raise DamagedPicture("the BMP is damaged: its pixels overlap its header")
    size = (width * bits + 31) // 32 * 4 * height
    if compression in _BMP_UNPACKED and begin + size > len(data):
        raise DamagedPicture("the BMP is truncated: it ends before its pixels do")
    if header < 40:
        return []
    blocks = trailer("bmp", data[max(_le(data, 2, 4), begin + (_le(data, 34, 4) or size)) :])
    density = _le(data, 38, 4), _le(data, 42, 4)
    if all(density) and not (density[0] == density[1] and density[0] in _BMP_DENSITIES):
        blocks.append(("bmp:density", data[38:46]))
    return blocks


_BMP_DENSITIES = (2834, 2835, 3779, 3780)
"""Pixels a metre that writers put when they do not know: 72 and 96 an inch."""

_TGA_UNPACKED = (1, 2, 3)
_TGA_FOOTER, _TGA_SIGNATURE = 26, b"TRUEVISION-XFILE.\0"
_TGA_EXTENSION, _TGA_ALPHA, _TGA_PREMULTIPLIED = 495, 494, 4


def examine_tga(data: bytes, max_pixels: int) -> list[Block]:
    """Blocks of a Targa file: its identification, and what follows the pixels, such as author and comments.

    Checks that it has the pixels that it declares. Behind packed ones the footer tells where something follows.
    """
    if len(data) < 18:
        raise DamagedPicture("the TGA is truncated: it ends inside its header")
    width, height, bits = _le(data, 12, 2), _le(data, 14, 2), data[16]
    check_size(width, height, max_pixels)
    colours = _le(data, 5, 2) * -(-data[7] // 8) if data[1] else 0
    end = 18 + data[0] + colours + width * height * -(-bits // 8)
    if data[2] in _TGA_UNPACKED and end > len(data):
        raise DamagedPicture("the TGA is truncated: it ends before its pixels do")
    name = data[18 : 18 + data[0]].strip(b"\0 ")
    blocks = [("tga:id", name)] if name else []
    stop, begin = len(data), min(end, len(data)) if data[2] in _TGA_UNPACKED else len(data)
    if data.endswith(_TGA_SIGNATURE):
        stop -= _TGA_FOOTER
        extension, developer = _le(data, stop, 4), _le(data, stop + 4, 4)
        begin = min((begin, stop, *(offset for offset in (extension, developer) if offset >= 18)))
        if extension and data[extension + _TGA_ALPHA : extension + _TGA_EXTENSION] == bytes([_TGA_PREMULTIPLIED]):
            raise UnsupportedPicture("a TGA with premultiplied alpha")
    return blocks + (trailer("tga", data[begin:]) if data[begin:stop].strip(b"\0\r\n\t ") else [])


_PPM_COMMENT = re.compile(rb"#([^\n\r]*)")
_PPM_HEADER = re.compile(
    rb"P([56])(?:\s|#[^\n\r]*[\n\r])+(\d+)(?:\s|#[^\n\r]*[\n\r])+(\d+)(?:\s|#[^\n\r]*[\n\r])+(\d+)\s"
)
"""White space one by one: a search would try every way to cut runs of runs, and hold the interpreter for ever."""


def examine_ppm(data: bytes, max_pixels: int) -> list[Block]:
    """Comments of a Netpbm file. Refuses others than one binary grey or RGB picture of maximum 255."""
    match = _PPM_HEADER.match(data[:4096])
    if match is None:
        raise UnsupportedPicture("a Netpbm file of another kind than P5 or P6")
    width, height, maximum = (int(match[i][:12]) for i in (2, 3, 4))
    if maximum != 255:
        raise UnsupportedPicture(f"a Netpbm picture with maximum {maximum}")
    check_size(width, height, max_pixels)
    end = match.end() + width * height * (3 if match[1] == b"6" else 1)
    if end > len(data):
        raise DamagedPicture("the Netpbm file is truncated: it ends before its pixels do")
    if data[end:].strip(b"\0\r\n "):
        raise UnsupportedPicture("several pictures in one Netpbm file")
    return [("ppm:comment", comment) for comment in _PPM_COMMENT.findall(match[0])]


def _le(data: bytes, offset: int, size: int) -> int:
    if offset + size > len(data):
        raise UndecodablePicture("the file ends inside its header")
    return int.from_bytes(data[offset : offset + size], "little")
