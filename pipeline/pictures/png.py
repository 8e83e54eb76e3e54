"""PNG files: every chunk with its checksum, and what its text, profile and colours mean."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from lichen.errors import DamagedPicture, UndecodablePicture, UnsupportedPicture
from lichen.pipeline.pictures.colour import has_profile
from lichen.pipeline.pictures.limits import MAX_PIECES, MAX_PROFILE, MAX_TEXTS, check_size, unpack_within
from lichen.pipeline.pictures.side import MAX_BLOCKS, Block

_CONSUMED = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"eXIf", b"sPLT", b"hIST"}
_TEXT = {b"tEXt", b"zTXt", b"iTXt"}
_HIDING = {b"exif", b"icc_profile", b"xmp", b"transparency"}
"""Keywords of texts that Pillow would take for something else."""
_HDR_CHUNKS = {b"mDCV", b"mDCv", b"cLLI", b"cLLi"}
"""The mastering display and the light levels of HDR, in their final and their first spelling."""
_HDR_TRANSFERS = {16: "PQ", 18: "HLG"}
_SMALL_CHUNK = 64


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, content) of every chunk up to IEND, checksums tested; raises ``DamagedPicture``.

    The content of IDAT is left out.
    """
    position = 8
    kind = b""
    number = 0
    while kind != b"IEND":
        number += 1
        if number > MAX_PIECES and number * _SMALL_CHUNK > position:
            raise UndecodablePicture(f"a PNG of more than {MAX_PIECES} tiny chunks")
        if position + 12 > len(data):
            raise DamagedPicture("the PNG file ends before its end chunk")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            raise DamagedPicture(f"the PNG file ends inside chunk {kind!r}")
        if zlib.crc32(memoryview(data)[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise DamagedPicture(f"PNG chunk {kind!r} fails its checksum")
        yield kind, data[position + 8 : end] if kind != b"IDAT" else b""
        position = end + 4
    if data[position:].strip(b"\0\r\n "):
        raise UnsupportedPicture("something follows the end of the PNG picture")


def examine_png(data: bytes, max_pixels: int) -> list[Block]:
    """Blocks of a PNG file: every ancillary chunk that Pillow's pixels, EXIF, ICC and XMP do not cover."""
    blocks: list[Block] = []
    texts = 0
    for kind, content in png_chunks(data):
        if kind == b"IHDR":
            _check_header(content, max_pixels)
        elif kind == b"acTL":
            raise UnsupportedPicture("an animation (APNG)")
        elif kind == b"iCCP":
            if not unpack_within(content.partition(b"\0")[2][1:], MAX_PROFILE, "the colour profile of a PNG"):
                raise UnsupportedPicture("a PNG with an empty colour profile")
        elif kind in _TEXT:
            texts += _text_size(kind, content)
            if texts > MAX_TEXTS:
                raise UndecodablePicture(f"the texts of a PNG are too large: more than {MAX_TEXTS} bytes")
            if _is_block(kind, content):
                blocks.append((f"png:{kind.decode()}", content))
        elif kind in _HDR_CHUNKS:
            raise UnsupportedPicture(f"a PNG in HDR ({kind.decode()})")
        elif kind not in _CONSUMED:
            if kind == b"cICP":
                _check_code_points(content)
            blocks.append((f"png:{kind.decode('latin-1')}", content))
        if len(blocks) > MAX_BLOCKS:
            raise UnsupportedPicture(f"more than {MAX_BLOCKS} blocks of metadata")
    return blocks


def _check_header(content: bytes, max_pixels: int) -> None:
    if len(content) != 13:
        raise DamagedPicture("the PNG header has a wrong length")
    width, height, depth, colour = struct.unpack_from(">IIBB", content)
    if colour == 3:
        raise UnsupportedPicture("a palette picture")
    if depth != 8:
        raise UnsupportedPicture(f"a PNG of {depth} bits a sample")
    check_size(width, height, max_pixels)


def _text_size(kind: bytes, content: bytes) -> int:
    """Bytes of a text when it is unpacked."""
    rest = content.partition(b"\0")[2]
    if kind == b"zTXt":
        return len(unpack_within(rest[1:], MAX_PROFILE, "a text in a PNG"))
    if kind == b"iTXt" and rest[:1] == b"\1":
        return len(unpack_within(rest[2:].partition(b"\0")[2].partition(b"\0")[2], MAX_PROFILE, "a text in a PNG"))
    return len(content)


def _is_block(kind: bytes, content: bytes) -> bool:
    """Whether a text is kept as a block; not where it is XMP or EXIF."""
    keyword = content.partition(b"\0")[0]
    if kind == b"iTXt" and keyword == b"XML:com.adobe.xmp":
        return False
    if keyword == b"Raw profile type exif":
        return False  # becomes EXIF
    if keyword in _HIDING:
        raise UnsupportedPicture(f"a PNG with a text named {keyword.decode()}, for which it would be taken")
    return True


def _check_code_points(content: bytes) -> None:
    """Refuses colours that 8-bit RGB with a profile do not mean: HDR, luma and chroma, narrow range."""
    if len(content) != 4:
        raise UnsupportedPicture("a PNG whose cICP chunk has a wrong length")
    primaries, transfer, matrix, full = content
    if transfer in _HDR_TRANSFERS:
        raise UnsupportedPicture(f"a PNG in HDR ({_HDR_TRANSFERS[transfer]})")
    if matrix != 0 or full != 1:
        raise UnsupportedPicture("a PNG in narrow range, or of other than RGB colours")
    if not has_profile(primaries, transfer):
        raise UnsupportedPicture(f"a PNG in colours {primaries}/{transfer}, which no simple profile describes")
