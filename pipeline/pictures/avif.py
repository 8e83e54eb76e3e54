"""AVIF files: what Pillow does not tell of them."""

from __future__ import annotations

import re

from lichen.errors import DamagedPicture, UnsupportedPicture
from lichen.pipeline.pictures.directory import check_exif
from lichen.pipeline.pictures.limits import check_size
from lichen.pipeline.pictures.side import Block

_SDR_PRIMARIES = {1, 2, 5, 6}
_SDR_TRANSFERS = {1, 2, 6, 13, 14, 15}
_BOXES = {b"ftyp", b"meta", b"mdat", b"moov", b"free", b"skip"}
_TIFF_HEADER = re.compile(rb"II\*\0|MM\0\*")
_MAX_HEADERS = 100
"""Of what may be EXIF: four bytes, which in a gigabyte of anything occur once by chance."""


def examine_avif(data: bytes, max_pixels: int) -> list[Block]:
    """Refuses AVIF pictures of more than 8 bits, with a gain map, or in wide gamut without a profile."""
    _check_boxes(data)
    start = data.find(b"meta")
    if start < 4:
        return []  # Pillow will refuse it
    meta = data[start : start - 4 + int.from_bytes(data[start - 4 : start], "big")]
    for match in re.finditer(rb"ispe\0\0\0\0([\0-\xff]{8})", meta):
        check_size(int.from_bytes(match[1][:4], "big"), int.from_bytes(match[1][4:], "big"), max_pixels)
    for match in re.finditer(rb"av1C\x81[\0-\xff]([\0-\xff])", meta):
        if match[1][0] & 0x40:
            raise UnsupportedPicture("an AVIF picture of 10 or 12 bits")
    if b"tmap" in meta:
        raise UnsupportedPicture("a gain map belongs to the AVIF picture")
    has_profile = b"colrprof" in meta or b"colrrICC" in meta
    for match in re.finditer(rb"colrnclx([\0-\xff]{2})([\0-\xff]{2})", meta):
        primaries, transfer = int.from_bytes(match[1], "big"), int.from_bytes(match[2], "big")
        if not has_profile and (primaries not in _SDR_PRIMARIES or transfer not in _SDR_TRANSFERS):
            raise UnsupportedPicture("an AVIF picture in wide-gamut or HDR colour without an ICC profile")
    if b"Exif" in meta:  # somewhere in the data
        for number, match in enumerate(_TIFF_HEADER.finditer(data)):
            if number >= _MAX_HEADERS:
                raise UnsupportedPicture("an AVIF picture in which anything may be EXIF")
            check_exif(data[match.start() :])
    return []


def _check_boxes(data: bytes) -> None:
    """Refuses what is cut, and what lies beside the picture: a film of a moving photograph, other files."""
    position = 0
    while position + 8 <= len(data):
        size, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        if kind not in _BOXES or 0 < size < 8:
            break
        position = len(data) if size == 0 else position + size
    if position > len(data):
        raise DamagedPicture("the AVIF file is truncated")
    if data[position:].strip(b"\0\r\n "):
        raise UnsupportedPicture("something else than the picture is in the AVIF file")
