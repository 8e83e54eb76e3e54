"""Folders and prefixes, file by file, ascending by key.

An entry that cannot be looked at becomes a source with a fault; the walk goes on behind it. Only where the very
top cannot be listed is there nothing to go on with, and ``SourceUnreadable`` is raised.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import fsspec

from lichen.errors import SourceUnreadable
from lichen.pipeline.secrets import redact_uri
from lichen.pipeline.sources.base import Source, is_hidden, key_text, local_uri, remote_source
from lichen.pipeline.sources.stores import check_regular, store_errors

MAX_DEPTH = 200
"""Folders in each other on stores that do not tell what is a link."""

Identity = tuple[int, int]
"""Device and inode of a folder."""


# --- local ---------------------------------------------------------------------------------------


def local_source(path: str, key: str) -> Source:
    """A local file as ``stat`` shows it; with a fault where it shows nothing, or no regular file."""
    source = Source(key=key_text(key), uri=local_uri(path))
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # a broken link, one to itself, one through a file; a null byte
        return replace(source, fault=f"{key_text(path)}: {_reason(error)}")
    try:
        check_regular(status, path)
    except SourceUnreadable as error:
        return replace(source, fault=str(error))
    return replace(source, size=status.st_size, mtime=status.st_mtime)


def walk_local(top: str, hidden: bool) -> Iterator[Source]:
    """Files below a folder. Links are followed, except to a folder that contains them."""
    names, identity, fault = _scan(top)
    if fault is not None and not names:
        raise SourceUnreadable(fault)
    if fault is not None:
        yield Source(key="/", uri=local_uri(top), fault=fault)
    # One level of folders after the other, not by recursion, which deep trees would exhaust.
    levels: list[tuple[str, str, Identity | None, Iterator[str]]] = [(top, "", identity, iter(names))]
    while levels:
        folder, prefix, _, rest = levels[-1]
        name = next(rest, None)
        if name is None:
            levels.pop()
            continue
        if is_hidden(name.rstrip("/")) and not hidden:
            continue
        path = os.path.join(folder, name.rstrip("/"))
        if not name.endswith("/"):
            source = local_source(path, prefix + name)
            if source.fault is None or _is_broken(path):
                yield source
            continue
        names, identity, fault = _scan(path)
        if identity is not None and any(identity == level[2] for level in levels):
            continue
        if fault is not None:
            yield Source(key=key_text(prefix + name), uri=local_uri(path), fault=fault)
        levels.append((path, prefix + name, identity, iter(names)))


def _scan(folder: str) -> tuple[list[str], Identity | None, str | None]:
    """Names in a folder, sorted, those of folders with a slash; and what went wrong."""
    names: list[str] = []
    identity = None
    try:
        status = os.stat(folder)
        identity = (status.st_dev, status.st_ino)
        with os.scandir(folder) as entries:
            for entry in entries:
                # a folder sorts as "name/", which makes the whole walk ascend by key
                names.append(entry.name + "/" * _is_folder(entry))
    except OSError as error:
        return sorted(names), identity, f"cannot list {key_text(folder)}: {_reason(error)}"
    return sorted(names), identity, None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, or through a file
        return False


def _is_broken(path: str) -> bool:
    """Whether there is an entry that cannot be looked at. Pipes, sockets and devices are no such, and left out."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)  # a folder took the place of a file
    except OSError:
        return True


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return f"{type(error).__name__}: {text}"


# --- other stores --------------------------------------------------------------------------------

ToUri = Callable[[str], str]
"""From the name that a file system gives an entry to its URI."""


def walk_remote(
    file_system: fsspec.AbstractFileSystem, root: str, to_uri: ToUri, hidden: bool, options: Mapping[str, Any] | None
) -> Iterator[Source]:
    """Files below a folder, with one ``ls`` for each folder."""
    levels = [("", iter(sorted(_entries(file_system, root).items())))]
    while levels:
        prefix, rest = levels[-1]
        name, info = next(rest, (None, None))
        if name is None or info is None:
            levels.pop()
        elif is_hidden(name.rstrip("/")) and not hidden:
            continue
        elif not name.endswith("/"):
            yield remote_source(to_uri(str(info["name"])), info, prefix + name)
        else:
            path = str(info["name"]).rstrip("/")
            if len(levels) > MAX_DEPTH:
                message = f"folders in folders, {MAX_DEPTH} deep; a link may lead back to where it is"
                yield Source(key=prefix + name, uri=to_uri(path), fault=f"{redact_uri(to_uri(path))}: {message}")
                continue
            try:
                with store_errors(f"cannot list {redact_uri(to_uri(path))}", options, to_uri(path)):
                    found = _entries(file_system, path)
            except SourceUnreadable as error:
                yield Source(key=prefix + name, uri=to_uri(path), fault=str(error))
                continue
            levels.append((prefix + name, iter(sorted(found.items()))))


def _entries(file_system: fsspec.AbstractFileSystem, folder: str) -> dict[str, Mapping[str, Any]]:
    entries: dict[str, Mapping[str, Any]] = {}
    for info in file_system.ls(folder, detail=True):
        path = str(info["name"])
        name = path.rstrip("/").rpartition("/")[2]
        if path.rstrip("/") == folder.rstrip("/") or not name or name.startswith("?"):
            continue  # an object of the folder's own name; on web servers, the same page in another order
        entries[name + "/" * (info.get("type") == "directory")] = info
    return entries


def walk_s3(
    file_system: Any, root: str, to_uri: ToUri, hidden: bool, _options: Mapping[str, Any] | None
) -> Iterator[Source]:
    """Flat pages instead of ``ls``: a prefix may hold millions of objects, and fsspec would keep them all."""
    bucket, _, prefix = root.partition("/")
    prefix = prefix + "/" if prefix else ""
    request: dict[str, Any] = {"Bucket": bucket, "Prefix": prefix}
    while True:
        page = file_system.call_s3("list_objects_v2", **request)
        for item in page.get("Contents", ()):
            key = item["Key"][len(prefix) :]
            marker = item["Key"].endswith("/") and not item["Size"]  # of a folder, as some tools leave behind
            if marker or (is_hidden(key.rstrip("/")) and not hidden):
                continue
            uri = to_uri(f"{bucket}/{item['Key']}")
            if item["Key"].endswith("/"):  # which clients take for a folder's, whatever is in it
                what = "has content, but the name of a folder; copy it to a name without the slash"
                yield Source(key=key or "/", uri=uri, fault=f"{redact_uri(uri)} {what}")
                continue
            yield remote_source(uri, {**item, "size": item["Size"]}, key)
        if not page.get("IsTruncated"):
            return
        request["ContinuationToken"] = page["NextContinuationToken"]


def has_entries(file_system: Any, path: str) -> bool:
    """Whether something lies below a name that is an object itself."""
    path = path.rstrip("/")
    try:
        if not hasattr(file_system, "call_s3"):
            return bool(_entries(file_system, path + "/"))
        bucket, _, key = path.partition("/")
        page = file_system.call_s3("list_objects_v2", Bucket=bucket, Prefix=f"{key}/", MaxKeys=2)
        return any(item["Key"] != f"{key}/" for item in page.get("Contents", ()))
    except Exception:  # noqa: BLE001 - that this is no folder is said in many ways; or listing is not allowed
        return False
