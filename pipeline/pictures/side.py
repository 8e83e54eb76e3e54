"""Side data: what a picture carries beside its colours, kept without loss.

Layout (integers are unsigned LEB128 varints): one version byte, then sections until the end. A section is its
kind (1 byte), its packing (1 byte), the unpacked length, the stored length, and the stored bytes. Kinds:
1 alpha, 2 EXIF (the TIFF structure, without the ``Exif\\0\\0`` of JPEG), 3 ICC, 4 XMP, 5 other blocks, 6 the map
of flat regions (``lichen.pipeline.pictures.flat``).
Packings: 0 as it is, 1 raw deflate, 2 constant (one byte stands for all), 3 lossless WebP of the alpha plane.
An alpha section has height and width in place of the unpacked length. The block section is a list of (1-byte
length of the name, name, varint length, bytes), with names such as ``jpeg:APP13`` or ``png:gAMA``. A flat section has
the level, the number of colours (1 byte each) and the colours (3 bytes each) behind its kind, and goes on as an alpha
section does: packing, height and width of the plane, stored length and stored bytes.

The archive tests a CRC before it hands side data to ``unpack_side``; whatever arrives there nevertheless ends
in a ``Side`` or in ``CorruptArchive``, with memory bounded by ``MAX_SECTION``.
"""

from __future__ import annotations

import io
import zlib
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, WebPImagePlugin

from lichen.errors import CorruptArchive
from lichen.models.codec import Pixels
from lichen.pipeline.pictures.flat import MAX_LEVEL, Flat, paint, squares

Block: TypeAlias = tuple[str, bytes]
"""A piece of metadata that only its own format understands: (``format:name``, content)."""

Alpha: TypeAlias = NDArray[np.uint8]
"""An alpha plane, (height, width) uint8."""

VERSION = 1
MAX_SECTION = 1 << 28
"""Largest unpacked section in bytes, so also the largest alpha plane and flat map in samples."""

MAX_BLOCKS = 1 << 16

_ALPHA, _EXIF, _ICC, _XMP, _BLOCKS, _FLAT = 1, 2, 3, 4, 5, 6
_PLAIN, _DEFLATE, _CONSTANT, _WEBP = 0, 1, 2, 3
_WEBP_MAX_SIDE = 16383


class HasSide(Protocol):
    """Whatever has side data: a ``Picture`` or a ``Side``."""

    @property
    def alpha(self) -> Alpha | None: ...
    @property
    def exif(self) -> bytes | None: ...
    @property
    def icc(self) -> bytes | None: ...
    @property
    def xmp(self) -> bytes | None: ...
    @property
    def blocks(self) -> tuple[Block, ...]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """Unpacked side data. ``exif`` is the TIFF structure without the prefix that JPEG puts before it."""

    alpha: Alpha | None = None
    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    blocks: tuple[Block, ...] = ()
    flat: Flat | None = None


def pack_side(picture: HasSide) -> bytes:
    """Serialise the side data of a picture; empty when there is none. Deterministic."""
    parts = []
    if picture.alpha is not None:
        parts.append(bytes([_ALPHA]) + _pack_plane(picture.alpha))
    for kind, content in ((_EXIF, picture.exif), (_ICC, picture.icc), (_XMP, picture.xmp)):
        if content is not None:
            parts.append(_pack_bytes(kind, content))
    if picture.blocks:
        listing = bytearray()
        for name, content in picture.blocks:
            encoded = name.encode()
            listing += bytes([len(encoded)]) + encoded + _varint(len(content)) + content
        parts.append(_pack_bytes(_BLOCKS, bytes(listing)))
    return bytes([VERSION]) + b"".join(parts) if parts else b""


def with_flat(side: bytes, flat: Flat) -> bytes:
    """Packed side data, which may be empty, with a map of flat regions behind it."""
    head = bytes([_FLAT, flat.level, len(flat.colours)]) + flat.colours.tobytes()
    return (side or bytes([VERSION])) + head + _pack_plane(flat.plane)


def apply_side(pixels: Pixels, data: bytes) -> tuple[Pixels, Side]:
    """What a decoder does with side data: the pixels that count, flat regions painted, and all else beside them.

    Raises ``CorruptArchive``, as ``unpack_side`` does.
    """
    side = unpack_side(data, pixels.shape[:2])
    return pixels if side.flat is None else paint(pixels, side.flat), side


def unpack_side(data: bytes, size: tuple[int, ...] | None = None) -> Side:
    """Read side data; ``size`` is (height, width) of the picture, which its alpha plane must have.

    Raises ``CorruptArchive`` on anything that ``pack_side`` does not write.
    """
    if not data:
        return Side()
    if data[0] != VERSION:
        raise CorruptArchive(f"side data of version {data[0]}; this release knows {VERSION}")
    reader = _Reader(data, 1)
    alpha: Alpha | None = None
    plain: dict[int, bytes] = {}
    flat: Flat | None = None
    while not reader.at_end():
        kind, packing = reader.take(2)
        if kind in plain or (kind == _ALPHA and alpha is not None) or (kind == _FLAT and flat is not None):
            raise CorruptArchive(f"side data section {kind} appears twice")
        if kind == _ALPHA:
            alpha = _unpack_plane(reader, packing, size, "alpha plane")
        elif kind == _FLAT:
            flat = _unpack_flat(reader, packing, size)
        elif kind in (_EXIF, _ICC, _XMP, _BLOCKS):
            length, stored = reader.varint(), reader.varint()
            if length + sum(map(len, plain.values())) > MAX_SECTION:
                raise CorruptArchive(f"side data of more than {MAX_SECTION} bytes")
            plain[kind] = _unpack_bytes(packing, length, reader.take(stored))
        else:
            raise CorruptArchive(f"unknown side data section {kind}")
    blocks = _unpack_blocks(plain[_BLOCKS]) if _BLOCKS in plain else ()
    return Side(alpha=alpha, exif=plain.get(_EXIF), icc=plain.get(_ICC), xmp=plain.get(_XMP), blocks=blocks, flat=flat)


def _pack_bytes(kind: int, content: bytes) -> bytes:
    packing, stored = _PLAIN, content
    squeezed = _deflate(content)
    if len(squeezed) < len(content):
        packing, stored = _DEFLATE, squeezed
    return bytes([kind, packing]) + _varint(len(content)) + _varint(len(stored)) + stored


def _pack_plane(plane: NDArray[np.uint8]) -> bytes:
    height, width = plane.shape
    plane = np.ascontiguousarray(plane)
    if plane.min() == plane.max():
        packing, stored = _CONSTANT, bytes([int(plane[0, 0])])
    else:
        packing, stored = _DEFLATE, _deflate(plane.tobytes(), level=6)
        if max(height, width) <= _WEBP_MAX_SIDE:
            buffer = io.BytesIO()
            Image.fromarray(plane).save(buffer, "WEBP", lossless=True, quality=50, method=1)
            if len(buffer.getvalue()) < len(stored):
                packing, stored = _WEBP, buffer.getvalue()
    return bytes([packing]) + _varint(height) + _varint(width) + _varint(len(stored)) + stored


def _unpack_flat(reader: _Reader, level: int, size: tuple[int, ...] | None) -> Flat:
    colours = np.frombuffer(reader.take(3 * reader.take(1)[0]), np.uint8).reshape(-1, 3)
    if level > MAX_LEVEL:
        raise CorruptArchive(f"a flat map with squares of 2 to the power of {level} pixels")
    covered = None if size is None else squares(size[0], size[1], level)
    flat = Flat(level=level, colours=colours, plane=_unpack_plane(reader, reader.take(1)[0], covered, "flat map"))
    flat.check()
    return flat


def _unpack_plane(reader: _Reader, packing: int, size: tuple[int, ...] | None, what: str) -> NDArray[np.uint8]:
    height, width, stored = reader.varint(), reader.varint(), reader.varint()
    content = reader.take(stored)
    if height < 1 or width < 1 or height * width > MAX_SECTION:
        raise CorruptArchive(f"{what} of {width}x{height} samples")
    if size is not None and size != (height, width):
        raise CorruptArchive(f"the {what} has another size than the picture")
    if packing == _CONSTANT and len(content) == 1:
        return np.full((height, width), content[0], np.uint8)
    if packing == _DEFLATE:
        raw = _inflate(content, height * width)
        return np.frombuffer(raw, np.uint8).reshape(height, width).copy()
    if packing == _WEBP:
        return _read_webp(content, height, width, what)
    raise CorruptArchive(f"{what} in unknown packing {packing}")


def _read_webp(content: bytes, height: int, width: int, what: str) -> NDArray[np.uint8]:
    # libwebp allocates the canvas on opening: compare the declared size before that.
    if content[:4] != b"RIFF" or content[8:16] != b"WEBPVP8L" or len(content) < 25 or content[20] != 0x2F:
        raise CorruptArchive(f"the {what} is no plain lossless WebP")
    packed = int.from_bytes(content[21:25], "little")
    if ((packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1) != (width, height):
        raise CorruptArchive(f"the {what} has another size than declared")
    try:
        with WebPImagePlugin.WebPImageFile(io.BytesIO(content)) as image:
            plane = np.asarray(image)[:, :, 0]
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError) as error:
        raise CorruptArchive(f"the {what} does not decode: {error}") from error
    if plane.shape != (height, width):
        raise CorruptArchive(f"the {what} has another size than declared")
    return plane.copy()


def _unpack_bytes(packing: int, length: int, stored: bytes) -> bytes:
    if packing == _PLAIN and length == len(stored):
        return stored
    if packing == _DEFLATE:
        return _inflate(stored, length)
    raise CorruptArchive("side data section in an unknown packing or of a wrong length")


def _unpack_blocks(listing: bytes) -> tuple[Block, ...]:
    reader = _Reader(listing, 0)
    blocks: list[Block] = []
    while not reader.at_end():
        name = reader.take(reader.take(1)[0])
        if not name or len(blocks) >= MAX_BLOCKS:
            raise CorruptArchive("side data blocks without names, or too many")
        try:
            blocks.append((name.decode(), reader.take(reader.varint())))
        except UnicodeDecodeError as error:
            raise CorruptArchive("a side data block has no proper name") from error
    return tuple(blocks)


def _deflate(content: bytes, level: int = 9) -> bytes:
    squeezer = zlib.compressobj(level, zlib.DEFLATED, -15)
    return squeezer.compress(content) + squeezer.flush()


def _inflate(stored: bytes, length: int) -> bytes:
    if length > MAX_SECTION:
        raise CorruptArchive(f"side data section of {length} bytes")
    inflater = zlib.decompressobj(-15)
    try:
        content = inflater.decompress(stored, length + 1)
    except zlib.error as error:
        raise CorruptArchive(f"side data does not inflate: {error}") from error
    if len(content) != length or not inflater.eof or inflater.unused_data:
        raise CorruptArchive("side data inflates to another length than declared")
    return content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class _Reader:
    """A cursor that raises ``CorruptArchive`` instead of reading past the end."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data = data
        self._position = position

    def at_end(self) -> bool:
        return self._position == len(self._data)

    def take(self, count: int) -> bytes:
        end = self._position + count
        if end > len(self._data):
            raise CorruptArchive("side data ends early")
        content = self._data[self._position : end]
        self._position = end
        return content

    def varint(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise CorruptArchive("side data has an absurd length")
