"""Picture files to pixels and back, with everything that belongs to a picture.

What the codec path takes: 8-bit grey or RGB, with or without alpha, one picture a file, from JPEG, PNG, WebP,
AVIF, TIFF, BMP, TGA, Netpbm and JPEG 2000. EXIF, ICC and XMP are kept byte for byte (TIFF's own tags are
rewritten as EXIF), other metadata as blocks (see ``formats``). Orientation stays a tag and pixels are not
rotated. (Only TIFF is different: Pillow turns its pixels upright on loading, and the tag goes.) A transparent
colour (PNG ``tRNS`` on grey or RGB) becomes an exact alpha plane.

Everything else that is a picture is refused with a reason, so that its original bytes are stored: more than
8 bits, CMYK, Lab, palettes, animations, several pages, gain maps, raw files, formats that Pillow does not
read or of which it does not tell enough (JPEG XL, HEIF, PSD, icons, ...). Reading changes no global state (no
Pillow limit, no registry, no warning filter) and works from any number of threads.
"""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from lichen.models.codec import Pixels
from lichen.models.errors import (
    CorruptArchive,
    NotAPicture,
    UndecodablePicture,
    UnsupportedPicture,
    UsageError,
)
from lichen.pipeline import formats
from lichen.pipeline.side import Alpha, Block, HasSide, Side, pack_side, unpack_side

__all__ = [
    "MAX_PIXELS",
    "MODES",
    "Picture",
    "Side",
    "grey_plane",
    "pack_side",
    "read_picture",
    "save_picture",
    "to_pil",
    "unpack_side",
]

MAX_PIXELS = 1 << 28
"""Default limit of pixels in one picture; a file that declares more is taken for a decompression bomb."""

MODES = ("L", "LA", "RGB", "RGBA")

_OPENERS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WEBP": WebPImagePlugin.WebPImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "TGA": TgaImagePlugin.TgaImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
    "JPEG2000": Jpeg2KImagePlugin.Jpeg2KImageFile,
}

_TGA_EXTENSIONS = ("tga", "icb", "vda", "vst")

PILLOW_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    struct.error,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    AssertionError,
    ZeroDivisionError,
    OverflowError,
    RecursionError,
    RuntimeError,
    MemoryError,
    Image.DecompressionBombError,
    Warning,  # where a process turns warnings into errors
)
"""What Pillow's plugins raise on damaged files, by their source and by fuzzing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A decoded picture file.

    ``pixels`` is (height, width, 3) uint8 RGB, grey replicated; ``mode`` says what came in and must come out;
    ``alpha`` is (height, width) uint8 for LA and RGBA. ``exif`` is the TIFF structure without prefix.
    """

    pixels: Pixels
    mode: str
    alpha: Alpha | None = None
    exif: bytes | None = None
    icc: bytes | None = None
    xmp: bytes | None = None
    blocks: tuple[Block, ...] = ()
    source_format: str
    bit_depth: int = 8


def read_picture(data: bytes, *, name: str = "", max_pixels: int = MAX_PIXELS) -> Picture:
    """Decode a picture file; ``name`` helps only where the content does not tell the format.

    Raises ``NotAPicture`` when neither content nor name claims a picture format, ``UnsupportedPicture`` when
    8-bit pixels with side data would not mean the same, ``UndecodablePicture`` for a damaged file or one that
    declares more than ``max_pixels``. Never raises anything else.
    """
    file_format = _classify(data, name)
    try:
        return _read(data, file_format, max_pixels)
    except PILLOW_ERRORS as error:
        raise UndecodablePicture(f"{file_format} does not decode: {_message(error)}") from error


def to_pil(pixels: Pixels, mode: str, side: HasSide | None = None) -> Image.Image:
    """A Pillow image of the picture's own mode, with EXIF (and so orientation), ICC and XMP in ``info``.

    Raises ``CorruptArchive`` when the alpha plane is missing or of another size.
    """
    if mode not in MODES:
        raise CorruptArchive(f"unknown picture mode {mode!r}")
    side = side or Side()
    image = Image.fromarray(pixels)
    if mode in ("L", "LA"):
        image = image.convert("L")
    if mode in ("LA", "RGBA"):
        if side.alpha is None or side.alpha.shape != pixels.shape[:2]:
            raise CorruptArchive("the alpha plane is missing or has another size than the picture")
        image.putalpha(Image.fromarray(side.alpha))
    if side.exif is not None:
        image.info["exif"] = b"Exif\0\0" + side.exif
        # Pillow parses EXIF on the first getexif() and raises if it is malformed, but not a second time.
        # Whoever asks such a picture for its orientation should get none, as from the original file.
        with contextlib.suppress(*PILLOW_ERRORS):
            image.getexif()
    if side.icc is not None:
        image.info["icc_profile"] = side.icc
    if side.xmp is not None:
        image.info["xmp"] = side.xmp
    return image


def save_picture(
    image: Image.Image,
    file: Any,
    file_format: str = "PNG",
    *,
    blocks: tuple[Block, ...] = (),
    **settings: Any,
) -> None:
    """Write a Pillow image to a path or binary file, with the EXIF, ICC and XMP of its ``info``.

    ``blocks`` of the same format (PNG chunks, JPEG segments) are put back as far as Pillow writes them. JPEG has
    no alpha: such a picture raises ``UsageError`` instead of losing it silently.
    """
    for key in ("exif", "icc_profile", "xmp"):
        if image.info.get(key):
            settings.setdefault(key, image.info[key])
    if density := _density(file_format, dict(blocks)):
        settings.setdefault("dpi", density)
    if file_format == "PNG":
        settings["pnginfo"] = _png_info(blocks, settings.pop("xmp", None))
    elif file_format == "JPEG":
        if image.mode not in ("L", "RGB"):
            raise UsageError(f"JPEG cannot hold mode {image.mode}; use PNG or WebP")
        if extra := _jpeg_segments(blocks):
            settings["extra"] = extra
    try:
        image.save(file, file_format, **settings)
    except KeyError as error:
        raise UsageError(f"unknown picture format {file_format!r}") from error
    except PILLOW_ERRORS as error:
        raise UsageError(f"{file_format} cannot hold this picture: {error}") from error


def grey_plane(pixels: Pixels) -> NDArray[np.uint8]:
    """The (height, width) uint8 grey plane of RGB pixels (ITU-R 601 weights, as Pillow's mode L)."""
    return np.asarray(Image.fromarray(pixels).convert("L"))


def _classify(data: bytes, name: str) -> str:
    file_format = formats.sniff(data)
    claim = formats.extension(name)
    if claim in _TGA_EXTENSIONS and file_format in (None, "ICO", "CUR"):
        return "TGA"  # the one format without a signature; some of its headers look like icons
    if file_format in ("TIFF", "RAW") and formats.is_raw_name(name):
        raise UnsupportedPicture("a camera's raw file")
    if file_format is None:
        if claim not in formats.EXTENSIONS:
            raise NotAPicture("neither content nor name says that this is a picture")
        raise UndecodablePicture(f"named .{claim}, but its content is of no picture format")
    if file_format not in _OPENERS:
        raise UnsupportedPicture(f"{file_format} files are kept as they are")
    return file_format


def _read(data: bytes, file_format: str, max_pixels: int) -> Picture:
    blocks: list[Block] = []
    if file_format == "WEBP":
        _check_size(formats.examine_webp(data), max_pixels)
    elif examine := _EXAMINERS.get(file_format):
        blocks = examine(data) or []
    with _OPENERS[file_format](io.BytesIO(data)) as image:
        _check_size(image.size, max_pixels)
        if image.mode not in MODES:
            raise UnsupportedPicture(f"pixels of mode {image.mode}")
        if getattr(image, "n_frames", 1) != 1:
            raise UnsupportedPicture("several pages, or an animation")
        exif: bytes | None
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            _check_tiff(image)
            exif, blocks = _tiff_exif(image), _tiff_blocks(image)
        image.load()
        if not isinstance(image, TiffImagePlugin.TiffImageFile):
            exif = _exif_bytes(image.info)  # in PNG it may come after the pixels
        icc, xmp = image.info.get("icc_profile"), image.info.get("xmp")
        pixels, mode, alpha = _pixels(image)
    return Picture(
        pixels=pixels,
        mode=mode,
        alpha=alpha,
        exif=exif,
        icc=icc if isinstance(icc, bytes) and icc else None,
        xmp=xmp if isinstance(xmp, bytes) and xmp else None,
        blocks=tuple(blocks),
        source_format=file_format,
    )


_EXAMINERS: dict[str, Callable[[bytes], list[Block] | None]] = {
    "JPEG": formats.examine_jpeg,
    "PNG": formats.examine_png,
    "AVIF": formats.examine_avif,
    "JPEG2000": formats.examine_jpeg2000,
    "PPM": formats.examine_ppm,
    "BMP": formats.examine_bmp,
}


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise UndecodablePicture(f"the file declares {width}x{height} pixels")
    if width * height > max_pixels:
        raise UndecodablePicture(f"{width}x{height} pixels exceed the limit of {max_pixels}")


def _message(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _pixels(image: Image.Image) -> tuple[Pixels, str, Alpha | None]:
    """Pixels, mode and alpha of a loaded image in one of ``MODES``; the arrays own their memory."""
    samples = np.array(image, dtype=np.uint8)
    transparent = image.info.get("transparency")
    if image.mode == "RGB":
        if not isinstance(transparent, tuple):
            return samples, "RGB", None
        hidden = (samples == np.array(transparent, np.int64)).all(axis=2)
        return samples, "RGBA", np.where(hidden, 0, 255).astype(np.uint8)
    if image.mode == "RGBA":
        return np.ascontiguousarray(samples[:, :, :3]), "RGBA", np.ascontiguousarray(samples[:, :, 3])
    grey = samples if image.mode == "L" else samples[:, :, 0]
    pixels = np.repeat(grey[:, :, None], 3, axis=2)
    if image.mode == "LA":
        return pixels, "LA", np.ascontiguousarray(samples[:, :, 1])
    if isinstance(transparent, int):
        return pixels, "LA", np.where(grey == transparent, 0, 255).astype(np.uint8)
    return pixels, "L", None


def _exif_bytes(info: dict[Any, Any]) -> bytes | None:
    exif = info.get("exif")
    if exif is None and isinstance(profile := info.get("Raw profile type exif"), str):
        # ImageMagick's older way in PNG: a line break, "exif", the length, and hexadecimal digits
        exif = bytes.fromhex("".join(profile.split("\n")[3:]))
    if not isinstance(exif, bytes):
        return None
    return exif.removeprefix(b"Exif\0\0") or None


# --- TIFF ----------------------------------------------------------------------------------------

# Layout of the pixels, used up by decoding.
_TIFF_STRUCTURE = {254, 256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 292, 293, 297, 317}
_TIFF_STRUCTURE |= {322, 323, 324, 325, 338, 339, 347, 529, 530, 531, 532}
# Rewritten as EXIF, which has the same tags.
_TIFF_DESCRIPTION = {269, 270, 271, 272, 282, 283, 285, 296, 301, 305, 306, 315, 316, 318, 319, 33432}
_TIFF_EXIF_IFD, _TIFF_GPS_IFD, _TIFF_XMP, _TIFF_ICC = 34665, 34853, 700, 34675
_TIFF_BLOCKS = {33723: "tiff:IPTC", 34377: "tiff:8BIM"}
_TIFF_KEPT = _TIFF_STRUCTURE | _TIFF_DESCRIPTION | set(_TIFF_BLOCKS)
_TIFF_KEPT |= {_TIFF_EXIF_IFD, _TIFF_GPS_IFD, _TIFF_XMP, _TIFF_ICC}


def _check_tiff(image: TiffImagePlugin.TiffImageFile) -> None:
    tags = image.tag_v2
    depths, samples = tags.get(258, (1,)), tags.get(339, (1,))
    if set(depths if isinstance(depths, tuple) else (depths,)) != {8}:
        raise UnsupportedPicture(f"a TIFF of {depths} bits a sample")
    if set(samples if isinstance(samples, tuple) else (samples,)) != {1}:
        raise UnsupportedPicture("a TIFF of signed or floating-point samples")
    if tags.get(262) not in (1, 2, 6):
        raise UnsupportedPicture(f"a TIFF of photometric interpretation {tags.get(262)}")
    extra = tags.get(338, ())
    if (extra if isinstance(extra, tuple) else (extra,)) not in ((), (2,)):
        raise UnsupportedPicture("a TIFF with premultiplied alpha or unknown extra samples")
    if lost := sorted(set(tags) - _TIFF_KEPT):
        raise UnsupportedPicture(f"TIFF tags that would be lost: {lost[:8]}")
    if tags.get(274, 1) != 1 and b"tiff:Orientation" in (image.info.get("xmp") or b""):
        raise UnsupportedPicture("a TIFF whose orientation is also in its XMP")


def _tiff_exif(image: TiffImagePlugin.TiffImageFile) -> bytes | None:
    source = image.getexif()
    exif = Image.Exif()
    for tag in sorted(_TIFF_DESCRIPTION & set(source)):
        exif[tag] = source[tag]
    for tag in (_TIFF_EXIF_IFD, _TIFF_GPS_IFD):
        if values := source.get_ifd(tag):
            exif.get_ifd(tag).update(values)
            exif[tag] = 0  # the writer fills in the offset of a directory whose tag is there
    return exif.tobytes().removeprefix(b"Exif\0\0") if exif else None


def _tiff_blocks(image: TiffImagePlugin.TiffImageFile) -> list[Block]:
    blocks: list[Block] = []
    for tag, name in _TIFF_BLOCKS.items():
        value = image.tag_v2.get(tag)
        if isinstance(value, bytes):
            blocks.append((name, value))
        elif value is not None:
            raise UnsupportedPicture(f"a TIFF whose tag {tag} is of an unusual type")
    return blocks


# --- writing -------------------------------------------------------------------------------------


def _density(file_format: str, blocks: dict[str, bytes]) -> tuple[float, float] | None:
    """Dots per inch from the block that Pillow writes only by itself."""
    if file_format == "PNG" and len(content := blocks.get("png:pHYs", b"")) == 9:
        x, y, unit = struct.unpack(">IIB", content)
        return (x * 0.0254, y * 0.0254) if unit == 1 else None
    if file_format == "JPEG" and len(content := blocks.get("jpeg:APP0", b"")) >= 12:
        unit, x, y = struct.unpack(">BHH", content[7:12])
        return (x, y) if unit == 1 else None
    return None


def _png_info(blocks: tuple[Block, ...], xmp: bytes | None) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    if xmp:
        info.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
    for name, content in blocks:
        if name.startswith("png:") and len(name) == 8 and name[4:].isascii() and name[4:].isalpha():
            info.add(name[4:].encode("latin-1"), content)
    return info


def _jpeg_segments(blocks: tuple[Block, ...]) -> bytes:
    out = bytearray()
    for name, content in blocks:
        if name == "jpeg:COM":
            marker = 0xFE
        elif name.startswith("jpeg:APP") and name[8:].isdecimal() and 0 < int(name[8:]) < 16:
            marker = 0xE0 + int(name[8:])
        else:  # APP0 is the writer's own, a trailer has no place here
            continue
        if len(content) <= 65533:
            out += struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
    return bytes(out)
