"""One source, how its URI is written, and how its bytes are read.

A URI is an absolute local path as it is (``/data/a b#1.jpg``), or ``scheme://...`` for every other store. A
local path that is not valid UTF-8 (such names exist on old disks, but not in a Parquet column) is written as
``file-quoted:`` and the percent-encoded bytes of the path.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import fsspec
import fsspec.asyn

from lichen.models.errors import SourceUnreadable, UsageError

QUOTED = "file-quoted:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A picture file to be archived, as the listing knows it; nothing here has been read yet.

    ``key`` is its name in the archive. ``size`` (bytes), ``mtime`` (unix seconds) and ``etag`` are None where
    the listing does not tell. ``offset`` is set for a member of a tar file: the bytes are then ``size`` bytes
    from there inside ``uri``, and mtime and etag are those of the tar file.
    """

    key: str
    uri: str
    size: int | None = None
    mtime: float | None = None
    etag: str | None = None
    offset: int | None = None


def read_source(source: Source, *, storage_options: Mapping[str, Any] | None = None) -> bytes:
    """The bytes of a source. Raises ``SourceUnreadable`` with the cause, whatever the store's error was."""
    try:
        if is_local(source.uri):
            data = _read_local(local_path(source.uri), source)
        else:
            data = _read_remote(source, storage_options)
    except store_failures() as error:
        raise SourceUnreadable(f"{source.uri}: {type(error).__name__}: {error}") from error
    if source.offset is not None and len(data) != source.size:
        raise SourceUnreadable(f"{source.uri}: {len(data)} of {source.size} bytes at {source.offset}")
    return data


def _read_local(path: str, source: Source) -> bytes:
    with open(path, "rb") as file:
        if source.offset is None:
            return file.read()
        _check_version(source, Source(key=source.key, uri=source.uri, mtime=os.fstat(file.fileno()).st_mtime))
        file.seek(source.offset)
        return file.read(source.size)


def _check_version(source: Source, now: Source) -> None:
    """In another version of a tar file other bytes lie where the listing found this member."""
    known = (source.etag, now.etag) if source.etag and now.etag else (source.mtime, now.mtime)
    old, new = known
    if isinstance(old, float) and isinstance(new, float):  # stores and file systems keep times to a microsecond or so
        old, new = round(old, 5), round(new, 5)
    if old is not None and new is not None and old != new:
        raise SourceUnreadable(
            f"{source.uri} has changed since it was listed; run the job on it again when this one is over"
        )


def _read_remote(source: Source, storage_options: Mapping[str, Any] | None) -> bytes:
    file_system, path = open_file_system(source.uri, storage_options)
    if source.offset is None:
        return bytes(file_system.cat_file(path))
    end = source.offset + (source.size or 0)
    if source.etag and source.size and hasattr(file_system, "call_s3"):
        try:
            return _read_s3(file_system, path, source.offset, end, source.etag)
        except store_failures():
            pass  # why, is found out below
    file_system.invalidate_cache(path)
    _check_version(source, remote_source(source.uri, file_system.info(path), source.key))
    if source.size == 0:
        return b""  # an empty range is an error on S3
    return bytes(file_system.cat_file(path, start=source.offset, end=end))


def _read_s3(file_system: Any, path: str, start: int, end: int, etag: str) -> bytes:
    """Bytes of one version of an object, in one request."""
    bucket, key, _ = file_system.split_path(path)
    answer = file_system.call_s3(
        "get_object", Bucket=bucket, Key=key, Range=f"bytes={start}-{end - 1}", IfMatch=f'"{etag}"'
    )
    try:
        return bytes(fsspec.asyn.sync(file_system.loop, answer["Body"].read))
    finally:
        answer["Body"].close()


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


def open_file_system(uri: str, storage_options: Mapping[str, Any] | None) -> tuple[fsspec.AbstractFileSystem, str]:
    """The file system of a URI and the path in it. Not ``url_to_fs``: names may contain its chaining ``::``.

    Raises ``UsageError`` for a scheme that fsspec does not know or whose package is missing.
    """
    scheme = uri.partition("://")[0]
    try:
        file_system = fsspec.filesystem(scheme, **dict(storage_options or {}))
        return file_system, str(fsspec.core.strip_protocol(uri))
    except (ValueError, ImportError) as error:
        raise UsageError(f"cannot open {uri}: {error}") from error


@functools.cache
def store_failures() -> tuple[type[BaseException], ...]:
    """What reading from a store may raise: OS errors, and those of botocore and aiohttp that are none."""
    failures: list[type[BaseException]] = [OSError, ValueError, RuntimeError, EOFError, MemoryError]
    try:
        from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

        failures += [BotoCoreError, ClientError]
    except ImportError:
        pass
    try:
        from aiohttp import ClientError as HttpClientError

        failures.append(HttpClientError)
    except ImportError:
        pass
    return tuple(failures)
