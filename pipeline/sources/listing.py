"""From what a user names to a stream of sources, without holding the list in memory.

Keys of a folder or prefix come out in ascending order (by code point, as S3 lists). A tar file is listed by
its members, in its own order, wherever it is met: named, in a folder, or in a manifest. A local folder is
read one directory at a time, S3 one page of a thousand names at a time.

Hidden files and folders (those with a leading dot, and ``__MACOSX``) are left out unless asked for, in tar files
too. Links to files and folders are followed, except a link to a folder that contains it; what is neither file nor
folder (pipes, sockets, devices) is left out of folders. What cannot be listed as it should be (a broken link, a
folder that cannot be read, the damaged end of a tar file, a line of nonsense in a manifest) becomes a source with a
``fault``. Only what was named itself is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lichen.errors import LichenError, SourceUnreadable, UsageError
from lichen.pipeline.secrets import (
    redact,
    redact_uri,
    split_credentials,
    with_credentials_of,
    without_query,
    without_secrets,
)
from lichen.pipeline.sources.base import Source, is_local, local_path, remote_source
from lichen.pipeline.sources.manifests import Entry, read_manifest
from lichen.pipeline.sources.named import refuse_container
from lichen.pipeline.sources.stores import check_regular, open_file_system, shown_cause, store_errors
from lichen.pipeline.sources.tars import tar_members
from lichen.pipeline.sources.walks import ToUri, has_entries, local_source, walk_local, walk_remote, walk_s3

MANIFESTS = (".txt", ".parquet")


def list_sources(
    src: str | Sequence[str],
    *,
    storage_options: Mapping[str, Any] | None = None,
    hidden: bool = False,
    others: bool = True,
) -> Iterator[Source]:
    """List the files below a folder or prefix, in a tar file, in a manifest (.txt, .parquet), or one file.

    With several names, one after the other. Raises ``UsageError`` (on iteration) for what does not exist, an
    empty folder, a compressed tar file and what is no manifest; ``SourceUnreadable`` when what was named cannot be
    read. Without ``others``, also for a single file that is no picture but holds or lists some, such as a .zip or
    a .csv.
    """
    for name in [src] if isinstance(src, str) else src:
        count = 0
        for source in _list_one(name, storage_options, hidden, others):
            count += 1
            yield source
        if count == 0:
            raise UsageError(f"nothing to read in {redact_uri(name)}")


def _list_one(name: str, options: Mapping[str, Any] | None, hidden: bool, others: bool) -> Iterator[Source]:
    if not name:
        raise UsageError("an empty source name")
    if is_local(name):
        yield from _list_local(name, options, hidden, others)
        return
    shown = redact_uri(name)
    file_system, path = open_file_system(name, options)
    with store_errors(f"cannot list {shown}", options, name):
        try:
            info = file_system.info(path)
        except FileNotFoundError as error:
            reason = f": {redact(str(error.__cause__))}" if error.__cause__ else ""  # web servers that do not answer
            raise UsageError(f"{shown} does not exist{reason}") from shown_cause(error)
        to_uri = _namer(name, path)
        if info["type"] == "directory" or _is_shadowed(file_system, path, info, name):
            walk = walk_s3 if hasattr(file_system, "call_s3") else walk_remote
            for source in walk(file_system, path.rstrip("/"), to_uri, hidden, options):
                yield from _expand(source, options, hidden)
            return
    source = remote_source(to_uri(str(info["name"])), info, without_secrets(path).rstrip("/").rpartition("/")[2])
    yield from _list_file(source, options, hidden, others)


def _list_local(name: str, options: Mapping[str, Any] | None, hidden: bool, others: bool) -> Iterator[Source]:
    path = os.path.abspath(local_path(name))
    if os.path.isdir(path):
        for source in walk_local(path, hidden):
            yield from _expand(source, options, hidden)
        return
    if not os.path.lexists(path):
        hint = ""
        if any(part.startswith("~") for part in path.split("/")):
            hint = "; ~ stands for the home folder only where the shell sees it without quotes, or write $HOME"
        elif "::" in name and "://" in name:
            hint = "; chained URLs are not read"
        raise UsageError(f"{redact_uri(name)} does not exist{hint}")
    if os.path.exists(path):
        try:
            check_regular(os.stat(path), path)
        except SourceUnreadable as error:
            raise UsageError(str(error)) from error
    yield from _list_file(local_source(path, os.path.basename(path)), options, hidden, others)


def _namer(name: str, path: str) -> ToUri:
    """How names that a file system gives become URIs: behind the host, and with the credentials, of what was named."""
    clean, _ = split_credentials(name)
    stem = clean if clean.endswith("://") else clean.rstrip("/")
    tail = path.rstrip("/")
    scheme = clean.partition("://")[0]
    root = stem[: len(stem) - len(tail)] if stem.endswith(tail) else f"{scheme}://"
    if root and not root.startswith(f"{scheme}://"):
        root = f"{scheme}://"

    def to_uri(found: str) -> str:
        uri = found if found.startswith(f"{scheme}://") else root + found
        return with_credentials_of(uri, name)

    return to_uri


def _is_shadowed(file_system: Any, path: str, info: Mapping[str, Any], name: str) -> bool:
    """Whether a prefix is meant, though there is an object of its name: an empty one, as some tools leave behind."""
    empty = not info.get("size")
    on_the_web = name.lower().startswith("http")
    if on_the_web and not name.endswith("/"):
        return False
    if not has_entries(file_system, path):
        return False
    if not empty and not name.endswith("/"):
        raise UsageError(
            f"{redact_uri(name)} is an object, and there are objects below it; name the folder as {redact_uri(name)}/, "
            "and the object in a manifest"
        )
    return True


def _list_file(source: Source, options: Mapping[str, Any] | None, hidden: bool, others: bool) -> Iterator[Source]:
    """A file that was named by itself: a manifest, a tar file, or a picture."""
    if source.fault is None and source.key.lower().endswith(MANIFESTS):
        for entry in read_manifest(source.uri, options):
            yield from _expand(_manifest_source(source.uri, entry), options, hidden)
        return
    if source.fault is None:
        refuse_container(source, options, others=others)
    for number, found in enumerate(_expand(source, options, hidden)):
        if number == 0 and found.fault is not None and found.key == source.key and _is_tar(source):
            raise SourceUnreadable(found.fault)  # nothing in it can be listed
        yield found


def _is_tar(source: Source) -> bool:
    return source.key.lower().endswith(".tar")


def _expand(source: Source, options: Mapping[str, Any] | None, hidden: bool) -> Iterator[Source]:
    if source.fault is not None or not _is_tar(source):
        yield source
        return
    if source.mtime is None and not is_local(source.uri):  # from a manifest
        try:
            source = _looked_up(source, options)
        except LichenError as error:
            yield replace(source, fault=str(error))
            return
    yield from tar_members(source, options, hidden=hidden)


def _looked_up(source: Source, options: Mapping[str, Any] | None) -> Source:
    file_system, path = open_file_system(source.uri, options)
    with store_errors(f"cannot list {redact_uri(source.uri)}", options, source.uri):
        return remote_source(source.uri, file_system.info(path), source.key)


def _manifest_source(manifest: str, entry: Entry) -> Source:
    """Relative entries start from the manifest's folder; the key is the entry as a clean relative path.

    Of local files size and modification time are looked up; of others only the manifest can tell.
    """
    if not entry.uri:
        name = without_secrets(manifest).rpartition("/")[2]
        return Source(key=f"{name}:{entry.number}", uri=manifest, fault=entry.fault)
    here = is_local(entry.uri)
    path = local_path(entry.uri) if here and is_local(manifest) else entry.uri.partition("://")[2] or entry.uri
    clean = without_secrets(entry.uri)
    named = path if here else clean.partition("://")[2]
    key = entry.key or "/".join(part for part in named.split("/") if part not in ("", ".", ".."))
    if here and is_local(manifest):
        found = local_source(os.path.normpath(os.path.join(os.path.dirname(local_path(manifest)), path)), key)
    else:
        base = without_query(manifest).rpartition("/")[0]
        uri = f"{base}/{path}" if here else entry.uri
        found = Source(key=key, uri=uri, size=entry.size, etag=entry.etag)
    return found if entry.fault is None else replace(found, fault=entry.fault)
