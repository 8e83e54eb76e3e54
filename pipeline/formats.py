"""What kind of file some bytes are, by their first bytes and by the file's name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Literal

Packing = Literal["jxl-jpeg", "zstd"]
"""How the original file of a packed picture was made smaller (``lichen.pipeline.pictures.packing``)."""

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


# --- files that hold or list pictures ---------------------------------------------------------------

_PACKED = "an archive in which pictures cannot be read singly; unpack it first, or make a plain .tar of it"
_LIST = "no manifest; as one lichen reads .txt with one URI a line, and .parquet with a column 'uri'"
_DATA = "a container of data that lichen does not read; export the picture files from it"

_PACKED_NAMES = (
    "zip", "zipx", "7z", "rar", "cbz", "cbr", "cb7", "gz", "bz2", "xz", "zst", "lz4", "lzma", "z", "ace", "arj",
    "cab", "iso", "dmg", "img", "squashfs", "sqsh", "cpio", "ar", "deb", "rpm", "jar", "docx", "pptx", "epub",
)  # fmt: skip
_LIST_NAMES = ("csv", "tsv", "json", "jsonl", "ndjson", "xml", "yaml", "yml", "lst", "list", "xlsx", "ods", "html")
_DATA_NAMES = (
    "npy", "npz", "h5", "hdf5", "hdf", "tfrecord", "tfrecords", "rec", "lmdb", "mdb", "mds", "beton", "arrow",
    "feather", "orc", "avro", "pkl", "pickle", "pt", "pth", "mat", "sqlite", "db", "lance",
)  # fmt: skip
CONTAINERS: Mapping[str, str] = {
    **dict.fromkeys(_PACKED_NAMES, _PACKED),
    **dict.fromkeys(_LIST_NAMES, _LIST),
    **dict.fromkeys(_DATA_NAMES, _DATA),
}
"""Endings of the names of files that hold or list others, and what to do with one."""
_CONTAINER_MAGIC = (
    (0, b"PK\x03\x04", _PACKED),
    (0, b"PK\x05\x06", _PACKED),
    (0, b"7z\xbc\xaf\x27\x1c", _PACKED),
    (0, b"Rar!\x1a\x07", _PACKED),
    (0, b"\x1f\x8b", _PACKED),
    (0, b"BZh", _PACKED),
    (0, b"\xfd7zXZ\0", _PACKED),
    (0, b"\x28\xb5\x2f\xfd", _PACKED),
    (257, b"ustar", "a tar file; give it a name that ends in .tar"),
    (0, b"PAR1", "a Parquet file; as a manifest it needs a name that ends in .parquet"),
    (0, b"\x89HDF", _DATA),
    (0, b"\x93NUMPY", _DATA),
    (0, b"SQLite format 3\0", _DATA),
)


def container(data: bytes) -> str | None:
    """What a file with these first bytes is, and what to do with it, if it holds or lists others; else None."""
    return next((kind for offset, magic, kind in _CONTAINER_MAGIC if data.startswith(magic, offset)), None)
