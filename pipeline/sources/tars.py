"""Members of uncompressed tar files as byte ranges, so that workers read single pictures out of them.

Only headers are read. The standard library's reader does the parsing (ustar, GNU and pax names). It takes a
bad header for the end of the file, which would silently lose the members behind it; this module looks, and names
what it could not read.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import IO, Any

from lichen.errors import SourceUnreadable
from lichen.pipeline.sources.base import Source, is_hidden, key_text
from lichen.pipeline.sources.secrets import redact_uri
from lichen.pipeline.sources.stores import open_binary, store_errors

COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst", ".tar.lz4")

COMPRESSED_MAGIC = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
"""First bytes of files that gzip, bzip2, xz, zstd and lz4 wrote."""
_HEADER_CACHE = 1 << 17  # bytes a request on remote stores: the next header is often within reach
_MAX_HEADER = 1 << 24
"""Bytes of one extended header; a damaged size must not become a request for memory."""
_MAX_NAME = 4096
"""Most characters of a name in a tar file, as many as a path on a disk may have."""
_MAX_LINKED = 1_000_000
"""Files that links to folders may stand for: many links to a folder of many files multiply."""
_MAX_HOPS = 40
"""Most links in a tar file that may follow each other; Linux allows as many in a path."""


def tar_members(tar: Source, options: Mapping[str, Any] | None, *, hidden: bool = False) -> Iterator[Source]:
    """Files in a tar file, in its order; a key is the tar's key less ``.tar`` and the member's name.

    Links come behind, as what they lead to: a hard or symbolic link to a member is a picture with that member's
    bytes, one to a folder stands for the files in it. A link that leads nowhere, a sparse member, and whatever lies
    behind damage (under the tar's own key) become sources with a fault.
    """
    links: dict[str, _Link] = {}
    damage = None
    try:
        for number, member in enumerate(_members(tar, options)):
            if len(member.name) > _MAX_NAME:
                message = f"{redact_uri(tar.uri)}: a name of {len(member.name):,} characters at byte {member.offset}"
                yield replace(tar, key=f"{tar.key}:{member.offset}", size=None, fault=message)
                continue
            name = _clean(member.name)
            if is_hidden(name) and not hidden:
                continue
            if member.islnk() or member.issym():
                links[name] = _Link(name=name, to=_target(member), number=number)
            elif member.isreg():
                yield _member_source(tar, name, member)
    except SourceUnreadable as error:
        damage = str(error)
    if links:
        yield from _linked(tar, options, links, hidden)
    if damage is not None:
        yield replace(tar, size=None, fault=damage)


@dataclass(slots=True, kw_only=True)
class _Link:
    """A link, and what it turned out to lead to: a file, or a folder. ``number`` counts members."""

    name: str
    to: str
    number: int
    file: tarfile.TarInfo | None = None
    folder: bool = False


def _linked(tar: Source, options: Mapping[str, Any] | None, links: dict[str, _Link], hidden: bool) -> Iterator[Source]:
    """What links lead to. The headers are read once more, since keeping all of them would take memory without end."""
    leading_to: dict[str, list[_Link]] = {}
    for link in links.values():
        leading_to.setdefault(_resolve(link.to, links), []).append(link)
    count = 0
    try:
        for number, member in enumerate(_members(tar, options)):
            if len(member.name) > _MAX_NAME:
                continue
            name = _clean(member.name)
            for link in leading_to.get(name, ()):
                if not member.isreg():
                    link.folder = link.folder or member.isdir()
                elif link.file is None or number < link.number:  # of several versions, the last before the link
                    link.file = member
            for folder in _parents(name):
                for link in leading_to.get(folder, ()):
                    link.folder = True
                    inside = link.name + "/" + name[len(folder) :].lstrip("/")
                    if member.isreg() and not _is_below(link.name, folder) and (hidden or not is_hidden(inside)):
                        count += 1
                        if count > _MAX_LINKED:
                            message = (
                                f"{redact_uri(tar.uri)}: links to folders that stand for over {_MAX_LINKED:,} files"
                            )
                            yield replace(tar, key=f"{tar.key}:links", size=None, fault=message)
                            return
                        yield _member_source(tar, inside, member)
    except SourceUnreadable:
        pass  # is named by the caller
    for link in links.values():
        if link.file is not None:
            yield _member_source(tar, link.name, link.file)
        elif not link.folder:
            message = f"{redact_uri(tar.uri)}: {link.name} is a link to {link.to}, which is not in the tar file"
            yield Source(key=_key(tar, link.name), uri=tar.uri, mtime=tar.mtime, etag=tar.etag, fault=message)


def _members(tar: Source, options: Mapping[str, Any] | None) -> Iterator[tarfile.TarInfo]:
    """All headers. Raises ``SourceUnreadable`` where the file is compressed or damaged, or ends early."""
    name = redact_uri(tar.uri)
    with (
        store_errors(f"cannot list {name}", options, tar.uri),
        open_binary(tar.uri, options, cache_type="readahead", block_size=_HEADER_CACHE) as file,
    ):
        if file.read(6).startswith(COMPRESSED_MAGIC):
            raise SourceUnreadable(f"{name} is compressed; pictures in it cannot be read singly. Unpack it first")
        size = file.seek(0, 2)
        file.seek(0)
        try:
            with tarfile.open(fileobj=_Headers(file), mode="r:", errorlevel=0) as reader:  # type: ignore[call-overload]
                while (member := reader.next()) is not None:
                    # The reader would keep every header that it has seen.
                    reader.members.clear()
                    if member.offset_data + _stored_size(member, reader) > size:
                        raise SourceUnreadable(f"{name} ends inside {member.name}")
                    yield member
                end = reader.offset
        except tarfile.TarError as error:
            raise SourceUnreadable(f"{name} is no readable tar file: {error}") from error
        file.seek(end)
        block = file.read(tarfile.BLOCKSIZE)
        if block.strip(b"\0"):
            raise SourceUnreadable(f"{name} has a damaged header at byte {end}")
        if not block:
            raise SourceUnreadable(f"{name} has no end mark behind its last member, so it may have been cut off")


def _stored_size(member: tarfile.TarInfo, reader: tarfile.TarFile) -> int:
    """Bytes of the member in the file: of a sparse one, ``size`` is what it would have on a disk."""
    return reader.offset - member.offset_data if member.issparse() else member.size


class _Headers:
    """A file from which headers are read, and nothing large."""

    def __init__(self, file: IO[bytes]) -> None:
        self.seek, self.tell, self._file = file.seek, file.tell, file

    def read(self, size: int) -> bytes:
        if size > _MAX_HEADER:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._file.read(size)


def _member_source(tar: Source, name: str, member: tarfile.TarInfo) -> Source:
    source = Source(key=_key(tar, name), uri=tar.uri, mtime=tar.mtime, etag=tar.etag)
    if member.issparse():
        where = redact_uri(tar.uri)
        return replace(source, fault=f"{where}: {member.name} is sparse, which is not read; unpack the tar file first")
    return replace(source, size=member.size, offset=member.offset_data)


def _key(tar: Source, name: str) -> str:
    return key_text(f"{tar.key[: -len('.tar')]}/{name}")


# --- names ---------------------------------------------------------------------------------------


def _clean(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", ".", ".."))


def _parents(name: str) -> Iterator[str]:
    while name:
        name = name.rpartition("/")[0]
        yield name


def _is_below(name: str, folder: str) -> bool:
    """Whether a folder contains this name; a link to such a folder is not followed, as on disks."""
    return not folder or name.startswith(f"{folder}/")


def _target(member: tarfile.TarInfo) -> str:
    """Where a link leads: hard ones name a member, symbolic ones start from their folder."""
    if len(member.linkname) > _MAX_NAME:
        return f"a name of {len(member.linkname):,} characters"
    if member.islnk() or member.linkname.startswith("/"):
        return _clean(member.linkname)
    parts = _clean(member.name).split("/")[:-1]
    for part in member.linkname.split("/"):
        if part == "..":
            if not parts:
                return member.linkname  # out of the tar file
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def _resolve(name: str, links: Mapping[str, _Link]) -> str:
    """Follow links, also those to folders on the way; a name that is no member's where they go in a circle."""
    for _ in range(_MAX_HOPS):
        for folder in (name, *_parents(name)):
            if folder in links:
                name = "/".join(part for part in (links[folder].to, name[len(folder) + 1 :]) if part)
                break
        else:
            return name
    return "/"
