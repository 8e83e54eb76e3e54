"""Small files that ask for much: refused before it is allocated or worked on."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from pictures_support import RGB, chunk, encoded, png_before_pixels, png_with
from PIL import Image

from lichen.errors import CorruptArchive, LichenError, UndecodablePicture, UnsupportedPicture
from lichen.pipeline.pictures.directory import Directories, check_exif
from lichen.pipeline.pictures.limits import MAX_PROFILE
from lichen.pipeline.pictures.reading import read_picture, to_pil
from lichen.pipeline.pictures.side import Side

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

IMAGE = Image.fromarray(RGB)
HUGE = 30_000
"""Pixels on a side: 900 megapixels."""

# --- pixels --------------------------------------------------------------------------------------


def patched(data: bytes, at: int, form: str, *values: int) -> bytes:
    new = struct.pack(form, *values)
    return data[:at] + new + data[at + len(new) :]


def declared(kind: str) -> tuple[str, bytes]:
    """A name and a file that declares ``HUGE`` x ``HUGE`` pixels, or the most that the format can."""
    if kind == "jpeg":
        data = encoded(IMAGE, "JPEG")
        return "x.jpg", patched(data, data.index(b"\xff\xc0") + 5, ">HH", HUGE, HUGE)
    if kind == "png":
        header = struct.pack(">IIBBBBB", HUGE, HUGE, 8, 2, 0, 0, 0)
        rest = chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
        return "x.png", b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + rest
    if kind.startswith("webp"):
        lossless, extended = kind == "webp lossless", kind == "webp extended"
        data = encoded(IMAGE, "WEBP", lossless=lossless, exif=b"II*\0\x08\0\0\0\0\0" if extended else b"")
        if extended:
            return "x.webp", patched(data, 24, "<HBHB", HUGE & 0xFFFF, 0, HUGE & 0xFFFF, 0)
        return "x.webp", patched(data, 21, "<I", 0x0FFFFFFF) if lossless else patched(data, 26, "<HH", 16383, 16383)
    if kind == "avif":
        data = encoded(IMAGE, "AVIF")
        return "x.avif", patched(data, data.index(b"ispe") + 8, ">II", HUGE, HUGE)
    if kind == "tiff":
        data = encoded(IMAGE, "TIFF")
        directories = Directories(data)
        tags, _, _ = directories.read(directories.first)
        for tag in (256, 257):
            data = patched(data, tags[tag].begin, "<I" if tags[tag].kind == 4 else "<H", HUGE)
        return "x.tif", data
    if kind == "bmp":
        return "x.bmp", patched(encoded(IMAGE, "BMP"), 18, "<ii", HUGE, HUGE)
    if kind == "bmp from the top":
        return "x.bmp", patched(encoded(IMAGE, "BMP"), 18, "<ii", HUGE, -HUGE)
    if kind == "tga":
        return "x.tga", patched(encoded(IMAGE, "TGA"), 12, "<HH", HUGE, HUGE)
    if kind == "ppm":
        return "x.ppm", f"P6 {HUGE} {HUGE} 255\n".encode() + bytes(3000)
    data = encoded(IMAGE, "JPEG2000", no_jp2=kind == "j2k")
    at = data.index(b"\xff\x4f\xff\x51") + 8
    data = patched(data, at, ">II", HUGE, HUGE)
    return "x.jp2", patched(data, at + 16, ">II", HUGE, HUGE)  # one tile


KINDS = ["jpeg", "png", "webp", "webp lossless", "webp extended", "avif", "tiff", "bmp", "bmp from the top"]
KINDS += ["tga", "ppm", "jp2", "j2k"]


@pytest.mark.parametrize("kind", KINDS)
def test_too_many_pixels(kind: str) -> None:
    name, data = declared(kind)
    with pytest.raises(UndecodablePicture, match="limit of"):
        read_picture(data, name=name, max_pixels=1 << 27)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "TGA", "PPM", "JPEG2000"])
def test_the_limit_is_the_same_in_all_formats(file_format: str) -> None:
    data = encoded(IMAGE, file_format)
    name = f"x.{file_format.lower()}"
    pixels = RGB.shape[0] * RGB.shape[1]
    assert read_picture(data, name=name, max_pixels=pixels).mode == "RGB"
    with pytest.raises(UndecodablePicture, match=f"limit of {pixels - 1}"):
        read_picture(data, name=name, max_pixels=pixels - 1)


# --- metadata ------------------------------------------------------------------------------------


def squeezed(megabytes: int) -> bytes:
    squeezer = zlib.compressobj(9)
    return b"".join(squeezer.compress(bytes(1 << 20)) for _ in range(megabytes)) + squeezer.flush()


def exif_bomb(tags: int = 4000, size: int = 1 << 19) -> bytes:
    """Tags that all have the same half megabyte for a value."""
    begin = 8 + 2 + 12 * tags + 4
    out = b"II*\0" + struct.pack("<IH", 8, tags)
    out += b"".join(struct.pack("<HHII", 50_000 + number, 7, size, begin) for number in range(tags))
    return out + bytes(4 + size)


def bombs() -> dict[str, bytes]:
    one = squeezed(300)
    exif = exif_bomb()
    small = exif_bomb(3000, 28_000)
    return {
        "iccp.png": png_before_pixels((b"iCCP", b"p\0\0" + one)),
        "ztxt.png": png_before_pixels((b"zTXt", b"Comment\0\0" + one)),
        "itxt.png": png_with((b"iTXt", b"Comment\0\1\0\0\0" + one)),
        "xmp.png": png_with((b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + one)),
        "texts.png": png_with(*[(b"zTXt", b"a\0\0" + zlib.compress(bytes(MAX_PROFILE - 1))) for _ in range(400)]),
        "exif.png": png_with((b"eXIf", exif)),
        "exif.webp": encoded(IMAGE, "WEBP", exif=b"Exif\0\0" + exif),
        "exif.avif": encoded(IMAGE, "AVIF", exif=small),
        "exif.jpg": encoded(IMAGE, "JPEG", exif=b"Exif\0\0" + small),
        "tags.tif": exif,
        "chunks.png": png_with(*[(b"abCd", b"")] * 200_000),
    }


CHILD = """
import resource, sys
from pathlib import Path
from lichen.errors import LichenError
from lichen.pipeline.pictures.reading import read_picture, to_pil
files = [(path.name, path.read_bytes()) for path in sorted(Path(sys.argv[1]).iterdir())]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for name, data in files:
    try:
        picture = read_picture(data, name=name)
        to_pil(picture.pixels, picture.mode, picture)
    except LichenError as error:
        print(name, type(error).__name__)
    else:
        print(name, "read")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_metadata_bombs_need_no_memory(tmp_path: Path) -> None:
    for name, data in bombs().items():
        (tmp_path / name).write_bytes(data)
    done = subprocess.run([sys.executable, "-c", CHILD, tmp_path], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    *lines, megabytes = done.stdout.split("\n")[:-1]
    assert len(lines) == len(bombs())
    assert not [line for line in lines if line.endswith(" read")]
    assert int(megabytes) < 120, done.stdout


def test_what_real_files_have_is_within_the_limits() -> None:
    exif = Image.Exif()
    for tag in range(200):
        exif[50_000 + tag] = bytes(range(200))
    check_exif(exif.tobytes().removeprefix(b"Exif\0\0"))
    check_exif(b"II*\0")  # broken, but harmless
    check_exif(b"II*\0\x08\0\0\0\xff\xff" + bytes(range(256)) * 4)
    profile = bytes(range(256)) * 4000
    assert read_picture(png_before_pixels((b"iCCP", b"p\0\0" + zlib.compress(profile)))).icc == profile


def test_exif_that_would_grow_is_refused_on_the_way_back_too() -> None:
    with pytest.raises(UnsupportedPicture, match="claim more bytes"):
        check_exif(exif_bomb())
    with pytest.raises(CorruptArchive, match="EXIF"):
        to_pil(RGB, "RGB", Side(exif=exif_bomb()))


# --- work ----------------------------------------------------------------------------------------


def codestream(**changes: int) -> bytes:
    """A JPEG 2000 codestream with other numbers in its headers."""
    data = encoded(Image.new("RGB", (512, 512), (90, 120, 30)), "JPEG2000", no_jp2=True)
    style = data.index(b"\xff\x52") + 4
    for name, value in changes.items():
        if name == "tile":
            data = patched(data, 24, ">II", value, value)
        elif name == "layers":
            data = patched(data, style + 2, ">H", value)
        elif name == "blocks":
            data = patched(data, style + 6, ">BB", value, value)
        elif name == "precincts":
            length = struct.unpack_from(">H", data, style - 2)[0]
            levels = data[style + 5]
            end = style - 2 + length
            data = data[:style] + b"\1" + data[style + 1 : end] + bytes([value] * (levels + 1)) + data[end:]
            data = patched(data, style - 2, ">H", length + levels + 1)
        elif name == "size":
            data = patched(data, 8, ">II", value, value)
            data = patched(data, 24, ">II", value, value)
    return data


@pytest.mark.parametrize(
    "changes",
    [
        {"tile": 1},
        {"tile": 3},
        {"layers": 65535, "precincts": 0x55},
        {"precincts": 0, "size": 2000},
        {"size": 16000, "blocks": 0},
    ],
)
def test_jpeg_2000_in_tiny_pieces(changes: dict[str, int]) -> None:
    assert read_picture(codestream()).mode == "RGB"
    with pytest.raises(UndecodablePicture, match=r"tiles|packets"):
        read_picture(codestream(**changes))


def test_files_in_a_million_pieces() -> None:
    tiny = [(b"IDAT", b"")] * 200_000
    with pytest.raises(UndecodablePicture, match="tiny chunks"):
        read_picture(png_before_pixels(*tiny))
    with pytest.raises(UnsupportedPicture, match="blocks of metadata"):
        read_picture(png_before_pixels(*[(b"abCd", b"")] * 70_000))
    rows = 200_000
    values = 8 + 2 + 12 * 9 + 4
    tags = [(256, 4, 1, 1), (257, 4, 1, rows), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, rows, values)]
    tags += [(277, 3, 1, 1), (278, 4, 1, 1), (279, 4, rows, values + 4 * rows)]
    pixels = values + 8 * rows
    data = b"II*\0" + struct.pack("<IH", 8, 9) + b"".join(struct.pack("<HHII", *tag) for tag in tags) + bytes(4)
    data += struct.pack(f"<{rows}I", *range(pixels, pixels + rows)) + struct.pack("<I", 1) * rows + bytes(rows)
    with pytest.raises(UndecodablePicture, match="pieces"):
        read_picture(data)


def test_errors_are_lichens_own() -> None:
    for kind in KINDS:
        name, data = declared(kind)
        with pytest.raises(LichenError):
            read_picture(data[: len(data) // 2], name=name)
