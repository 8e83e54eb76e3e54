"""Reading picture files: every messy file ends in one of three errors or in pixels equal to Pillow's own."""

from __future__ import annotations

import io
import random
import struct
import tarfile
import threading
import warnings
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pictures_support import (
    ALPHA,
    DECODED,
    MESSY,
    ORIENTATION,
    OUTCOMES,
    RGB,
    UNSUPPORTED,
    encoded,
    png,
    round_trip,
)
from PIL import Image, ImageFile

from lichen.errors import (
    NotAPicture,
    UndecodablePicture,
    UnsupportedPicture,
)
from lichen.pipeline.pictures.reading import read_picture

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

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


COLOURS_IN_CHUNKS = ("pil_pil123rgba.png", "pngsuite_ccwn2c08.png")
"""PNG files that state linear light (gAMA 100000): a profile is made of it."""


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
    assert picture.icc == (original.info.get("icc_profile") or None)
    assert (back.info.get("icc_profile") == picture.icc) == (name not in COLOURS_IN_CHUNKS)
    assert back.info.get("xmp") == (original.info.get("xmp") or None)
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


def test_files_that_hold_others_are_told_for_what_they_are() -> None:
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as pack:
        pack.writestr("a.png", b"x")
    with tarfile.open(fileobj=tarred, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("a.png"))
    for name, data in {"a.zip": zipped.getvalue(), "a.tar.gz": tarred.getvalue()}.items():
        with pytest.raises(NotAPicture, match="unpack it first"):
            read_picture(data, name=name)


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
