"""Files made smaller without loss: what comes back is the file itself, byte for byte, and not only its picture.

A JPEG becomes a JPEG XL container with what it takes to write the JPEG again (libjxl's transcoding: the same
coefficients, coded better). Everything else becomes a zstd frame. Not every JPEG can be transcoded (CMYK, 12 bits,
arithmetic coding, data that end early), and some transcode to a picture without a word, from which no file comes back.
So nothing counts as packed before its file was rebuilt and compared; ``pack`` and ``unpack`` are pure.

A PNG cannot be had back from its pixels, since that takes the very deflate that wrote it; it is zstd's, too.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

import pyarrow as pa

from lichen.errors import CorruptArchive
from lichen.models.classical_formats import DECODE_ERRORS, encode_jxl, jxl_size, stated_size
from lichen.pipeline.archive.index import Packing
from lichen.pipeline.lanes import LARGE_PIXELS
from lichen.pipeline.pictures.limits import MAX_PIXELS
from lichen.pipeline.pictures.pillow import message

LEAST_SAVED = 0.01
"""Part of a file that packing must save, or the file stays as it is."""

PIXELS_A_BYTE = 512
"""No JPEG has more: a block of 8x8 takes at least a bit."""

_EFFORT = 7
"""libjxl's own default. 3 and 5 give the same bytes here; 9 takes over fifteen times as long for 0.3 per cent."""
_LEVEL, _QUICK_LEVEL, _QUICK_BYTES = 19, 9, 1 << 25
"""Of zstd; the quick one, over 20 times as fast, for files so large that the other would take many seconds."""
_FAILURES = (*DECODE_ERRORS, pa.ArrowException)
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Packed:
    """A file that was packed, and rebuilt and compared."""

    payload: bytes
    packing: Packing


def pack(data: bytes, *, max_pixels: int = LARGE_PIXELS) -> Packed | None:
    """The file in fewer bytes; None if it does not shrink, or would not come back.

    JPEGs of more than ``max_pixels`` are not transcoded, which takes some 20 bytes of memory a pixel.
    """
    digest = sha256(data).digest()
    for packed in _attempts(data, max_pixels):
        if len(packed.payload) <= len(data) * (1 - LEAST_SAVED):
            try:
                unpack(packed.payload, packed.packing, len(data), digest)
            except CorruptArchive:
                continue
            return packed
    return None


def unpack(payload: bytes, packing: str, size: int, digest: bytes, *, name: str = "a packed file") -> bytes:
    """The file of ``size`` bytes and SHA-256 ``digest``. Raises ``CorruptArchive`` if that is not what comes out.

    Memory is bounded by ``size``, and for a JPEG by the pixels that so many bytes can have.
    """
    try:
        data = _rebuild_jpeg(payload, size) if packing == "jxl-jpeg" else _inflate(payload, size, packing)
    except _FAILURES as error:
        raise CorruptArchive(f"{name} cannot be rebuilt from its {packing} payload: {message(error)}") from error
    except BaseException as error:
        if not _is_panic(error):
            raise
        raise CorruptArchive(f"{name} cannot be rebuilt from its {packing} payload: {message(error)}") from error
    if len(data) != size or sha256(data).digest() != digest:
        raise CorruptArchive(f"{name} does not come back as it was from its {packing} payload: its SHA-256 differs")
    return data


def _attempts(data: bytes, max_pixels: int) -> Iterator[Packed]:
    if data.startswith(b"\xff\xd8\xff"):
        container = _transcode(data, max_pixels)
        if container is not None:
            yield Packed(payload=container, packing="jxl-jpeg")
    yield Packed(payload=_deflate(data), packing="zstd")


def _is_panic(error: BaseException) -> bool:
    """Whether Rust code gave up, for which its Python binding raises what is not an ``Exception``."""
    return type(error).__module__ == "pyo3_runtime"


# --- JPEG -------------------------------------------------------------------------------------------


def _transcode(data: bytes, max_pixels: int) -> bytes | None:
    """A JPEG as a JPEG XL container; None where that cannot be."""
    size = stated_size(data)
    if size is None or size[0] * size[1] > min(max_pixels, PIXELS_A_BYTE * len(data)):
        return None
    try:
        # Mode and sizes are the JPEG's own, whatever is said here.
        return encode_jxl(data, size, effort=_EFFORT, jpeg=True, lossless=True, quality=100, use_original_profile=False)
    except DECODE_ERRORS:
        return None
    except BaseException as error:
        if not _is_panic(error):
            raise
        return None


def _rebuild_jpeg(payload: bytes, size: int) -> bytes:
    """The JPEG in a container; whatever is raised for one that is damaged."""
    import pillow_jxl

    width, height = _container_size(payload)
    if width * height > min(MAX_PIXELS, PIXELS_A_BYTE * size):
        raise ValueError(f"the container states {width}x{height} pixels, more than a JPEG of {size} bytes can have")
    is_jpeg, _, data, _, _ = pillow_jxl.Decoder(num_threads=0)(payload)
    if not is_jpeg:
        raise ValueError("the data to write the JPEG again are missing")
    return bytes(data)


def _container_size(payload: bytes) -> tuple[int, int]:
    """Width and height of the picture in a container with reconstruction data; ``ValueError`` if there is none.

    The plugin decodes whatever it is given, so this is the only chance to refuse a bomb.
    """
    if not payload.startswith(_CONTAINER):
        raise ValueError("the payload is no JPEG XL container")
    codestream, rebuilds = b"", False
    for kind, content in _boxes(payload):
        rebuilds = rebuilds or kind == b"jbrd"
        if kind == b"jxlc" and not codestream:
            codestream = bytes(content[:64])
        elif kind == b"jxlp" and len(codestream) < 64:  # a part of it, behind its number
            codestream += bytes(content[4:68])
    if not rebuilds:
        raise ValueError("the container has no data to write the JPEG again")
    return jxl_size(codestream)


def _boxes(container: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """The boxes of an ISO base media file, each with its content."""
    view, start = memoryview(container), 0
    while start < len(view):
        length, kind = struct.unpack_from(">I4s", view, start)
        head = 8
        if length == 1:
            [length] = struct.unpack_from(">Q", view, start + 8)
            head = 16
        end = start + length if length else len(view)
        if end < start + head or end > len(view):
            raise ValueError(f"a box of {length} bytes does not fit into the container")
        yield kind, view[start + head : end]
        start = end


# --- everything else --------------------------------------------------------------------------------


def _deflate(data: bytes) -> bytes:
    codec = pa.Codec("zstd", compression_level=_LEVEL if len(data) <= _QUICK_BYTES else _QUICK_LEVEL)
    frame: bytes = codec.compress(data, asbytes=True)
    return frame


def _inflate(payload: bytes, size: int, packing: str) -> bytes:
    if packing != "zstd" or not payload.startswith(_ZSTD_MAGIC):
        raise ValueError("the payload is no zstd frame")
    # Into a buffer of that size: more or fewer bytes are an error of the library.
    data: bytes = pa.Codec("zstd").decompress(payload, size, asbytes=True)
    return data
