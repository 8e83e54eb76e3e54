"""Pixels with side data back to Pillow images and to files, and what a file format cannot carry."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from PIL import Image, PngImagePlugin

from lichen.errors import CorruptArchive, UnsupportedPicture, UsageError
from lichen.models.codec import Pixels
from lichen.pipeline.pictures.colour import meant_profile
from lichen.pipeline.pictures.directory import check_exif
from lichen.pipeline.pictures.pillow import MODES, PILLOW_ERRORS
from lichen.pipeline.side import Block, HasSide, Side

_MAX_SEGMENT = 65533
_MAX_DENSITY = 65535
_COLOUR_CHUNKS = {"png:cICP", "png:gAMA", "png:cHRM", "png:sRGB"}
"""PNG chunks that tell of colour; where a format has no room for them, a profile says the same."""
_PNG_CHUNKS = _COLOUR_CHUNKS | {"png:sBIT", "png:tIME", "png:bKGD", "png:tEXt", "png:zTXt", "png:iTXt"}
"""What Pillow writes of public chunks; of private ones all."""
_WORDS = {
    "jpeg:COM": "comments",
    "jpeg2000:COM": "comments",
    "jpeg:APP0": "density",
    "jpeg:APP13": "IPTC and Photoshop data",
    "tiff:IPTC": "IPTC and Photoshop data",
    "tiff:8BIM": "IPTC and Photoshop data",
    "png:pHYs": "density",
    "png:tEXt": "texts",
    "png:zTXt": "texts",
    "png:iTXt": "texts",
    "png:tIME": "time of change",
    "jpeg:trailer": "data behind the picture",
    "bmp:trailer": "data behind the picture",
    "bmp:density": "density",
    "tga:id": "comments",
    "tga:trailer": "data behind the picture",
    "ppm:comment": "comments",
    "webp:C2PA": "provenance",
}


def to_pil(pixels: Pixels, mode: str, side: HasSide | None = None) -> Image.Image:
    """A Pillow image of the picture's own mode, with EXIF (and so orientation), ICC and XMP in ``info``.

    Colours that a PNG states in chunks of its own are there as a profile. Raises ``CorruptArchive`` when the alpha
    plane is missing or of another size, or when EXIF would grow beyond measure.
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
        try:
            check_exif(side.exif)
        except UnsupportedPicture as error:
            raise CorruptArchive(f"the EXIF of the picture is a bomb: {error}") from error
        image.info["exif"] = b"Exif\0\0" + side.exif
        # Pillow parses EXIF on the first getexif() and raises if it is malformed, but not a second time.
        # Whoever asks such a picture for its orientation should get none, as from the original file.
        with contextlib.suppress(*PILLOW_ERRORS):
            image.getexif()
    profile = meant_profile(side.icc, side.blocks, grey=mode in ("L", "LA"))
    if profile is not None:
        image.info["icc_profile"] = profile
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

    ``blocks`` of the same format (PNG chunks, JPEG segments) are put back as far as Pillow writes them
    (``not_carried`` tells the rest). JPEG has no alpha: such a picture raises ``UsageError`` instead of losing it
    silently.
    """
    for key in ("exif", "icc_profile", "xmp"):
        if image.info.get(key):
            settings.setdefault(key, image.info[key])
    if density := _density(blocks):
        settings.setdefault("dpi", density)
    if file_format == "PNG":
        settings["pnginfo"] = _png_info(blocks, settings.pop("xmp", None))
    elif file_format == "JPEG":
        if image.mode not in ("L", "RGB"):
            raise UsageError(f"JPEG cannot hold mode {image.mode}; use PNG")
        if extra := _jpeg_segments(blocks):
            settings["extra"] = extra
    try:
        image.save(file, file_format, **settings)
    except KeyError as error:
        raise UsageError(f"unknown picture format {file_format!r}") from error
    except PILLOW_ERRORS as error:
        raise UsageError(f"{file_format} cannot hold this picture: {error}") from error


def not_carried(blocks: Sequence[Block], file_format: str) -> set[str]:
    """What of a picture ``save_picture`` cannot write in a format, in words."""
    carried = set(_chunks(blocks)) if file_format == "PNG" else set()
    if file_format == "JPEG":
        carried = {block for block, _ in _segments(blocks)}
    left = {name for name, content in blocks if (name, content) not in carried}
    if file_format != "PNG":
        left -= _COLOUR_CHUNKS
    if _density(blocks):
        left -= {"png:pHYs", "jpeg:APP0", "bmp:density"}
    return {_WORDS.get(name, name) for name in left}


def _density(blocks: Sequence[Block]) -> tuple[float, float] | None:
    """Dots per inch from the blocks that Pillow writes only by itself; None where formats have no number for them."""
    x, y, scale = 0, 0, 0.0
    for name, content in blocks:
        if name == "png:pHYs" and len(content) == 9:
            x, y, unit = struct.unpack(">IIB", content)
            scale = {1: 0.0254}.get(unit, 0.0)
        elif name == "jpeg:APP0" and len(content) >= 12:
            unit, x, y = struct.unpack(">BHH", content[7:12])
            scale = {1: 1.0, 2: 2.54}.get(unit, 0.0)
        elif name == "bmp:density" and len(content) == 8:
            (x, y), scale = struct.unpack("<II", content), 0.0254
    return (x * scale, y * scale) if all(1 <= value * scale < _MAX_DENSITY for value in (x, y)) else None


def _png_info(blocks: Sequence[Block], xmp: bytes | None) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    if xmp:
        info.add_itxt("XML:com.adobe.xmp", xmp.decode("utf-8", "replace"))
    for name, content in _chunks(blocks):
        info.add(name[4:].encode("latin-1"), content)
    return info


def _chunks(blocks: Sequence[Block]) -> Iterator[Block]:
    """Blocks that are chunks of a PNG which Pillow writes."""
    for name, content in blocks:
        is_chunk = name.startswith("png:") and len(name) == 8 and name[4:].isascii() and name[4:].isalpha()
        if is_chunk and (name in _PNG_CHUNKS or name[5].islower()):
            yield name, content


def _jpeg_segments(blocks: Sequence[Block]) -> bytes:
    out = bytearray()
    for (_, content), marker in _segments(blocks):
        out += struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
    return bytes(out)


def _segments(blocks: Sequence[Block]) -> Iterator[tuple[Block, int]]:
    """Blocks that are segments of a JPEG, with their markers."""
    for name, content in blocks:
        if name == "jpeg:COM":
            marker = 0xFE
        elif name.startswith("jpeg:APP") and name[8:].isdecimal() and 0 < int(name[8:]) < 16:
            marker = 0xE0 + int(name[8:])
        else:  # APP0 is the writer's own, a trailer has no place here
            continue
        if len(content) <= _MAX_SEGMENT:
            yield (name, content), marker
