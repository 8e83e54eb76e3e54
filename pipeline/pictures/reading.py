"""Picture files to pixels and back, with everything that belongs to a picture.

What the codec path takes: 8-bit grey or RGB, with or without alpha, one picture a file, from JPEG, PNG, WebP,
AVIF, TIFF, BMP, TGA, Netpbm and JPEG 2000. EXIF, ICC and XMP are kept byte for byte (TIFF's own tags are
rewritten as EXIF), other metadata as blocks. Orientation stays a tag and pixels are not
rotated. (Only TIFF is different: Pillow turns its pixels upright on loading, and the tag goes.) A transparent
colour (PNG ``tRNS`` on grey or RGB) becomes an exact alpha plane.

Everything else that is a picture is refused with a reason, so that its original bytes are stored: more than
8 bits, HDR, CMYK, Lab, palettes, animations, several pages, gain maps, raw files, formats that Pillow does not
read or of which it does not tell enough (JPEG XL, HEIF, PSD, icons, ...), and damaged files, even if a decoder makes
something of them. Reading changes no global state (no Pillow limit, no registry, no warning filter) and works from
any number of threads.

Pillow is a fine decoder but a careless witness: it silently cuts 16-bit colours to 8, shows the first of
many pictures, fills what is missing with grey, and does not mention a gain map or a film behind the photograph. So
before it sees a file, the examiners in ``pictures`` read the container itself: they raise ``UnsupportedPicture``
when decoding to 8-bit pixels would lose meaning, ``UndecodablePicture`` for what is cut or asks for too much, and
collect the metadata that Pillow drops as blocks for the side data.
"""

from __future__ import annotations

import io
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

from lichen.errors import DamagedPicture, NotAPicture, UndecodablePicture, UnsupportedPicture
from lichen.models.codec import Pixels
from lichen.pipeline import formats
from lichen.pipeline.pictures import avif, jpeg, jpeg2000, png, raster, tiff, webp
from lichen.pipeline.pictures.directory import check_exif
from lichen.pipeline.pictures.limits import MAX_PIXELS, check_metadata, check_size
from lichen.pipeline.pictures.pillow import MODES, PILLOW_ERRORS, message
from lichen.pipeline.pictures.saving import save_picture, to_pil
from lichen.pipeline.pictures.side import Alpha, Block, Side, pack_side, unpack_side

__all__ = [
    "MAX_PIXELS",
    "MODES",
    "PILLOW_ERRORS",
    "Picture",
    "Side",
    "check_openable",
    "grey_plane",
    "pack_side",
    "read_picture",
    "save_picture",
    "to_pil",
    "unpack_side",
]

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

_EXAMINERS: dict[str, Callable[[bytes, int], list[Block]]] = {
    "JPEG": jpeg.examine_jpeg,
    "PNG": png.examine_png,
    "WEBP": webp.examine_webp,
    "AVIF": avif.examine_avif,
    "TIFF": tiff.examine_tiff,
    "BMP": raster.examine_bmp,
    "TGA": raster.examine_tga,
    "PPM": raster.examine_ppm,
    "JPEG2000": jpeg2000.examine_jpeg2000,
}
"""Blocks of a file, given how many pixels it may have."""

_WHOLLY_READ = ("JPEG", "PNG", "WEBP", "AVIF", "PPM")
"""Formats of which Pillow decodes every file that the examiners let pass: if it does not, the file is damaged."""
_NOT_THE_FILE = (MemoryError, RuntimeError, Warning)

_TGA_EXTENSIONS = ("tga", "icb", "vda", "vst")


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
    8-bit pixels with side data would not mean the same, ``UndecodablePicture`` for a file that does not decode or
    declares more than ``max_pixels`` or than its decoder could do in reasonable time, and of these
    ``DamagedPicture`` where it is known that data are missing or damaged. Never raises anything else.
    """
    file_format = _classify(data, name)
    try:
        return _read(data, file_format, max_pixels)
    except PILLOW_ERRORS as error:
        said = f"{file_format} does not decode: {message(error)}"
        if file_format in _WHOLLY_READ and not isinstance(error, _NOT_THE_FILE):
            raise DamagedPicture(said) from error
        raise UndecodablePicture(said) from error


def check_openable(data: bytes, *, name: str = "", max_pixels: int = MAX_PIXELS) -> None:
    """Raise ``UndecodablePicture`` for a file that would cost its decoder more memory or time than its size allows.

    For files that are to be shown whatever they are: what ``read_picture`` refuses for other reasons may pass.
    """
    try:
        file_format = _classify(data, name)
        _EXAMINERS[file_format](data, max_pixels)
    except (DamagedPicture, UnsupportedPicture, NotAPicture):
        pass  # Pillow may know better, within limits of its own
    except PILLOW_ERRORS as error:
        raise UndecodablePicture(f"{message(error)}") from error


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
            if (kind := formats.container(data)) is not None:
                raise NotAPicture(f"no picture, but {kind}")
            raise NotAPicture("neither content nor name says that this is a picture")
        raise UndecodablePicture(f"named .{claim}, but its content is of no picture format")
    if file_format not in _OPENERS:
        raise UnsupportedPicture(f"{file_format} files are kept as they are")
    return file_format


def _read(data: bytes, file_format: str, max_pixels: int) -> Picture:
    blocks = _EXAMINERS[file_format](data, max_pixels)
    with _OPENERS[file_format](io.BytesIO(data)) as image:
        check_size(*image.size, max_pixels)
        if image.mode not in MODES:
            raise UnsupportedPicture(f"pixels of mode {image.mode}")
        exif: bytes | None
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            if tiff.has_pages(data):
                raise UnsupportedPicture("several pages, or an animation")
            tiff.check_tags(image)
            exif, blocks = tiff.exif_of(image), tiff.blocks_of(image)
        elif getattr(image, "n_frames", 1) != 1:
            raise UnsupportedPicture("several pages, or an animation")
        image.load()
        if not isinstance(image, TiffImagePlugin.TiffImageFile):
            exif = _exif_bytes(image.info)  # in PNG it may come after the pixels
        icc, xmp = (value if isinstance(value, bytes) and value else None for value in map(image.info.get, _INFO))
        check_metadata(blocks, exif, icc, xmp)
        pixels, mode, alpha = _pixels(image)
    return Picture(
        pixels=pixels,
        mode=mode,
        alpha=alpha,
        exif=exif,
        icc=icc,
        xmp=xmp,
        blocks=tuple(blocks),
        source_format=file_format,
    )


_INFO = ("icc_profile", "xmp")


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
    exif = exif.removeprefix(b"Exif\0\0")
    check_exif(exif)
    return exif or None
