"""Reading picture files: every messy file ends in one of three errors or in pixels equal to Pillow's own."""

from __future__ import annotations

import io
import random
import struct
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile, PngImagePlugin

from lichen.models.codec import Pixels
from lichen.models.errors import (
    CorruptArchive,
    NotAPicture,
    UndecodablePicture,
    UnsupportedPicture,
    UsageError,
)
from lichen.pipeline.images import Picture, grey_plane, read_picture, save_picture, to_pil
from lichen.pipeline.side import MAX_SECTION, Side, pack_side, unpack_side

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

DATA = Path(__file__).parents[1] / "data"
MESSY = DATA / "messy"
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
    "pil_hopper_bad_exif.jpg": "L",
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
    out = b"\x89PNG\r\n\x1a\n"
    for kind, content in chunks:
        out += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return out


# --- the messy files -----------------------------------------------------------------------------


def test_every_messy_file_has_an_outcome() -> None:
    assert {path.name for path in MESSY.iterdir()} == {*OUTCOMES, "README.md"}


@pytest.mark.parametrize("name", [name for name in OUTCOMES if name not in DECODED])
def test_messy_file_is_refused(name: str) -> None:
    outcome = OUTCOMES[name]
    assert not isinstance(outcome, str)
    kind, reason = outcome
    error = UnsupportedPicture if kind == UNSUPPORTED else UndecodablePicture
    with pytest.raises(error, match=reason):
        read_picture((MESSY / name).read_bytes(), name=name)


@pytest.mark.parametrize("name", DECODED)
def test_messy_file_comes_back(name: str) -> None:
    data = (MESSY / name).read_bytes()
    picture = read_picture(data, name=name)
    with Image.open(io.BytesIO(data)) as original:
        orientation = original.getexif().get(ORIENTATION)
        original.load()
    assert picture.mode == OUTCOMES[name] == original.mode
    assert picture.source_format == original.format
    assert picture.pixels.dtype == np.uint8
    assert picture.pixels.flags.c_contiguous
    back = round_trip(picture)
    assert (back.mode, back.size) == (original.mode, original.size)
    assert np.array_equal(np.asarray(back), np.asarray(original))
    assert back.getexif().get(ORIENTATION, 1) == (orientation or 1)
    for key in ("icc_profile", "xmp"):
        assert back.info.get(key) == (original.info.get(key) or None)
    if "exif" in original.info:
        assert back.info["exif"].removeprefix(b"Exif\0\0") == original.info["exif"].removeprefix(b"Exif\0\0")


def test_the_content_decides_not_the_name() -> None:
    data = (MESSY / "pil_hopper_orientation_6.webp").read_bytes()
    for name in ("", "x", "x.jpg", "x.exe"):
        assert read_picture(data, name=name).source_format == "WEBP"


def test_what_is_no_picture() -> None:
    for data in (b"", b"hello", b"%PDF-1.7", b"BMW is a car", b"<svg/>", bytes(500), b"\0\0\0\x18ftypisom"):
        with pytest.raises(NotAPicture):
            read_picture(data, name="notes.txt")
        with pytest.raises(UndecodablePicture):
            read_picture(data, name="A/B.JPEG")


# --- modes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["PNG", "TIFF", "TGA"])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_lossless_formats_in_every_mode(file_format: str, mode: str) -> None:
    image = Image.fromarray(RGB)
    image.putalpha(Image.fromarray(ALPHA))
    image = image.convert(mode)
    picture = read_picture(encoded(image, file_format), name=f"x.{file_format.lower()}")
    assert (picture.mode, picture.bit_depth) == (mode, 8)
    assert (picture.alpha is None) == (mode in ("L", "RGB"))
    assert np.array_equal(np.asarray(round_trip(picture)), np.asarray(image))


@pytest.mark.parametrize("file_format", ["PPM", "BMP", "JPEG2000", "WEBP", "AVIF"])
def test_other_formats(file_format: str) -> None:
    data = encoded(Image.fromarray(RGB), file_format)
    picture = read_picture(data)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(picture.pixels, np.asarray(image))
    assert picture.source_format == file_format


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [
        *(("1", "PNG"), ("P", "PNG"), ("I;16", "PNG"), ("CMYK", "JPEG"), ("CMYK", "TIFF"), ("F", "TIFF")),
        *(("I", "TIFF"), ("LAB", "TIFF"), ("1", "TIFF"), ("P", "BMP"), ("L", "GIF"), ("1", "PPM")),
    ],
)
def test_modes_that_stay_as_they_are(mode: str, file_format: str) -> None:
    with pytest.raises(UnsupportedPicture):
        read_picture(encoded(Image.new(mode, (9, 7)), file_format))


def test_many_pictures_in_one_file() -> None:
    frames = [Image.fromarray(RGB), Image.fromarray(255 - RGB)]
    for file_format in ("TIFF", "WEBP", "PNG", "GIF", "AVIF", "MPO"):
        data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:])
        with pytest.raises(UnsupportedPicture):
            read_picture(data)
    two = encoded(frames[0], "PPM") + encoded(frames[1], "PPM")
    with pytest.raises(UnsupportedPicture):
        read_picture(two)


def test_transparent_colours_become_alpha() -> None:
    pixels = RGB.copy()
    pixels[3:7, 4:9] = (10, 20, 30)
    data = encoded(Image.fromarray(pixels), "PNG", transparency=(10, 20, 30))
    picture = read_picture(data)
    with Image.open(io.BytesIO(data)) as image:
        assert picture.mode == "RGBA"
        assert np.array_equal(np.asarray(round_trip(picture)), np.asarray(image.convert("RGBA")))
    data = encoded(Image.fromarray(pixels[:, :, 0]), "PNG", transparency=10)
    picture = read_picture(data)
    with Image.open(io.BytesIO(data)) as image:
        assert picture.mode == "LA"
        assert np.array_equal(np.asarray(round_trip(picture)), np.asarray(image.convert("LA")))


def test_hidden_bits_and_colours() -> None:
    """What Pillow would silently cut or misread."""
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    deep = png((b"IHDR", header), (b"IDAT", zlib.compress(bytes(2 * 13))), (b"IEND", b""))
    avif = encoded(Image.fromarray(RGB), "AVIF")
    ten_bits = bytearray(avif)
    ten_bits[avif.index(b"av1C") + 6] |= 0x40
    bt2020_pq = bytearray(avif)
    colour = avif.index(b"colrnclx") + 8
    bt2020_pq[colour : colour + 4] = struct.pack(">HH", 9, 16)
    ppm = b"P6 2 2 127\n" + bytes(12)
    jpeg = encoded(Image.fromarray(RGB), "JPEG")
    film = jpeg + b"\0\0\0\x18ftypmp42" + bytes(100)
    second = jpeg + jpeg
    for data in (deep, bytes(ten_bits), bytes(bt2020_pq), ppm, film, second):
        with pytest.raises(UnsupportedPicture):
            read_picture(data)


def test_appended_previews_are_no_second_picture() -> None:
    preview = Image.fromarray(255 - RGB)
    data = bytearray(encoded(Image.fromarray(RGB), "MPO", save_all=True, append_images=[preview]))
    with pytest.raises(UnsupportedPicture, match="MPO"):
        read_picture(bytes(data))
    index = data.index(b"MPF\0") + 4
    entries = data.index(struct.pack("<HHI", 0xB002, 7, 32), index)
    kind = index + struct.unpack_from("<I", data, entries + 8)[0] + 16  # of the second entry
    struct.pack_into("<I", data, kind, 0x010002)  # a full HD preview
    picture = read_picture(bytes(data))
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(picture.pixels, np.asarray(image))
    assert picture.blocks == ()
    for rest in (bytes(range(256)) * 300, b"\0\0\0\x18ftypmp42" + bytes(9000)):  # more than the index tells
        with pytest.raises(UnsupportedPicture, match="follow"):
            read_picture(bytes(data) + rest)
    struct.pack_into("<I", data, index + 4, 1 << 31)
    with pytest.raises(UnsupportedPicture, match="MPO"):
        read_picture(bytes(data))


def test_raw_files_are_no_thumbnails() -> None:
    data = encoded(Image.fromarray(RGB), "TIFF")
    for name in ("a.dng", "B.NEF", "c/d.cr2"):
        with pytest.raises(UnsupportedPicture, match="raw"):
            read_picture(data, name=name)


# --- metadata ------------------------------------------------------------------------------------


def exif_bytes(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[0x010F] = "Maker"
    return exif.tobytes()


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 7])
def test_metadata_survives(file_format: str, orientation: int) -> None:
    icc, xmp = b"profile" * 40, b"<x:xmpmeta>\xc3\xa9</x:xmpmeta>"
    settings: dict[str, Any] = {"exif": exif_bytes(orientation), "icc_profile": icc}
    if file_format == "PNG":
        settings["pnginfo"] = PngImagePlugin.PngInfo()
        settings["pnginfo"].add_itxt("XML:com.adobe.xmp", xmp.decode())
    else:
        settings["xmp"] = xmp
    data = encoded(Image.fromarray(RGB), file_format, **settings)
    picture = read_picture(data)
    back = round_trip(picture)
    assert (picture.icc, picture.xmp) == (icc, xmp)
    assert back.size == (31, 23)
    assert back.getexif().get(ORIENTATION, 1) == orientation
    assert back.getexif()[0x010F] == "Maker"
    for target in ("JPEG", "PNG", "WEBP"):
        buffer = io.BytesIO()
        save_picture(back, buffer, target)
        with Image.open(buffer) as exported:
            assert exported.getexif().get(ORIENTATION, 1) == orientation
            assert exported.info["icc_profile"] == icc
            assert exported.info["xmp"] == xmp


def test_other_blocks_survive() -> None:
    photoshop = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\x04iptc"
    segment = b"\xff\xed" + struct.pack(">H", 2 + len(photoshop)) + photoshop
    jpeg = encoded(Image.fromarray(RGB), "JPEG", comment=b"hello", extra=segment, dpi=(300, 300))
    picture = read_picture(jpeg + b"tail")
    names = dict(picture.blocks)
    assert names["jpeg:COM"] == b"hello"
    assert names["jpeg:APP13"] == photoshop
    assert names["jpeg:trailer"] == b"tail"
    assert struct.unpack(">HH", names["jpeg:APP0"][8:12]) == (300, 300)
    side = unpack_side(pack_side(picture))
    assert side.blocks == picture.blocks
    buffer = io.BytesIO()
    save_picture(round_trip(picture), buffer, "JPEG", blocks=side.blocks)
    again = dict(read_picture(buffer.getvalue()).blocks)
    assert (again["jpeg:COM"], again["jpeg:APP13"]) == (b"hello", photoshop)
    assert again["jpeg:APP0"][7:12] == names["jpeg:APP0"][7:12]

    info = PngImagePlugin.PngInfo()
    info.add_text("Title", "Lichen on a stone")
    picture = read_picture(encoded(Image.fromarray(RGB), "PNG", pnginfo=info, dpi=(300, 300)))
    buffer = io.BytesIO()
    save_picture(round_trip(picture), buffer, "PNG", blocks=picture.blocks)
    with Image.open(buffer) as exported:
        assert exported.text == {"Title": "Lichen on a stone"}  # type: ignore[attr-defined]
        assert round(exported.info["dpi"][0]) == 300


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png_with(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG with chunks between its pixels and its end."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (1, 2, 3)).save(buffer, "PNG")
    data = buffer.getvalue()
    return data[:-12] + b"".join(_chunk(*chunk) for chunk in chunks) + data[-12:]


def test_exif_behind_the_pixels_counts() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = read_picture(_png_with((b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))))
    assert round_trip(picture).getexif()[0x0112] == 6


def test_what_would_hide_or_lose_a_profile_is_refused() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert read_picture(_png_before_pixels((b"iCCP", b"p\0\0" + zlib.compress(profile)))).icc == profile
    for chunk in (
        (b"iCCP", b"p\0\0" + zlib.compress(profile)[:-20]),
        (b"tEXt", b"icc_profile\0none"),
        (b"tEXt", b"transparency\0none"),
    ):
        with pytest.raises(UnsupportedPicture):
            read_picture(_png_before_pixels(chunk))
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, "JPEG", icc_profile=profile)
    data = buffer.getvalue()
    assert read_picture(data).icc == profile
    at = data.index(b"ICC_PROFILE\0") + 13
    with pytest.raises(UnsupportedPicture, match="profile"):
        read_picture(data[:at] + b"\x07" + data[at + 1 :])


def _png_before_pixels(*chunks: tuple[bytes, bytes]) -> bytes:
    data = _png_with()
    at = data.index(b"IDAT") - 4
    return data[:at] + b"".join(_chunk(*chunk) for chunk in chunks) + data[at:]


def test_bitmaps_with_profiles_and_more_behind_them() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (1, 2, 3)).save(buffer, "BMP")
    plain = buffer.getvalue()
    pixels = plain[54:]

    def bmp(space: bytes, rest: bytes = b"", endpoints: bytes = bytes(48)) -> bytes:
        header = plain[14:54].replace(struct.pack("<I", 40), struct.pack("<I", 124), 1)
        header += struct.pack("<4I", 0xFF0000, 0xFF00, 0xFF, 0) + space + endpoints + bytes(16)
        assert len(header) == 124
        return b"BM" + struct.pack("<IHHI", 14 + 124 + len(pixels), 0, 0, 14 + 124) + header + pixels + rest

    for space in (b"BGRs", b" niW", bytes(4)):
        picture = read_picture(bmp(space))
        assert np.array_equal(picture.pixels, read_picture(plain).pixels)
    for space in (b"DEBM", b"KNIL"):
        with pytest.raises(UnsupportedPicture, match="profile"):
            read_picture(bmp(space, b"profile"))
    with pytest.raises(UnsupportedPicture, match="calibration"):
        read_picture(bmp(bytes(4), endpoints=b"\1" * 48))
    assert read_picture(plain + b"a note").blocks == (("bmp:trailer", b"a note"),)
    with pytest.raises(UnsupportedPicture, match="follow"):
        read_picture(plain + b"\xff\xd8\xff another")


def test_a_film_behind_an_avif_picture_is_not_lost() -> None:
    data = (MESSY / "pil_avif_transparency.avif").read_bytes()
    assert read_picture(data).mode == "RGBA"
    read_picture(data + struct.pack(">I", 12) + b"free" + bytes(4))
    for more in (struct.pack(">I", 16) + b"mpvd" + b"12345678", b"ends early"):
        with pytest.raises(UnsupportedPicture, match="something else"):
            read_picture(data + more)


def test_ordinary_files_need_no_side_data() -> None:
    for file_format in ("JPEG", "PNG", "WEBP", "BMP"):
        assert pack_side(read_picture(encoded(Image.fromarray(RGB), file_format))) == b""


def test_tiff_tags() -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0131] = "Scanner", "Software"
    exif.get_ifd(0x8769)[0x9003] = "2026:01:02 03:04:05"
    exif[0x8769] = exif.get_ifd(0x8769)
    data = encoded(Image.fromarray(RGB), "TIFF", exif=exif, icc_profile=b"icc" * 50)
    back = round_trip(read_picture(data))
    assert back.getexif()[0x010F] == "Scanner"
    assert back.getexif().get_ifd(0x8769)[0x9003] == "2026:01:02 03:04:05"
    assert back.info["icc_profile"] == b"icc" * 50
    geo = encoded(Image.fromarray(RGB), "TIFF", tiffinfo={33550: (1.0, 1.0, 0.0)})
    with pytest.raises(UnsupportedPicture, match="33550"):
        read_picture(geo)


def test_tiff_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    picture = read_picture(encoded(Image.fromarray(RGB), "TIFF", exif=exif))
    assert np.array_equal(picture.pixels, np.rot90(RGB, -1))
    assert round_trip(picture).getexif().get(ORIENTATION, 1) == 1


def test_saving_refuses_to_drop_alpha(tmp_path: Path) -> None:
    image = to_pil(RGB, "RGBA", Side(alpha=ALPHA))
    with pytest.raises(UsageError):
        save_picture(image, tmp_path / "x.jpg", "JPEG")
    with pytest.raises(UsageError):
        save_picture(image, tmp_path / "x.foo", "FOO")
    save_picture(image, tmp_path / "x.png", "PNG")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "x.png")), np.dstack([RGB, ALPHA]))


def test_grey_comes_back_grey() -> None:
    grey = np.repeat(RGB[:, :, :1], 3, axis=2)
    assert np.array_equal(grey_plane(grey), RGB[:, :, 0])
    assert to_pil(RGB, "L").mode == "L"


# --- side data -----------------------------------------------------------------------------------


def alphas() -> list[Pixels]:
    soft = np.add.outer(np.arange(90), np.arange(120)).astype(np.uint8)
    long = np.zeros((1, 20000), np.uint8)
    long[0, ::7] = 255
    return [np.full((3, 5), 255, np.uint8), np.zeros((1, 1), np.uint8), ALPHA, soft, long, ALPHA[:1, :2]]


@pytest.mark.parametrize("index", range(6))
def test_alpha_planes_are_lossless_and_small(index: int) -> None:
    alpha = alphas()[index]
    packed = pack_side(Side(alpha=alpha))
    back = unpack_side(packed).alpha
    assert back is not None
    assert np.array_equal(back, alpha)
    assert len(packed) < alpha.size + 40
    if alpha.min() == alpha.max():
        assert len(packed) < 12


def test_side_data_without_alpha() -> None:
    side = Side(exif=b"", icc=b"i" * 3000, xmp=bytes(range(256)), blocks=(("a:b", b""), ("ü", b"x" * 500)))
    assert unpack_side(pack_side(side)) == side
    assert pack_side(Side()) == b""
    assert unpack_side(b"") == Side()


def test_garbage_side_data() -> None:
    """Mutations end in a Side or in CorruptArchive."""
    picture = read_picture((MESSY / "pil_pil_sample_rgb.jpg").read_bytes())
    sources = [pack_side(Side(alpha=alpha, exif=b"e" * 30)) for alpha in alphas()[:4]] + [pack_side(picture)]
    dice = random.Random(3)
    refused = 0
    for round_ in range(1500):
        data = bytearray(sources[round_ % len(sources)])
        if round_ % 4 == 0:
            del data[dice.randrange(len(data)) :]
        for _ in range(dice.randrange(1, 4)):
            if data:
                data[dice.randrange(min(len(data), dice.choice((8, 60, 10_000))))] = dice.randrange(256)
        try:
            side = unpack_side(bytes(data))
        except CorruptArchive:
            refused += 1
        else:
            assert side.alpha is None or side.alpha.ndim == 2
    assert refused > 700


def test_side_data_bombs() -> None:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = squeezer.compress(bytes(1 << 20)) + squeezer.flush()
    length = bytes([0xFF, 0xFF, 0xFF, 0xFF, 0x0F])  # 2^32 - 1
    bombs = [
        b"\1\2\1" + length + bytes([0x80 | len(bomb) & 0x7F, len(bomb) >> 7]) + bomb,  # declared too large
        b"\1\2\1\x05" + bytes([0x80 | len(bomb) & 0x7F, len(bomb) >> 7]) + bomb,  # larger than declared
        b"\1\1\2" + length + length + b"\1\xff",  # a constant alpha plane of 2^64 pixels
        b"\1\2\0" + b"\xff" * 9,
        b"\2rest",
        b"\1\2\0\1\1a\2\0\1\1a",  # twice the same section
        b"\1\x09\0\1\1a",
    ]
    assert MAX_SECTION < 1 << 30
    for data in bombs:
        with pytest.raises(CorruptArchive):
            unpack_side(data)


def test_side_data_of_another_picture() -> None:
    packed = pack_side(Side(alpha=np.full((300, 500), 7, np.uint8)))
    assert len(packed) < 20
    assert unpack_side(packed, (300, 500)).alpha is not None
    with pytest.raises(CorruptArchive, match="another size than the picture"):
        unpack_side(packed, (3, 5))
    nameless = bytes([1, 5, 0, 4, 4]) + bytes(4)
    with pytest.raises(CorruptArchive, match="names"):
        unpack_side(nameless)
    odd = Side(blocks=(("png:\u4e00abc", b"x"), ("png:teXt", b"a\0b")))
    save_picture(Image.new("L", (3, 3)), io.BytesIO(), "PNG", blocks=odd.blocks)


def test_alpha_must_fit() -> None:
    for side in (None, Side(), Side(alpha=ALPHA[:, :5])):
        with pytest.raises(CorruptArchive):
            to_pil(RGB, "RGBA", side)
    with pytest.raises(CorruptArchive):
        to_pil(RGB, "CMYK", Side())


# --- robustness ----------------------------------------------------------------------------------


def test_bombs_are_refused_before_allocation() -> None:
    huge = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    jpeg = bytearray(encoded(Image.fromarray(RGB), "JPEG"))
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, 65000, 65000)
    webp = bytearray(encoded(Image.fromarray(RGB), "WEBP", lossless=True))
    webp[21:25] = b"\xff\xff\xff\x0f"  # 16384 x 16384
    for data in (png((b"IHDR", huge), (b"IDAT", b""), (b"IEND", b"")), bytes(jpeg)):
        with pytest.raises(UndecodablePicture, match="limit"):
            read_picture(data)
    with pytest.raises(UndecodablePicture, match="limit"):
        read_picture(bytes(webp), max_pixels=1 << 27)
    with pytest.raises(UndecodablePicture, match="limit"):
        read_picture(encoded(Image.fromarray(RGB), "AVIF"), max_pixels=23 * 31 - 1)
    assert read_picture(encoded(Image.fromarray(RGB), "PNG"), max_pixels=23 * 31).mode == "RGB"


def test_large_pictures_need_no_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's process-wide limit neither applies nor warns: ours does."""
    data = encoded(Image.fromarray(RGB), "JPEG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_picture(data).pixels.shape == RGB.shape


def test_mutations_raise_only_our_errors() -> None:
    names = [name for name in OUTCOMES if (MESSY / name).stat().st_size < 50_000]
    files = [(name, (MESSY / name).read_bytes()) for name in names]
    dice = random.Random(11)
    outcomes = {"picture": 0, "error": 0}
    for round_ in range(1500):
        name, original = files[round_ % len(files)]
        data = bytearray(original)
        if dice.random() < 0.3:
            del data[dice.randrange(len(data)) :]
        for _ in range(dice.randrange(4)):
            if data:
                reach = min(len(data), dice.choice((64, 512, 100_000)))
                data[dice.randrange(reach)] = dice.choice((0, 127, 255, dice.randrange(256)))
        try:
            picture = read_picture(bytes(data), name=name, max_pixels=1 << 22)
            round_trip(picture)
        except (NotAPicture, UnsupportedPicture, UndecodablePicture):
            outcomes["error"] += 1
        else:
            outcomes["picture"] += 1
    assert min(outcomes.values()) > 100


def test_threads_and_global_state() -> None:
    files = [(name, (MESSY / name).read_bytes()) for name in DECODED]
    alone = [read_picture(data, name=name).pixels for name, data in files]
    before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, list(warnings.filters))
    barrier = threading.Barrier(4)

    def work(_: int) -> bool:
        barrier.wait(timeout=30)
        results = [read_picture(data, name=name).pixels for name, data in files]
        return all(np.array_equal(a, b) for a, b in zip(results, alone, strict=True))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(4)))
    assert before == (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, list(warnings.filters))
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
