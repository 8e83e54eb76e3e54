"""What a picture file may ask for before any of it is decoded.

A few bytes can declare gigabytes of pixels, tags or profiles, or minutes of work. Each limit lies far above what
real files need, and is tested on the file's own headers, before Pillow sees it.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from lichen.errors import UndecodablePicture, UnsupportedPicture
from lichen.pipeline.pictures.side import MAX_BLOCKS, MAX_SECTION, Block

MAX_PIXELS = 1 << 28
"""Default limit of pixels in one picture; a file that declares more is taken for a decompression bomb."""

LARGE_PIXELS = 1 << 24
"""Pictures with more pixels are opened, compressed and decoded alone."""

MAX_PROFILE = 1 << 20
"""Longest colour profile or text that is unpacked from compressed metadata; Pillow has the same limit."""

MAX_TEXTS = 1 << 25
"""Most bytes of all texts of a picture, unpacked."""

MAX_TRAILER = 1 << 16
"""Longest unexplained data behind a picture that is kept as a block; more may be a film or a picture."""

MAX_PIECES = 1 << 17
"""Most strips, tiles or chunks of one picture."""


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise ``UndecodablePicture`` unless the declared size is one of a picture within the limit."""
    if width < 1 or height < 1:
        raise UndecodablePicture(f"the file declares {width}x{height} pixels")
    if width * height > max_pixels:
        raise UndecodablePicture(f"{width}x{height} pixels exceed the limit of {max_pixels}")


def check_metadata(blocks: Sequence[Block], *others: bytes | None) -> None:
    """Raise ``UnsupportedPicture`` for more metadata than side data hold."""
    if len(blocks) > MAX_BLOCKS:
        raise UnsupportedPicture(f"more than {MAX_BLOCKS} blocks of metadata")
    if sum(len(content) + 264 for _, content in blocks) + sum(map(len, filter(None, others))) > MAX_SECTION:
        raise UnsupportedPicture(f"more than {MAX_SECTION} bytes of metadata")


def unpack_within(content: bytes, limit: int, what: str) -> bytes:
    """Inflate zlib data. Raises ``UnsupportedPicture`` if it is damaged, ``UndecodablePicture`` beyond ``limit``."""
    inflater = zlib.decompressobj()
    try:
        whole = inflater.decompress(content, limit)
    except zlib.error as error:
        raise UnsupportedPicture(f"{what} is damaged") from error
    if not inflater.eof and len(whole) == limit:
        raise UndecodablePicture(f"{what} is too large: more than {limit} bytes when it is unpacked")
    if not inflater.eof:
        raise UnsupportedPicture(f"{what} is damaged")
    return whole


def trailer(name: str, rest: bytes) -> list[Block]:
    """What follows the end of a picture: padding is dropped, a little is kept, much is another thing."""
    rest = rest.strip(b"\0\r\n\t ")
    if not rest:
        return []
    if len(rest) > MAX_TRAILER or b"\xff\xd8\xff" in rest or b"ftyp" in rest:
        raise UnsupportedPicture(f"{len(rest)} bytes follow the picture: a gain map, a film or a second one")
    return [(f"{name}:trailer", rest)]
