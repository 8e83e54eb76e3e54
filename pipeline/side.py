"""Side data: what a picture carries beside its colours, kept without loss.

Layout (integers are unsigned LEB128 varints): one version byte, then sections until the end. A section is its
kind (1 byte), its packing (1 byte), the unpacked length, the stored length, and the stored bytes. Kinds:
1 alpha, 2 EXIF (the TIFF structure, without the ``Exif\\0\\0`` of JPEG), 3 ICC, 4 XMP, 5 other blocks.
Packings: 0 as it is, 1 raw deflate, 2 constant (one byte stands for all), 3 lossless WebP of the alpha plane.
An alpha section has height and width in place of the unpacked length. The block section is a list of (1-byte
length of the name, name, varint length, bytes), with names such as ``jpeg:APP13`` or ``png:gAMA``.

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

from lichen.models.errors import CorruptArchive

Block: TypeAlias = tuple[str, bytes]
"""A piece of metadata that only its own format understands: (``format:name``, content)."""

Alpha: TypeAlias = NDArray[np.uint8]
"""An alpha plane, (height, width) uint8."""

VERSION = 1
MAX_SECTION = 1 << 28
"""Largest unpacked section in bytes, so also the largest alpha plane in pixels."""

MAX_BLOCKS = 1 << 16

_ALPHA, _EXIF, _ICC, _XMP, _BLOCKS = 1, 2, 3, 4, 5
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


def pack_side(picture: HasSide) -> bytes:
    """Serialise the side data of a picture; empty when there is none. Deterministic."""
    parts = []
    if picture.alpha is not None:
        parts.append(_pack_alpha(picture.alpha))
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
    while not reader.at_end():
        kind, packing = reader.take(2)
        if kind in plain or (kind == _ALPHA and alpha is not None):
            raise CorruptArchive(f"side data section {kind} appears twice")
        if kind == _ALPHA:
            alpha = _unpack_alpha(reader, packing, size)
        elif kind in (_EXIF, _ICC, _XMP, _BLOCKS):
            length, stored = reader.varint(), reader.varint()
            if length + sum(map(len, plain.values())) > MAX_SECTION:
                raise CorruptArchive(f"side data of more than {MAX_SECTION} bytes")
            plain[kind] = _unpack_bytes(packing, length, reader.take(stored))
        else:
            raise CorruptArchive(f"unknown side data section {kind}")
    blocks = _unpack_blocks(plain[_BLOCKS]) if _BLOCKS in plain else ()
    return Side(alpha=alpha, exif=plain.get(_EXIF), icc=plain.get(_ICC), xmp=plain.get(_XMP), blocks=blocks)


def _pack_bytes(kind: int, content: bytes) -> bytes:
    packing, stored = _PLAIN, content
    squeezed = _deflate(content)
    if len(squeezed) < len(content):
        packing, stored = _DEFLATE, squeezed
    return bytes([kind, packing]) + _varint(len(content)) + _varint(len(stored)) + stored


def _pack_alpha(alpha: Alpha) -> bytes:
    height, width = alpha.shape
    alpha = np.ascontiguousarray(alpha)
    if alpha.min() == alpha.max():
        packing, stored = _CONSTANT, bytes([int(alpha[0, 0])])
    else:
        packing, stored = _DEFLATE, _deflate(alpha.tobytes(), level=6)
        if max(height, width) <= _WEBP_MAX_SIDE:
            buffer = io.BytesIO()
            Image.fromarray(alpha).save(buffer, "WEBP", lossless=True, quality=50, method=1)
            if len(buffer.getvalue()) < len(stored):
                packing, stored = _WEBP, buffer.getvalue()
    return bytes([_ALPHA, packing]) + _varint(height) + _varint(width) + _varint(len(stored)) + stored


def _unpack_alpha(reader: _Reader, packing: int, size: tuple[int, ...] | None) -> Alpha:
    height, width, stored = reader.varint(), reader.varint(), reader.varint()
    content = reader.take(stored)
    if height < 1 or width < 1 or height * width > MAX_SECTION:
        raise CorruptArchive(f"alpha plane of {width}x{height} pixels")
    if size is not None and size != (height, width):
        raise CorruptArchive("the alpha plane has another size than the picture")
    if packing == _CONSTANT and len(content) == 1:
        return np.full((height, width), content[0], np.uint8)
    if packing == _DEFLATE:
        raw = _inflate(content, height * width)
        return np.frombuffer(raw, np.uint8).reshape(height, width).copy()
    if packing == _WEBP:
        return _read_webp(content, height, width)
    raise CorruptArchive(f"alpha plane in unknown packing {packing}")


def _read_webp(content: bytes, height: int, width: int) -> Alpha:
    # libwebp allocates the canvas on opening: compare the declared size before that.
    if content[:4] != b"RIFF" or content[8:16] != b"WEBPVP8L" or len(content) < 25 or content[20] != 0x2F:
        raise CorruptArchive("the alpha plane is no plain lossless WebP")
    packed = int.from_bytes(content[21:25], "little")
    if ((packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1) != (width, height):
        raise CorruptArchive("the alpha plane has another size than declared")
    try:
        with WebPImagePlugin.WebPImageFile(io.BytesIO(content)) as image:
            plane = np.asarray(image)[:, :, 0]
    except (OSError, ValueError, SyntaxError, EOFError, MemoryError, Image.DecompressionBombError) as error:
        raise CorruptArchive(f"the alpha plane does not decode: {error}") from error
    if plane.shape != (height, width):
        raise CorruptArchive("the alpha plane has another size than declared")
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
