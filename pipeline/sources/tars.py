"""Members of uncompressed tar files as byte ranges, so that workers read single pictures out of them.

Only headers are read. The standard library's reader does the parsing (ustar, GNU and pax names). It takes a
bad header for the end of the file, which would silently lose the members behind it; this module looks and
refuses.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from typing import Any

from lichen.models.errors import SourceUnreadable, UsageError
from lichen.pipeline.sources.base import Source, key_text, store_failures
from lichen.pipeline.sources.manifests import open_binary

COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4")

_COMPRESSED_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_HEADER_CACHE = 1 << 17  # bytes a request on remote stores: the next header is often within reach


def tar_members(tar: Source, options: Mapping[str, Any] | None) -> Iterator[Source]:
    """Regular files in a tar file, in its order; a key is the tar's key less ``.tar`` and the member's name.

    Links inside are left out (what they point to is a member of its own). Raises ``UsageError`` for a
    compressed or sparse file, ``SourceUnreadable`` for one that is damaged or ends early.
    """
    try:
        with open_binary(tar.uri, options, cache_type="readahead", block_size=_HEADER_CACHE) as file:
            if file.read(6).startswith(_COMPRESSED_MAGIC):
                raise UsageError(f"{tar.uri} is compressed; pictures in it cannot be read singly. Unpack it first")
            size = file.seek(0, 2)
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:", errorlevel=0) as reader:
                while (member := reader.next()) is not None:
                    # The reader would keep every header that it has seen.
                    reader.members.clear()  # type: ignore[attr-defined]
                    if member.issparse():
                        raise UsageError(f"{tar.uri}: {member.name} is sparse; unpack the tar file first")
                    if member.offset_data + member.size > size:
                        raise SourceUnreadable(f"{tar.uri} ends inside {member.name}")
                    if member.isreg():
                        yield _member_source(tar, member)
                file.seek(reader.offset)
                if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
                    raise SourceUnreadable(f"{tar.uri} has a damaged header at byte {reader.offset}")
    except tarfile.TarError as error:
        raise SourceUnreadable(f"{tar.uri} is no readable tar file: {error}") from error
    except store_failures() as error:
        raise SourceUnreadable(f"cannot list {tar.uri}: {error}") from error


def _member_source(tar: Source, member: tarfile.TarInfo) -> Source:
    parts = [part for part in member.name.split("/") if part not in ("", ".", "..")]
    return Source(
        key=key_text(f"{tar.key[: -len('.tar')]}/{'/'.join(parts)}"),
        uri=tar.uri,
        size=member.size,
        mtime=tar.mtime,
        etag=tar.etag,
        offset=member.offset_data,
    )
