"""Metadata of picture files: kept, put back, and refused where it would be lost."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures_support import (
    ALPHA,
    MESSY,
    ORIENTATION,
    RGB,
    encoded,
    png_before_pixels,
    png_with,
    round_trip,
)
from PIL import Image, ImageCms, PngImagePlugin

from lichen.errors import (
    UnsupportedPicture,
    UsageError,
)
from lichen.pipeline.pictures.reading import grey_plane, read_picture, save_picture, to_pil
from lichen.pipeline.pictures.saving import not_carried
from lichen.pipeline.pictures.side import Side, pack_side, unpack_side

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


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


def test_exif_behind_the_pixels_counts() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = read_picture(png_with((b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))))
    assert round_trip(picture).getexif()[0x0112] == 6


def test_what_would_hide_or_lose_a_profile_is_refused() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert read_picture(png_before_pixels((b"iCCP", b"p\0\0" + zlib.compress(profile)))).icc == profile
    for chunk in (
        (b"iCCP", b"p\0\0" + zlib.compress(profile)[:-20]),
        (b"tEXt", b"icc_profile\0none"),
        (b"tEXt", b"transparency\0none"),
    ):
        with pytest.raises(UnsupportedPicture):
            read_picture(png_before_pixels(chunk))
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6)).save(buffer, "JPEG", icc_profile=profile)
    data = buffer.getvalue()
    assert read_picture(data).icc == profile
    at = data.index(b"ICC_PROFILE\0") + 13
    with pytest.raises(UnsupportedPicture, match="profile"):
        read_picture(data[:at] + b"\x07" + data[at + 1 :])


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


def test_chunks_of_a_webp_that_nobody_reads_are_kept() -> None:
    """Such as the provenance of C2PA; and metadata that the header does not announce, which decoders pass over."""

    def with_chunk(data: bytes, kind: bytes, content: bytes) -> bytes:
        body = data[8:] + kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
        return b"RIFF" + struct.pack("<I", len(body)) + body

    plain = encoded(Image.fromarray(RGB), "WEBP")
    full = encoded(
        Image.fromarray(RGB), "WEBP", exif=b"II*\0\x08\0\0\0\0\0\0\0\0\0", icc_profile=b"profile", xmp=b"<x/>"
    )
    assert read_picture(plain).blocks == read_picture(full).blocks == ()
    for data in (plain, full):
        assert read_picture(with_chunk(data, b"C2PA", b"claim")).blocks == (("webp:C2PA", b"claim"),)
    unannounced = read_picture(full[:20] + b"\0" + full[21:])
    assert {name for name, _ in unannounced.blocks} == {"webp:EXIF", "webp:ICCP", "webp:XMP "}
    assert not_carried([("webp:C2PA", b"claim")], "PNG") == {"provenance"}
