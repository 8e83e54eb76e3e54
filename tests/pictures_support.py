"""Pictures for tests of reading: made in memory, and the messy files with what must become of them."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lichen.pipeline.pictures.reading import Picture, to_pil
from lichen.pipeline.pictures.side import pack_side, unpack_side

DATA = Path(__file__).parent / "data"
MESSY, CASES = DATA / "messy", DATA / "cases"
UNSUPPORTED, UNDECODABLE = "unsupported", "undecodable"

# file: mode, or the error and a word of its reason
OUTCOMES: dict[str, str | tuple[str, str]] = {
    "made_text_as.png": (UNDECODABLE, "no picture format"),
    "pil_16_bit_noise.tif": (UNSUPPORTED, "I;16"),
    "pil_1_trns.png": (UNSUPPORTED, "1 bits"),
    "pil_apng_mode_16bit.png": (UNSUPPORTED, "16 bits"),
    "pil_apng_mode_palette_alpha.png": (UNSUPPORTED, "palette"),
    "pil_avif_rot2mir1.avif": "RGB",
    "pil_avif_transparency.avif": "RGBA",
    "pil_bmp_b_badwidth.bmp": (UNDECODABLE, "limit"),
    "pil_bmp_g_pal8topdown.bmp": (UNSUPPORTED, "mode P"),
    "pil_bmp_g_rgb24.bmp": "RGB",
    "pil_broken.png": (UNDECODABLE, "ends inside"),
    "pil_broken_data_stream.png": (UNDECODABLE, "checksum"),
    "pil_broken_exif_dpi.jpg": "RGB",
    "pil_bw_gradient.png": "L",
    "pil_decompression_bomb.gif": (UNSUPPORTED, "GIF"),
    "pil_dispose_bgnd.gif": (UNSUPPORTED, "GIF"),
    "pil_exif_imagemagick_orientation.png": "RGB",
    "pil_flower.jpg": "RGB",
    "pil_frozenpond.mpo": (UNSUPPORTED, "MPO"),
    "pil_hopper.Lab.tif": (UNSUPPORTED, "LAB"),
    "pil_hopper_bad_exif.jpg": (UNDECODABLE, "damaged"),
    "pil_hopper_lzw.tif": "RGB",
    "pil_hopper_orientation_3.jpg": "RGB",
    "pil_hopper_orientation_6.jpg": "RGB",
    "pil_hopper_orientation_6.webp": "RGB",
    "pil_hopper_orientation_8.jpg": "RGB",
    "pil_icc-after-SOF.jpg": "L",
    "pil_invalid-exif.jpg": "RGB",
    "pil_multipage.tiff": (UNSUPPORTED, "mode P"),
    "pil_multiple_exif.jpg": "L",
    "pil_orientation_rectangle.jpg": "RGB",
    "pil_pil123p.png": (UNSUPPORTED, "palette"),
    "pil_pil123rgba.png": "RGBA",
    "pil_pil_sample_cmyk.jpg": (UNSUPPORTED, "CMYK"),
    "pil_pil_sample_rgb.jpg": "RGB",
    "pil_png_decompression_dos.png": (UNDECODABLE, "too large"),
    "pil_python.ico": (UNSUPPORTED, "ICO"),
    "pil_tiff_16bit_RGB.tiff": (UNSUPPORTED, "16"),
    "pil_tiff_strip_cmyk_jpeg.tif": (UNSUPPORTED, "CMYK"),
    "pil_transparent.png": "RGBA",
    "pil_transparent.webp": "RGBA",
    "pil_truncated_end_chunk.png": (UNDECODABLE, "end chunk"),
    "pil_truncated_jpeg.jpg": (UNDECODABLE, "truncated"),
    "pil_ultrahdr.jpg": (UNSUPPORTED, "gain map"),
    "pil_xmp_tags_orientation.png": "RGBA",
    "pil_zero_width.gif": (UNSUPPORTED, "GIF"),
    "pngsuite_basn0g16.png": (UNSUPPORTED, "16 bits"),
    "pngsuite_basn3p01.png": (UNSUPPORTED, "palette"),
    "pngsuite_basn4a16.png": (UNSUPPORTED, "16 bits"),
    "pngsuite_ccwn2c08.png": "RGB",
    "pngsuite_tbbn2c16.png": (UNSUPPORTED, "16 bits"),
    "pngsuite_xcrn0g04.png": (UNDECODABLE, "no picture format"),
    "pngsuite_xcsn0g01.png": (UNSUPPORTED, "1 bits"),
    "pngsuite_xs1n0g01.png": (UNDECODABLE, "no picture format"),
}
DECODED = [name for name, outcome in OUTCOMES.items() if isinstance(outcome, str)]
ORIENTATION = 0x0112

rng = np.random.default_rng(5)
RGB = rng.integers(0, 256, (23, 31, 3), dtype=np.uint8)
ALPHA = rng.integers(0, 256, (23, 31), dtype=np.uint8)


def encoded(image: Image.Image, file_format: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **settings)
    return buffer.getvalue()


def round_trip(picture: Picture) -> Image.Image:
    """What an archive with a lossless codec would give back."""
    return to_pil(picture.pixels, picture.mode, unpack_side(pack_side(picture)))


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*one) for one in chunks)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with chunks between its pixels and its end."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (1, 2, 3)).save(buffer, "PNG")
    data = buffer.getvalue()
    return data[:-12] + b"".join(chunk(*one) for one in chunks) + data[-12:]


def png_before_pixels(*chunks: tuple[bytes, bytes]) -> bytes:
    data = png_with()
    at = data.index(b"IDAT") - 4
    return data[:at] + b"".join(chunk(*one) for one in chunks) + data[at:]
