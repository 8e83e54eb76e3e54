"""The classical codecs (JPEG, WebP, AVIF, JPEG XL) behind the same protocol as the learned ones.

Two of them lose nothing, whatever the quality: ``webp-lossless`` and ``jxl-lossless``.

A bitstream is the plain file that the format's own library writes, without metadata, so that any viewer opens
it. Settings at the default effort are those that the literature and this project's anchors use: JPEG optimised
and progressive with 4:2:0 chroma (libjpeg's default, the better rate-distortion choice at its usual rates), WebP
method 6, AVIF speed 6 with 4:4:4 chroma, JPEG XL effort 7. Two formats have two encoders: ``jpeg`` is written by
libjpeg-turbo and ``jpegli`` by the encoder of that name, ``avif`` is tuned for the eye, as Pillow does by default
(libaom's ``tune=iq``), and ``avif-psnr`` for squared error.

The formats have no checksum of their own: what is structurally broken raises ``CorruptBitstream``, but a
flipped bit inside entropy-coded data may decode to other pixels. The symbol digest, which covers the whole
bitstream, and the archive's CRC see it.
"""

from __future__ import annotations

import io
import json
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeVar

import numpy as np
from PIL import AvifImagePlugin, ImageFile, JpegImagePlugin, WebPImagePlugin
from PIL import Image as PillowImage

from lichen.models.codec import Decoded, Encoded, Pixels, check_effort, check_qualities, symbol_digest
from lichen.models.defaults import EFFORT
from lichen.models.errors import CorruptBitstream, UnsupportedPicture, UsageError

MAX_PIXELS = 1 << 27
"""Largest picture by default, in pixels: decoding it stays below 1 GB (Pillow holds 4 bytes a pixel)."""

AVIF_THREADS = 2
"""Fixed, because libaom's output depends on it; two is what the anchors were measured with."""

DECODE_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    RuntimeError,
    struct.error,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    ZeroDivisionError,
    OverflowError,
    MemoryError,
    AssertionError,
    PillowImage.DecompressionBombError,
    Warning,
)
"""Everything that Pillow and its plugins were seen to raise, or declare to raise, on damaged files."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Format:
    """How one format is written and read. ``read`` checks sizes before it allocates anything for them."""

    max_side: int
    efforts: tuple[int, ...]
    """The format's own number for effort 1 to 9."""
    write: Callable[[Pixels, float, int], bytes]
    read: Callable[[bytes, int], Pixels]
    settings: str
    """The encoder and what it is told at the default effort."""
    lossless: bool = False


class ClassicalCodec:
    """One classical format as a codec.

    ``threads`` is how many pictures are worked on at once (Pillow releases the interpreter's lock); by
    default ``OMP_NUM_THREADS`` or else the cores that the process may use. Pictures of more than
    ``max_pixels``, or with a side that the format cannot hold, are refused in both directions.
    """

    def __init__(self, name: str, *, max_pixels: int = MAX_PIXELS, threads: int | None = None) -> None:
        if name not in _FORMATS:
            raise UsageError(f"no classical codec {name!r}; there are {', '.join(_FORMATS)}")
        if threads is not None and threads < 1:
            raise UsageError(f"threads must be at least 1, not {threads}")
        self._name = name
        self._format = _FORMATS[name]
        self._max_pixels = max_pixels
        self._threads = threads or _default_threads()

    @property
    def name(self) -> str:
        """One of ``CLASSICAL_NAMES``."""
        return self._name

    @property
    def settings(self) -> str:
        """The encoder and what it is told at the default effort, in words."""
        return self._format.settings

    @property
    def lossless(self) -> bool:
        """Whether all pixels come back as they were, at any quality."""
        return self._format.lossless

    @property
    def quality_step(self) -> float:
        """Of the formats' own scales; between are no other pictures."""
        return 1.0

    @property
    def digest(self) -> str:
        """SHA-256 of the JSON of ``decoder_files``."""
        return sha256(self.decoder_files()["json"]).hexdigest()

    def encode(
        self, images: Sequence[Pixels], quality: float | Sequence[float], *, effort: int = EFFORT
    ) -> list[Encoded]:
        """Compress (height, width, 3) uint8 pictures at quality 1 to 100, rounded to the format's own scale.

        ``effort`` selects the format's own speed; JPEG has none.

        Raises ``UsageError`` for a bad quality or array and ``UnsupportedPicture`` for a picture that is too
        large for the format.
        """
        qualities = check_qualities(quality, len(images))
        level = self._format.efforts[check_effort(effort) - 1]
        return self._map(self._encode_one, [(*pair, level) for pair in zip(images, qualities, strict=True)])

    def decode(self, bitstreams: Sequence[bytes]) -> list[Decoded]:
        """Decode bitstreams; raises ``CorruptBitstream`` on what is not a whole picture of this format."""
        return self._map(self._decode_one, list(bitstreams))

    def decoder_files(self) -> Mapping[str, bytes]:
        """The format's name is all that decoding needs."""
        config = {"family": "classical", "format": 1, "name": self._name}
        return {"json": json.dumps(config, sort_keys=True, separators=(",", ":")).encode()}

    def _encode_one(self, job: tuple[Pixels, float, int]) -> Encoded:
        pixels, quality, level = job
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
            raise UsageError(f"a picture must be (height, width, 3) uint8, not {pixels.shape} {pixels.dtype}")
        height, width = pixels.shape[:2]
        if max(height, width) > self._format.max_side or height * width > self._max_pixels:
            raise UnsupportedPicture(
                f"{width}x{height} is too large for {self._name}: at most {self._format.max_side} a side "
                f"and {self._max_pixels} pixels"
            )
        bitstream = self._format.write(np.ascontiguousarray(pixels), quality, level)
        return Encoded(bitstream=bitstream, symbols=symbol_digest(bitstream))

    def _decode_one(self, bitstream: bytes) -> Decoded:
        try:
            pixels = self._format.read(bytes(bitstream), self._max_pixels)
        except DECODE_ERRORS as error:
            raise CorruptBitstream(f"not a {self._name} picture: {error}") from error
        return Decoded(pixels=pixels, symbols=symbol_digest(bytes(bitstream)))

    def _map(self, function: Callable[[_In], _Out], items: list[_In]) -> list[_Out]:
        threads = min(self._threads, len(items))
        if threads <= 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(function, items))


def stated_size(bitstream: bytes) -> tuple[int, int] | None:
    """Width and height by the header of a bitstream of any of these formats; None for others, and damaged ones.

    Nothing is decoded or allocated for pixels. (``PIL.Image.open`` is no way to ask: whole JPEG XL pictures are
    decoded and WebP's canvas is allocated to answer it.)
    """
    try:
        if bitstream[:2] == b"\xff\x0a":
            return jxl_size(bitstream)
        if bitstream[8:12] == b"WEBP":
            return (_webp_lossless_size if bitstream[12:16] == b"VP8L" else _webp_size)(bitstream)
        if bitstream[:2] == b"\xff\xd8":
            return _opened_size(JpegImagePlugin.JpegImageFile, bitstream)
        if bitstream[4:8] == b"ftyp":
            return _opened_size(AvifImagePlugin.AvifImageFile, bitstream)
    except DECODE_ERRORS:
        pass  # its codec will say
    return None


def _opened_size(opener: type[ImageFile.ImageFile], data: bytes) -> tuple[int, int]:
    with opener(io.BytesIO(data)) as image:
        return image.width, image.height


def _default_threads() -> int:
    declared = os.environ.get("OMP_NUM_THREADS", "")
    if declared.isdecimal() and int(declared) > 0:
        return int(declared)
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1


# --- JPEG, WebP and AVIF, through Pillow ---------------------------------------------------------


def _save(pixels: Pixels, file_format: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    PillowImage.fromarray(pixels).save(buffer, format=file_format, **settings)
    return buffer.getvalue()


def _load(opener: type[ImageFile.ImageFile], data: bytes, max_pixels: int) -> Pixels:
    # The plugin's class instead of Image.open: only this format, and no process-wide bomb limit or warning.
    with opener(io.BytesIO(data)) as image:
        _check_size(image.width, image.height, max_pixels)
        if image.mode != "RGB" or getattr(image, "n_frames", 1) != 1:
            raise ValueError(f"mode {image.mode}, {getattr(image, 'n_frames', 1)} frames")
        return np.array(image, dtype=np.uint8)


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1 or width * height > max_pixels:
        raise ValueError(f"{width}x{height} pixels, of at most {max_pixels}")


def _write_jpeg(pixels: Pixels, quality: float, _level: int) -> bytes:
    return _save(pixels, "JPEG", quality=round(quality), optimize=True, progressive=True)


def _read_jpeg(data: bytes, max_pixels: int) -> Pixels:
    return _load(JpegImagePlugin.JpegImageFile, data, max_pixels)


def _write_jpegli(pixels: Pixels, quality: float, _level: int) -> bytes:
    import pyjpegli

    height, width = pixels.shape[:2]
    bitstream: bytes = pyjpegli.encode(pixels, width, height, quality=round(quality))
    return bitstream


def _write_webp(pixels: Pixels, quality: float, level: int) -> bytes:
    return _save(pixels, "WEBP", quality=round(quality), method=level)


def _write_webp_lossless(pixels: Pixels, _quality: float, level: int) -> bytes:
    # Here, quality is time: the slowest setting saves one to twelve per cent for at least 27 times as much of it.
    return _save(pixels, "WEBP", lossless=True, exact=True, method=level, quality=100 if level == 6 else 75)


def _read_webp(data: bytes, max_pixels: int) -> Pixels:
    _check_size(*_webp_size(data), max_pixels)
    return _load(WebPImagePlugin.WebPImageFile, data, max_pixels)


def _read_webp_lossless(data: bytes, max_pixels: int) -> Pixels:
    _check_size(*_webp_lossless_size(data), max_pixels)
    return _load(WebPImagePlugin.WebPImageFile, data, max_pixels)


def _webp_lossless_size(data: bytes) -> tuple[int, int]:
    if data[:4] != b"RIFF" or data[8:16] != b"WEBPVP8L" or len(data) < 25 or data[20] != 0x2F:
        raise ValueError("no plain lossless WebP header")
    packed = int.from_bytes(data[21:25], "little")
    return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1


def _webp_size(data: bytes) -> tuple[int, int]:
    # libwebp allocates the canvas on opening. What we write is a plain "VP8 " file: size at a fixed place.
    if data[:4] != b"RIFF" or data[8:16] != b"WEBPVP8 " or len(data) < 30:
        raise ValueError("no plain lossy WebP header")
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _write_avif(pixels: Pixels, quality: float, level: int, **settings: Any) -> bytes:
    # libavif tunes for the eye by itself, and refuses to be told so at quality 100.
    chosen = {"quality": round(quality), "speed": level, "subsampling": "4:4:4", "max_threads": AVIF_THREADS}
    return _save(pixels, "AVIF", **chosen, **settings)


def _write_avif_psnr(pixels: Pixels, quality: float, level: int) -> bytes:
    return _write_avif(pixels, quality, level, advanced={"tune": "psnr"})


def _read_avif(data: bytes, max_pixels: int) -> Pixels:
    return _load(AvifImagePlugin.AvifImageFile, data, max_pixels)


# --- JPEG XL, through pillow-jxl-plugin ----------------------------------------------------------

_JXL_RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))


def _write_jxl(pixels: Pixels, quality: float, level: int) -> bytes:
    # The plugin takes 100 for "lossless" and then fails here.
    return _encode_jxl(pixels, level, lossless=False, quality=min(round(quality), 99), use_original_profile=False)


def _write_jxl_lossless(pixels: Pixels, _quality: float, level: int) -> bytes:
    return _encode_jxl(pixels, level, lossless=True, quality=100, use_original_profile=True)


def _encode_jxl(pixels: Pixels, level: int, **settings: Any) -> bytes:
    import pillow_jxl

    height, width = pixels.shape[:2]
    encoder_class: Any = pillow_jxl.Encoder  # its stub file is of an older version
    encoder = encoder_class(
        mode="RGB",
        decoding_speed=0,
        effort=level,
        use_container=False,
        num_threads=0,
        **settings,
    )
    bitstream: bytes = encoder(
        pixels.tobytes(), width, height, jpeg_encode=False, exif=None, jumb=None, xmp=None, compress=False
    )
    return bitstream


def _read_jxl(data: bytes, max_pixels: int) -> Pixels:
    import pillow_jxl

    width, height = jxl_size(data)
    _check_size(width, height, max_pixels)
    is_jpeg, info, raw, _, _ = pillow_jxl.Decoder(num_threads=0)(data)
    if is_jpeg or info.mode != "RGB" or (info.width, info.height) != (width, height):
        raise ValueError(f"mode {info.mode}, {info.width}x{info.height} instead of {width}x{height}")
    return np.frombuffer(raw, np.uint8).reshape(height, width, 3).copy()


def jxl_size(codestream: bytes) -> tuple[int, int]:
    """Width and height from a bare JPEG XL codestream (ISO/IEC 18181-1, SizeHeader); ``ValueError`` if none.

    The plugin decodes the whole picture when it opens it, so this is the only chance to refuse a bomb.
    """
    if codestream[:2] != b"\xff\x0a" or len(codestream) < 14:
        raise ValueError("no JPEG XL codestream")
    bits = int.from_bytes(codestream[2:14], "little")

    def take(count: int) -> int:
        nonlocal bits
        value = bits & ((1 << count) - 1)
        bits >>= count
        return value

    small = take(1)

    def side() -> int:
        return (take(5) + 1) * 8 if small else take((9, 13, 18, 30)[take(2)]) + 1

    height = side()
    ratio = take(3)
    if ratio == 0:
        return side(), height
    numerator, denominator = _JXL_RATIOS[ratio - 1]
    return height * numerator // denominator, height


_AVIF_SPEEDS = (9, 8, 6, 5, 4, 3, 2, 1, 0)
_FORMATS: Mapping[str, _Format] = {
    "jpeg": _Format(
        max_side=65500,
        efforts=(0,) * 9,
        write=_write_jpeg,
        read=_read_jpeg,
        settings="libjpeg-turbo, optimised, progressive, 4:2:0",
    ),
    "jpegli": _Format(
        max_side=65500, efforts=(0,) * 9, write=_write_jpegli, read=_read_jpeg, settings="jpegli, its defaults"
    ),
    "webp": _Format(
        max_side=16383,
        efforts=(0, 4, 6, 6, 6, 6, 6, 6, 6),
        write=_write_webp,
        read=_read_webp,
        settings="libwebp, method 6, 4:2:0",
    ),
    "avif": _Format(
        max_side=65536,
        efforts=_AVIF_SPEEDS,
        write=_write_avif,
        read=_read_avif,
        settings="libaom, speed 6, 4:4:4, tune=iq",
    ),
    "avif-psnr": _Format(
        max_side=65536,
        efforts=_AVIF_SPEEDS,
        write=_write_avif_psnr,
        read=_read_avif,
        settings="libaom, speed 6, 4:4:4, tune=psnr",
    ),
    "jxl": _Format(
        max_side=1 << 30,
        efforts=(3, 5, 7, 8, 9, 9, 9, 9, 9),
        write=_write_jxl,
        read=_read_jxl,
        settings="libjxl, effort 7",
    ),
    "webp-lossless": _Format(
        max_side=16383,
        efforts=(0, 2, 4, 4, 4, 6, 6, 6, 6),
        write=_write_webp_lossless,
        read=_read_webp_lossless,
        settings="libwebp, lossless, method 4",
        lossless=True,
    ),
    "jxl-lossless": _Format(
        max_side=1 << 30,
        efforts=(3, 5, 7, 8, 9, 9, 9, 9, 9),
        write=_write_jxl_lossless,
        read=_read_jxl,
        settings="libjxl, lossless, effort 7",
        lossless=True,
    ),
}

CLASSICAL_NAMES = tuple(_FORMATS)
"""The names that ``ClassicalCodec`` knows."""
