"""What a single file that was named as a source is, where it is neither a picture nor a list of sources.

Somebody who names a ``.zip`` or a ``.csv`` means the pictures in it. Such a file is refused with what to do
instead; in a folder it is one file among others, and is named with the same words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lichen.errors import SourceUnreadable, UsageError
from lichen.pipeline.sources.base import Source, is_local, local_path
from lichen.pipeline.sources.fetch import fetch
from lichen.pipeline.sources.secrets import redact_uri
from lichen.pipeline.sources.stores import open_regular, store_errors
from lichen.pipeline.sources.tars import COMPRESSED_MAGIC, COMPRESSED_TARS

HEAD = 1024
"""Bytes from the beginning of a file that tell what kind of file it is."""

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
_KINDS = {
    **dict.fromkeys(_PACKED_NAMES, _PACKED),
    **dict.fromkeys(_LIST_NAMES, _LIST),
    **dict.fromkeys(_DATA_NAMES, _DATA),
}
_MAGIC = (
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
    return next((kind for offset, magic, kind in _MAGIC if data.startswith(magic, offset)), None)


def refuse_container(source: Source, options: Mapping[str, Any] | None, *, others: bool) -> None:
    """Raises ``UsageError`` for a named file that holds, or lists, what the user means, but not for lichen to read.

    The content counts more than the name: a picture is a picture, whatever it is called. With ``others``, files that
    are no pictures are wanted too, and only compressed tar files are refused.
    """
    from lichen.pipeline.formats import EXTENSIONS, extension, sniff  # Pillow takes time to import

    name, lower = redact_uri(source.uri), source.key.lower()
    head = b"" if others and not lower.endswith(".tar") else _head(source, options)
    if lower.endswith(COMPRESSED_TARS) or (lower.endswith(".tar") and head.startswith(COMPRESSED_MAGIC)):
        raise UsageError(f"{name} is compressed; pictures in it cannot be read singly. Unpack it first")
    if others or lower.endswith(".tar") or sniff(head) is not None:
        return
    claim = extension(source.key)
    kind = container(head) or _KINDS.get(claim)
    if kind is not None and claim not in EXTENSIONS:
        raise UsageError(f"{name} is {kind}")


def _head(source: Source, options: Mapping[str, Any] | None) -> bytes:
    try:
        with store_errors("head", options):
            if is_local(source.uri):
                with open_regular(local_path(source.uri)) as file:
                    return file.read(HEAD)
            if source.size == 0:
                return b""
            return fetch(source.uri, options, end=min(HEAD, source.size or HEAD), max_bytes=HEAD).data
    except SourceUnreadable:
        return b""  # reading it will tell the cause
