"""What kind of file some bytes are, and what a picture file holds beyond the pixels that Pillow shows.

Pillow is a fine decoder but a careless witness: it silently cuts 16-bit colours to 8, shows the first of
many pictures, and does not mention a gain map or a film behind the photograph. The examiners here read the
container itself, raise ``UnsupportedPicture`` when decoding to 8-bit pixels would lose meaning, and collect
the metadata that Pillow drops as blocks for the side data.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath

from lichen.models.errors import UndecodablePicture, UnsupportedPicture
from lichen.pipeline.side import Block

MAX_TRAILER = 1 << 16
"""Longest unexplained data behind a picture that is kept as a block; more may be a film or a picture."""

_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, b"\xff\xd8\xff", "JPEG"),
    (0, b"\x89PNG\r\n\x1a\n", "PNG"),
    (0, b"\x8aMNG\r\n\x1a\n", "MNG"),
    (8, b"WEBPVP8", "WEBP"),
    (0, b"GIF87a", "GIF"),
    (0, b"GIF89a", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (0, b"IIRO", "RAW"),
    (0, b"IIU\0", "RAW"),
    (0, b"FUJIFILMCCD-RAW", "RAW"),
    (0, b"FOVb", "RAW"),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG2000"),
    (0, b"\xff\x0a", "JXL"),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", "JXL"),
    (0, b"\0\0\x01\0", "ICO"),
    (0, b"\0\0\x02\0", "CUR"),
    (0, b"icns", "ICNS"),
    (0, b"8BPS", "PSD"),
    (0, b"gimp xcf ", "XCF"),
    (0, b"DDS ", "DDS"),
    (0, b"v/1\x01", "EXR"),
    (0, b"#?RADIANCE", "HDR"),
    (0, b"#?RGBE", "HDR"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"\x01\xda", "SGI"),
    (0, b"qoif", "QOI"),
    (0, b"farbfeld", "FARBFELD"),
    (0, b"BPG\xfb", "BPG"),
    (0, b"FLIF", "FLIF"),
    (0, b"AT&TFORM", "DJVU"),
    (0, b"II\xbc\x01", "JXR"),
    (0, b"\x59\xa6\x6a\x95", "SUN"),
)
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"heic": "HEIF",
    b"heix": "HEIF",
    b"heim": "HEIF",
    b"heis": "HEIF",
    b"hevc": "HEIF",
    b"hevx": "HEIF",
    b"mif1": "HEIF",
    b"msf1": "HEIF",
    b"mif2": "HEIF",
    b"crx ": "RAW",
}
_NETPBM = re.compile(rb"P(?:[1-6]\s|7\nWIDTH|[Ff]\n)")

# fmt: off
EXTENSIONS: frozenset[str] = frozenset({
    "jpg", "jpeg", "jpe", "jfif", "jif", "png", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff",
    "avif", "avifs", "heic", "heif", "hif", "jp2", "j2k", "jpf", "jpx", "jpc", "j2c", "jxl", "ico",
    "cur", "icns", "psd", "psb", "xcf", "dds", "exr", "hdr", "fits", "fit", "sgi", "rgb", "bw", "qoi",
    "ff", "bpg", "flif", "djvu", "jxr", "wdp", "hdp", "ras", "sun", "tga", "icb", "vda", "vst", "pbm",
    "pgm", "ppm", "pnm", "pam", "pfm", "pcx", "mpo", "mng", "jng", "xbm", "xpm", "dng", "nef", "cr2",
    "cr3", "arw", "srw", "orf", "rw2", "raf", "pef", "x3f", "iiq", "3fr", "erf", "kdc", "dcr", "mrw",
    "nrw",
})
"""File name extensions that claim to be a picture, in lower case."""

_RAW_EXTENSIONS = frozenset({
    "dng", "nef", "cr2", "cr3", "arw", "srw", "orf", "rw2", "raf", "pef", "x3f", "iiq", "3fr", "erf",
    "kdc", "dcr", "mrw", "nrw",
})
# fmt: on


def sniff(data: bytes) -> str | None:
    """The picture format that the first bytes claim, in Pillow's spelling where it has one; None if none."""
    if data[4:8] == b"ftyp":
        length = min(int.from_bytes(data[:4], "big"), 256, len(data))
        brands = [data[8:12]] + [data[i : i + 4] for i in range(16, length - 3, 4)]
        known = [_BRANDS[brand] for brand in brands if brand in _BRANDS]
        return "AVIF" if "AVIF" in known else known[0] if known else None
    for offset, magic, name in _MAGIC:
        if data.startswith(magic, offset):
            if name == "BMP" and data[6:10] != bytes(4) and not 12 <= _le32(data, 14) <= 124:
                continue  # two letters are weak evidence
            return name
    return "PPM" if _NETPBM.match(data) else None


def extension(name: str) -> str:
    """The extension of a file name or key in lower case, without the dot; empty if it has none."""
    return PurePosixPath(name).suffix[1:].lower()


def is_raw_name(name: str) -> bool:
    """Whether the name claims a camera's raw file; most are TIFF files whose first picture is a preview."""
    return extension(name) in _RAW_EXTENSIONS


def _le32(data: bytes, offset: int) -> int:
    return int.from_bytes(data[offset : offset + 4], "little")


def _trailer(name: str, rest: bytes) -> list[Block]:
    """What follows the end of a picture: padding is dropped, a little is kept, much is another thing."""
    rest = rest.strip(b"\0\r\n\t ")
    if not rest:
        return []
    if len(rest) > MAX_TRAILER or b"\xff\xd8\xff" in rest or b"ftyp" in rest:
        raise UnsupportedPicture(f"{len(rest)} bytes follow the picture: a gain map, a film or a second one")
    return [(f"{name}:trailer", rest)]


# --- JPEG ----------------------------------------------------------------------------------------


def examine_jpeg(data: bytes) -> list[Block]:
    """Blocks of a JPEG file: the segments besides EXIF, ICC and XMP (comments, IPTC, provenance, density).

    Not kept: thumbnails of JFIF extensions, the screen-sized previews that some cameras append, and Adobe's
    colour transform, which decoding uses up.
    """
    blocks: list[Block] = []
    profile: list[bytes] = []
    previews = 0
    position = 2
    while True:
        position = data.find(b"\xff", position)
        if position < 0 or position + 4 > len(data):
            return blocks  # no scan: Pillow will refuse it
        marker = data[position + 1]
        if marker in (0x00, 0xFF) or 0xD0 <= marker <= 0xD9 or marker == 0x01:
            position += 1 if marker == 0xFF else 2
            continue
        length = int.from_bytes(data[position + 2 : position + 4], "big")
        body = data[position + 4 : position + 2 + length]
        position += 2 + length
        if marker == 0xDA:
            break
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            _check_jpeg_frame(marker, body)
        elif marker == 0xE2 and body.startswith(b"MPF\0"):
            previews += _mpf_preview_bytes(body[4:])
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0"):
            profile.append(body)
        elif 0xE0 <= marker <= 0xEF or marker == 0xFE:
            blocks += _jpeg_block(marker, body)
    _check_jpeg_profile(profile)
    end = data.find(b"\xff\xd9", position)  # inside a scan, 0xFF is always followed by 0 or a restart marker
    if end < 0 or (previews and len(data) - end - 2 <= previews + _PREVIEW_PADDING):
        return blocks
    return blocks + _trailer("jpeg", data[end + 2 :])


def _check_jpeg_frame(marker: int, body: bytes) -> None:
    if marker not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA):
        raise UnsupportedPicture("a lossless or hierarchical JPEG")
    if len(body) >= 6 and body[0] != 8:
        raise UnsupportedPicture(f"a JPEG of {body[0]} bits")
    if len(body) >= 6 and body[5] not in (1, 3):
        raise UnsupportedPicture(f"a JPEG of {body[5]} components (CMYK or the like)")


def _check_jpeg_profile(segments: list[bytes]) -> None:
    """Every segment says which it is and how many there are; Pillow drops an incomplete profile without a word."""
    different = set(segments)
    if any(len(segment) < 14 or not 1 <= segment[12] <= segment[13] == len(different) for segment in different):
        raise UnsupportedPicture("a JPEG with a damaged colour profile")


_PREVIEW_PADDING = 1 << 12
_MPF_ENTRIES, _MPF_TYPE, _MPF_PREVIEWS = 0xB002, 0xFFFFFF, (0x010001, 0x010002)


def _mpf_preview_bytes(index: bytes) -> int:
    """Bytes of the previews that a multi-picture index lists (CIPA DC-007); refuses pictures of other kinds."""
    order = ">" if index.startswith(b"MM") else "<"
    try:
        (start,) = struct.unpack_from(order + "I", index, 4)
        (count,) = struct.unpack_from(order + "H", index, start)
        for tag, _, length, offset in (
            struct.unpack_from(order + "HHII", index, start + 2 + 12 * i) for i in range(count)
        ):
            if tag == _MPF_ENTRIES and 32 <= length <= len(index):
                entries = [struct.unpack_from(order + "III", index, offset + i) for i in range(16, length, 16)]
                if all(kind & _MPF_TYPE in _MPF_PREVIEWS for kind, _, _ in entries):
                    return sum(size for _, size, _ in entries)
    except struct.error:
        pass  # malformed: nobody knows what is there
    raise UnsupportedPicture("several pictures in one file (MPO)")


def _jpeg_block(marker: int, body: bytes) -> list[Block]:
    name = "jpeg:COM" if marker == 0xFE else f"jpeg:APP{marker - 0xE0}"
    if marker == 0xE0:
        if body.startswith(b"JFXX\0"):
            return []
        if body.startswith(b"JFIF\0") and len(body) >= 12:
            unit, x, y = struct.unpack(">BHH", body[7:12])
            trivial = x == y and (unit == 0 or (unit == 1 and x == 72))  # what writers put when they do not know
            return [] if trivial else [(name, body[:12] + b"\0\0")]
    if marker == 0xE1:
        if body.startswith(b"Exif\0\0"):
            return []
        if body.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            if b"hdrgm:Version" in body:
                raise UnsupportedPicture("a gain map (Ultra HDR) belongs to the picture")
            return []
    if marker == 0xEE and body.startswith(b"Adobe"):
        return []
    return [(name, body)]


# --- PNG -----------------------------------------------------------------------------------------

_PNG_CONSUMED = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"eXIf", b"sPLT", b"hIST"}


_PNG_TEXT = {b"tEXt", b"zTXt", b"iTXt"}
_PNG_HIDING = {b"exif", b"icc_profile", b"xmp", b"transparency"}
"""Keywords of texts that Pillow would take for something else."""


def _check_png_profile(content: bytes) -> None:
    try:
        whole = zlib.decompress(content.partition(b"\0")[2][1:])
    except zlib.error as error:
        raise UnsupportedPicture("a PNG with a damaged colour profile") from error
    if not whole:
        raise UnsupportedPicture("a PNG with an empty colour profile")


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, content) of every chunk up to IEND, checksums tested; raises ``UndecodablePicture``."""
    position = 8
    kind = b""
    while kind != b"IEND":
        if position + 12 > len(data):
            raise UndecodablePicture("the PNG file ends before its end chunk")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            raise UndecodablePicture(f"the PNG file ends inside chunk {kind!r}")
        if zlib.crc32(memoryview(data)[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            raise UndecodablePicture(f"PNG chunk {kind!r} fails its checksum")
        yield kind, data[position + 8 : end] if kind != b"IDAT" else b""
        position = end + 4
    if data[position:].strip(b"\0\r\n "):
        raise UnsupportedPicture("something follows the end of the PNG picture")


def examine_png(data: bytes) -> list[Block]:
    """Blocks of a PNG file: every ancillary chunk that Pillow's pixels, EXIF, ICC and XMP do not cover."""
    blocks: list[Block] = []
    for kind, content in png_chunks(data):
        if kind == b"IHDR":
            if len(content) != 13:
                raise UndecodablePicture("the PNG header has a wrong length")
            depth, colour = content[8], content[9]
            if colour == 3:
                raise UnsupportedPicture("a palette picture")
            if depth != 8:
                raise UnsupportedPicture(f"a PNG of {depth} bits a sample")
        elif kind == b"acTL":
            raise UnsupportedPicture("an animation (APNG)")
        elif kind == b"iTXt" and content.startswith(b"XML:com.adobe.xmp\0"):
            continue
        elif kind in _PNG_TEXT and content.startswith(b"Raw profile type exif\0"):
            continue  # becomes EXIF
        elif kind == b"iCCP":
            _check_png_profile(content)
        elif kind in _PNG_TEXT and (keyword := content.partition(b"\0")[0]) in _PNG_HIDING:
            raise UnsupportedPicture(f"a PNG with a text named {keyword.decode()}, for which it would be taken")
        elif kind not in _PNG_CONSUMED:
            blocks.append((f"png:{kind.decode('latin-1')}", content))
    return blocks


# --- WebP ----------------------------------------------------------------------------------------


def examine_webp(data: bytes) -> tuple[int, int]:
    """Canvas size of a WebP file, which libwebp would allocate on opening; refuses animations."""
    if len(data) < 30 or len(data) < _le32(data, 4) + 8:
        raise UndecodablePicture("the WebP file is truncated")
    if data[_le32(data, 4) + 8 :].strip(b"\0"):
        raise UnsupportedPicture("something follows the end of the WebP picture")
    kind = data[12:16]
    if kind == b"VP8X":
        if data[20] & 0x02:
            raise UnsupportedPicture("an animation (WebP)")
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8 " and data[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and data[20] == 0x2F:
        packed = _le32(data, 21)
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1
    raise UndecodablePicture("the WebP file has no valid header")


# --- AVIF and JPEG 2000 --------------------------------------------------------------------------

_SDR_PRIMARIES = {1, 2, 5, 6}
_SDR_TRANSFERS = {1, 2, 6, 13, 14, 15}


def examine_avif(data: bytes) -> None:
    """Refuses AVIF pictures of more than 8 bits, with a gain map, or in wide gamut without a profile."""
    _check_avif_boxes(data)
    start = data.find(b"meta")
    if start < 4:
        return  # Pillow will refuse it
    meta = data[start : start - 4 + int.from_bytes(data[start - 4 : start], "big")]
    for match in re.finditer(rb"av1C\x81[\0-\xff]([\0-\xff])", meta):
        if match[1][0] & 0x40:
            raise UnsupportedPicture("an AVIF picture of 10 or 12 bits")
    if b"tmap" in meta:
        raise UnsupportedPicture("a gain map belongs to the AVIF picture")
    has_profile = b"colrprof" in meta or b"colrrICC" in meta
    for match in re.finditer(rb"colrnclx([\0-\xff]{2})([\0-\xff]{2})", meta):
        primaries, transfer = int.from_bytes(match[1], "big"), int.from_bytes(match[2], "big")
        if not has_profile and (primaries not in _SDR_PRIMARIES or transfer not in _SDR_TRANSFERS):
            raise UnsupportedPicture("an AVIF picture in wide-gamut or HDR colour without an ICC profile")


def examine_jpeg2000(data: bytes) -> None:
    """Refuses JPEG 2000 pictures that are not 8-bit, or have metadata or profiles, which Pillow drops."""
    start = data.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(data) < start + 45:
        raise UndecodablePicture("the JPEG 2000 file has no codestream")
    for box in (b"uuid", b"xml ", b"asoc", b"jumb"):
        if box in data[:start] or box in data[-(1 << 16) :]:
            raise UnsupportedPicture("a JPEG 2000 picture with metadata boxes")
    if re.search(rb"colr[\2\3]", data[:start]) or b"pclr" in data[:start]:
        raise UnsupportedPicture("a JPEG 2000 picture with a colour profile or palette")
    components = int.from_bytes(data[start + 40 : start + 42], "big")
    depths = {data[start + 42 + 3 * i] for i in range(components) if start + 42 + 3 * i < len(data)}
    if depths != {7}:  # 8 bits, unsigned
        raise UnsupportedPicture("a JPEG 2000 picture of other than 8 bits")


_AVIF_BOXES = {b"ftyp", b"meta", b"mdat", b"moov", b"free", b"skip"}


def _check_avif_boxes(data: bytes) -> None:
    """Refuses what lies beside the picture: a film of a moving photograph, other files."""
    position = 0
    while position + 8 <= len(data):
        size, kind = int.from_bytes(data[position : position + 4], "big"), data[position + 4 : position + 8]
        if size == 1:
            size = int.from_bytes(data[position + 8 : position + 16], "big")
        if kind not in _AVIF_BOXES or 0 < size < 8:
            break
        position = len(data) if size == 0 else position + size
    if data[position:].strip(b"\0\r\n "):
        raise UnsupportedPicture("something else than the picture is in the AVIF file")


# --- BMP -----------------------------------------------------------------------------------------

_BMP_V4, _BMP_SRGB = 108, (b"BGRs", b" niW")


def examine_bmp(data: bytes) -> list[Block]:
    """Refuses bitmaps with a colour profile or a calibration, which Pillow ignores; keeps what follows them."""
    header = _le32(data, 14)
    if header >= _BMP_V4 and data[70:74] not in _BMP_SRGB and data[70:122].strip(b"\0"):
        raise UnsupportedPicture("a BMP picture with a colour profile or calibration")
    if header < 40:
        return []
    width, height, bits = _le32(data, 18), _le32(data, 22), int.from_bytes(data[28:30], "little")
    height = min(height, (1 << 32) - height)  # negative ones are stored from the top
    pixels = _le32(data, 34) or (width * bits + 31) // 32 * 4 * height
    return _trailer("bmp", data[max(_le32(data, 2), _le32(data, 10) + pixels) :])


# --- Netpbm --------------------------------------------------------------------------------------

_PPM_HEADER = re.compile(
    rb"P([56])(?:\s+|#[^\n\r]*[\n\r])+(\d+)(?:\s+|#[^\n\r]*[\n\r])+(\d+)(?:\s+|#[^\n\r]*[\n\r])+(\d+)\s"
)


def examine_ppm(data: bytes) -> None:
    """Refuses Netpbm files other than one binary grey or RGB picture of maximum 255."""
    match = _PPM_HEADER.match(data[:4096])
    if match is None:
        raise UnsupportedPicture("a Netpbm file of another kind than P5 or P6")
    width, height, maximum = (int(match[i][:9]) for i in (2, 3, 4))
    if maximum != 255:
        raise UnsupportedPicture(f"a Netpbm picture with maximum {maximum}")
    if data[match.end() + width * height * (3 if match[1] == b"6" else 1) :].strip(b"\0\r\n "):
        raise UnsupportedPicture("several pictures in one Netpbm file")
