"""How the classical formats are written and read: plain files of Pillow, jpegli and libjxl.

Sizes are read from headers before anything is decoded or allocated. ``lichen.models.classical`` makes codecs of this.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import AvifImagePlugin, ImageFile, JpegImagePlugin, WebPImagePlugin
from PIL import Image as PillowImage

from lichen.models.codec import Pixels

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Format:
    """How one format is written and read. ``read`` checks sizes before it allocates anything for them."""

    max_side: int
    efforts: tuple[int, ...]
    """The format's own number for effort 1 to 9."""
    write: Callable[[Pixels, float, int], bytes]
    read: Callable[[bytes, int], Pixels]
    settings: str
    """The encoder and what it is told at the default effort."""
    lossless: bool = False


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
    return _write_codestream(pixels, level, lossless=False, quality=min(round(quality), 99), use_original_profile=False)


def _write_jxl_lossless(pixels: Pixels, _quality: float, level: int) -> bytes:
    return _write_codestream(pixels, level, lossless=True, quality=100, use_original_profile=True)


def _write_codestream(pixels: Pixels, level: int, **settings: Any) -> bytes:
    height, width = pixels.shape[:2]
    return encode_jxl(pixels.tobytes(), (width, height), effort=level, **settings)


def encode_jxl(data: bytes, size: tuple[int, int], *, effort: int, jpeg: bool = False, **settings: Any) -> bytes:
    """RGB samples as a bare JPEG XL codestream; with ``jpeg`` a JPEG file as a container that gives it back.

    ``size`` is width and height; ``settings`` are the plugin's ``lossless``, ``quality`` and ``use_original_profile``.
    """
    import pillow_jxl

    encoder_class: Any = pillow_jxl.Encoder  # its stub file is of an older version
    encoder = encoder_class(
        mode="RGB",
        decoding_speed=0,
        effort=effort,
        use_container=jpeg,
        num_threads=0,
        **settings,
    )
    return bytes(encoder(data, *size, jpeg_encode=jpeg, exif=None, jumb=None, xmp=None, compress=False))


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
FORMATS: Mapping[str, Format] = {
    "jpeg": Format(
        max_side=65500,
        efforts=(0,) * 9,
        write=_write_jpeg,
        read=_read_jpeg,
        settings="libjpeg-turbo, optimised, progressive, 4:2:0",
    ),
    "jpegli": Format(
        max_side=65500, efforts=(0,) * 9, write=_write_jpegli, read=_read_jpeg, settings="jpegli, its defaults"
    ),
    "webp": Format(
        max_side=16383,
        efforts=(0, 4, 6, 6, 6, 6, 6, 6, 6),
        write=_write_webp,
        read=_read_webp,
        settings="libwebp, method 6, 4:2:0",
    ),
    "avif": Format(
        max_side=65536,
        efforts=_AVIF_SPEEDS,
        write=_write_avif,
        read=_read_avif,
        settings="libaom, speed 6, 4:4:4, tune=iq",
    ),
    "avif-psnr": Format(
        max_side=65536,
        efforts=_AVIF_SPEEDS,
        write=_write_avif_psnr,
        read=_read_avif,
        settings="libaom, speed 6, 4:4:4, tune=psnr",
    ),
    "jxl": Format(
        max_side=1 << 30,
        efforts=(3, 5, 7, 8, 9, 9, 9, 9, 9),
        write=_write_jxl,
        read=_read_jxl,
        settings="libjxl, effort 7",
    ),
    "webp-lossless": Format(
        max_side=16383,
        efforts=(0, 2, 4, 4, 4, 6, 6, 6, 6),
        write=_write_webp_lossless,
        read=_read_webp_lossless,
        settings="libwebp, lossless, method 4",
        lossless=True,
    ),
    "jxl-lossless": Format(
        max_side=1 << 30,
        efforts=(3, 5, 7, 8, 9, 9, 9, 9, 9),
        write=_write_jxl_lossless,
        read=_read_jxl,
        settings="libjxl, lossless, effort 7",
        lossless=True,
    ),
}
