"""From what a user names to a stream of sources, without holding the list in memory.

Keys of a folder or prefix come out in ascending order (by code point, as S3 lists). A tar file is listed by
its members, in its own order, wherever it is met: named, in a folder, or in a manifest. A local folder is
read one directory at a time, S3 one page of a thousand names at a time.

Hidden files and folders (those with a leading dot) are left out unless asked for. Links to files and folders
are followed, except a link to a folder that contains it; what is neither file nor folder (pipes, sockets,
devices) is left out. A broken link or an unreadable file is listed: reading it then tells the cause.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import fsspec

from lichen.models.errors import SourceUnreadable, UsageError
from lichen.pipeline.sources.base import (
    Source,
    is_local,
    key_text,
    local_path,
    local_uri,
    open_file_system,
    remote_source,
    store_failures,
)
from lichen.pipeline.sources.manifests import Entry, read_manifest
from lichen.pipeline.sources.tars import COMPRESSED_TARS, tar_members


def list_sources(
    src: str | Sequence[str], *, storage_options: Mapping[str, Any] | None = None, hidden: bool = False
) -> Iterator[Source]:
    """List the files below a folder or prefix, in a tar file, in a manifest (.txt, .parquet), or one file.

    With several names, one after the other. Raises ``UsageError`` (on iteration) for what does not exist, an
    empty folder, a compressed tar file and a malformed manifest; ``SourceUnreadable`` when a listing fails.
    """
    for name in [src] if isinstance(src, str) else src:
        count = 0
        for source in _list_one(name, storage_options, hidden):
            count += 1
            yield source
        if count == 0:
            raise UsageError(f"nothing to read in {name}")


def _list_one(name: str, options: Mapping[str, Any] | None, hidden: bool) -> Iterator[Source]:
    if not name:
        raise UsageError("an empty source name")
    if is_local(name):
        path = os.path.abspath(local_path(name))
        if os.path.isdir(path):
            for source in _walk_local(path, "", hidden, ()):
                yield from _expand(source, options)
            return
        if not os.path.lexists(path):
            raise UsageError(f"{name} does not exist")
        yield from _list_file(_local_source(path, os.path.basename(path)), options)
        return
    file_system, path = open_file_system(name, options)
    try:
        info = file_system.info(path)
    except FileNotFoundError as error:
        raise UsageError(f"{name} does not exist") from error
    except store_failures() as error:
        raise SourceUnreadable(f"cannot list {name}: {error}") from error
    scheme = name.partition("://")[0]
    if info["type"] != "directory":
        yield from _list_file(_remote_source(scheme, info, path.rstrip("/").rpartition("/")[2]), options)
        return
    walk = _walk_s3 if hasattr(file_system, "call_s3") else _walk_remote
    try:
        for source in walk(file_system, scheme, path.rstrip("/"), hidden):
            yield from _expand(source, options)
    except store_failures() as error:
        raise SourceUnreadable(f"cannot list {name}: {error}") from error


def _list_file(source: Source, options: Mapping[str, Any] | None) -> Iterator[Source]:
    """A file that was named by itself: a manifest, a tar file, or a picture."""
    lower = source.key.lower()
    if lower.endswith(COMPRESSED_TARS):
        raise UsageError(f"{source.uri} is compressed; pictures in it cannot be read singly. Unpack it first")
    if lower.endswith((".txt", ".parquet")):
        for entry in read_manifest(source.uri, options):
            yield from _expand(_manifest_source(source.uri, entry), options)
    else:
        yield from _expand(source, options)


def _expand(source: Source, options: Mapping[str, Any] | None) -> Iterator[Source]:
    if not source.key.lower().endswith(".tar"):
        yield source
        return
    if source.mtime is None and not is_local(source.uri):  # from a manifest
        source = _looked_up(source, options)
    yield from tar_members(source, options)


def _looked_up(source: Source, options: Mapping[str, Any] | None) -> Source:
    file_system, path = open_file_system(source.uri, options)
    try:
        return remote_source(source.uri, file_system.info(path), source.key)
    except store_failures() as error:
        raise SourceUnreadable(f"cannot list {source.uri}: {error}") from error


def _manifest_source(manifest: str, entry: Entry) -> Source:
    """Relative entries start from the manifest's folder; the key is the entry as a clean relative path.

    Of local files size and modification time are looked up; of others only the manifest can tell.
    """
    here = is_local(entry.uri)
    path = local_path(entry.uri) if here and is_local(manifest) else entry.uri.partition("://")[2] or entry.uri
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    key = entry.key or "/".join(parts)
    if not key:
        raise UsageError(f"the manifest entry {entry.uri!r} names no file")
    if here and is_local(manifest):
        return _local_source(os.path.normpath(os.path.join(os.path.dirname(local_path(manifest)), path)), key)
    uri = manifest.rpartition("/")[0] + "/" + path if here else entry.uri
    return Source(key=key, uri=uri, size=entry.size, etag=entry.etag)


# --- local folders -------------------------------------------------------------------------------


def _local_source(path: str, key: str) -> Source:
    try:
        status = os.stat(path)
    except OSError:  # a broken link: reading tells the cause
        return Source(key=key_text(key), uri=local_uri(path))
    return Source(key=key_text(key), uri=local_uri(path), size=status.st_size, mtime=status.st_mtime)


def _walk_local(folder: str, prefix: str, hidden: bool, above: tuple[tuple[int, int], ...]) -> Iterator[Source]:
    """Files below ``folder``; ``above`` are the (device, inode) of the folders that led here."""
    try:
        status = os.stat(folder)
        identity = (status.st_dev, status.st_ino)
        if identity in above:
            return
        with os.scandir(folder) as entries:
            # a folder sorts as "name/", which makes the whole walk ascend by key
            names = sorted(entry.name + "/" * entry.is_dir() for entry in entries)
    except OSError as error:
        raise SourceUnreadable(f"cannot list {folder}: {error}") from error
    for name in names:
        if name.startswith(".") and not hidden:
            continue
        path = os.path.join(folder, name.rstrip("/"))
        if name.endswith("/"):
            yield from _walk_local(path, prefix + name, hidden, (*above, identity))
        elif _is_file_or_broken(path):
            yield _local_source(path, prefix + name)


def _is_file_or_broken(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True


# --- other stores --------------------------------------------------------------------------------


def _remote_source(scheme: str, info: Mapping[str, Any], key: str) -> Source:
    return remote_source(f"{scheme}://{str(info['name']).removeprefix(scheme + '://')}", info, key)


def _is_hidden(key: str) -> bool:
    return key.startswith(".") or "/." in key


def _walk_remote(
    file_system: fsspec.AbstractFileSystem, scheme: str, root: str, hidden: bool, prefix: str = ""
) -> Iterator[Source]:
    entries = {}
    for info in file_system.ls(root, detail=True):
        name = str(info["name"]).rstrip("/").rpartition("/")[2]
        entries[name + "/" * (info["type"] == "directory")] = info
    for name in sorted(entries):
        if name.startswith(".") and not hidden:
            continue
        if name.endswith("/"):
            yield from _walk_remote(file_system, scheme, f"{root}/{name[:-1]}", hidden, prefix + name)
        else:
            yield _remote_source(scheme, entries[name], prefix + name)


def _walk_s3(file_system: fsspec.AbstractFileSystem, scheme: str, root: str, hidden: bool) -> Iterator[Source]:
    """Flat pages instead of ``ls``: a prefix may hold millions of objects, and fsspec would keep them all."""
    bucket, _, prefix = root.partition("/")
    prefix = prefix + "/" if prefix else ""
    request: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
    while True:
        page = file_system.call_s3("list_objects_v2", **request)
        for item in page.get("Contents", ()):
            key = item["Key"][len(prefix) :]
            if not key or key.endswith("/") or (_is_hidden(key) and not hidden):
                continue  # a key that ends in a slash is a folder marker
            info = {**item, "name": f"{bucket}/{item['Key']}", "size": item["Size"]}
            yield _remote_source(scheme, info, key)
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]
