"""One source, and how its URI and its key are written.

A URI is an absolute local path as it is (``/data/a b#1.jpg``), or ``scheme://...`` for every other store. A
local path that is not valid UTF-8 (such names exist on old disks, but not in a Parquet column) is written as
``file-quoted:`` and the percent-encoded bytes of the path.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

QUOTED = "file-quoted:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A picture file to be archived, as the listing knows it; nothing here has been read yet.

    ``key`` is its name in the archive. ``size`` (bytes), ``mtime`` (unix seconds) and ``etag`` are None where
    the listing does not tell. ``offset`` is set for a member of a tar file: the bytes are then ``size`` bytes
    from there inside ``uri``, and mtime and etag are those of the tar file.

    ``fault`` is why an entry could not be listed as it should be; reading it raises ``SourceUnreadable`` with it.
    So one bad entry is named at the end, and stops no other. ``uri`` may hold a password or a signature; whatever
    writes or prints it goes through ``secrets``.
    """

    key: str
    uri: str
    size: int | None = None
    mtime: float | None = None
    etag: str | None = None
    offset: int | None = None
    fault: str | None = None


def remote_source(uri: str, info: Mapping[str, Any], key: str) -> Source:
    """What a file system's ``info`` tells of a file that is not local."""
    modified = info.get("LastModified") or info.get("mtime") or info.get("last_modified") or info.get("created")
    etag = info.get("ETag") or info.get("etag")
    size = info.get("size")
    return Source(
        key=key,
        uri=uri,
        size=size if isinstance(size, int) else None,
        mtime=modified.timestamp() if isinstance(modified, datetime) else _number(modified),
        etag=etag.strip('"') if isinstance(etag, str) else None,
    )


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def is_local(uri: str) -> bool:
    """Whether a URI, or what a user typed, names something on this machine's disks."""
    scheme, separator, _ = uri.partition("://")
    return uri.startswith(QUOTED) or not separator or not scheme.isalnum() or scheme in ("file", "local")


def local_path(uri: str) -> str:
    """The path of a local URI."""
    if uri.startswith(QUOTED):
        return os.fsdecode(unquote_to_bytes(uri[len(QUOTED) :]))
    for prefix in ("file://", "local://"):
        if uri.startswith(prefix):
            return uri[len(prefix) :]
    return uri


def local_uri(path: str) -> str:
    """The URI of an absolute local path."""
    return path if is_utf8(path) else QUOTED + quote_from_bytes(os.fsencode(path))


def is_utf8(name: str) -> bool:
    """Whether a file name is proper text; undecodable bytes of file names arrive as lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def key_text(name: str) -> str:
    """A file name as a key: undecodable bytes become ``\\xNN``."""
    return name if is_utf8(name) else os.fsencode(name).decode("utf-8", "backslashreplace")


def is_hidden(key: str) -> bool:
    """Whether a file or a folder on the way to it is hidden, or of the copies that macOS puts into archives.

    ``.`` and ``..`` hide nothing: on object stores they are parts of names like others.
    """
    return any(part == "__MACOSX" or (part.startswith(".") and part not in (".", "..")) for part in key.split("/"))
