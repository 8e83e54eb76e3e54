"""The bytes of one source: bounded, from regular files alone, and held against what the store tells of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from hashlib import sha256
from itertools import pairwise
from typing import Any

from lichen import defaults
from lichen.errors import SourceUnreadable, UsageError
from lichen.pipeline.logs import Log
from lichen.pipeline.sources.base import Source, is_local, local_path, remote_source
from lichen.pipeline.sources.fetch import CHUNK, Fetched, fetch, too_large
from lichen.pipeline.sources.secrets import is_redacted, redact_uri
from lichen.pipeline.sources.stores import open_file_system, open_regular, store_errors

log = Log(__name__)
MAX_SOURCE_BYTES = defaults.SOURCE_BYTES
"""Bytes that a source may have unless told otherwise."""

_CUTS = ((1, 3), (3, 2))
"""Where further reads cut the source: behind some first bytes, and at a fraction. What damages one place of every
answer, counted from its beginning or by its length, hits other bytes then."""


def read_source(
    source: Source, *, storage_options: Mapping[str, Any] | None = None, max_bytes: int = MAX_SOURCE_BYTES
) -> bytes:
    """The bytes of a source. Raises ``SourceUnreadable`` with the cause, whatever the store's error was.

    What comes from a store is compared with the length and the MD5 that it tells (an ETag of 32 hexadecimal digits
    usually is one). Where they differ the source is read again, for not every such ETag is an MD5: bytes that match,
    or that came twice, are the source's. No more than ``max_bytes`` are ever read.
    """
    _check_readable(source, max_bytes)
    with store_errors(redact_uri(source.uri), storage_options, source.uri):
        try:
            if is_local(source.uri):
                return _read_local(source, max_bytes)
            found = _read_remote(source, storage_options, max_bytes)
            if found.matches is None or found.matches(found.data):
                return found.data
            return _settle(source, found.data, found.matches, storage_options, max_bytes)
        except UsageError as error:  # a scheme that nobody knows, in a manifest
            raise SourceUnreadable(str(error)) from error


def read_again(
    source: Source,
    data: bytes,
    *,
    storage_options: Mapping[str, Any] | None = None,
    max_bytes: int = MAX_SOURCE_BYTES,
) -> bytes:
    """Make sure of bytes that look damaged, before they are taken for what the source holds.

    ``data`` is what ``read_source`` gave. The source is read once more, in other pieces; if the same bytes come, it
    is the source that is damaged, and they are returned. If not, a third read decides: the bytes that came twice are
    returned, which may be others than ``data``. Raises ``SourceUnreadable`` if all three differ, or if the source
    cannot be read any more. Cheap for local files; for remote sources it costs another download.
    """
    _check_readable(source, max_bytes)
    with store_errors(redact_uri(source.uri), storage_options, source.uri):
        try:
            return _settle(source, data, None, storage_options, max_bytes)
        except UsageError as error:
            raise SourceUnreadable(str(error)) from error


def _check_readable(source: Source, max_bytes: int) -> None:
    if source.fault is not None:
        raise SourceUnreadable(source.fault)
    if source.size is not None and source.size > max_bytes:
        raise too_large(source.uri, source.size, max_bytes)
    if is_redacted(source.uri):
        raise SourceUnreadable(
            f"{source.uri}: a password or signature belongs there, which is never written down, and the sources of "
            "the job do not list this one any more"
        )


def _settle(
    source: Source,
    first: bytes,
    matches: Callable[[bytes], bool] | None,
    options: Mapping[str, Any] | None,
    max_bytes: int,
) -> bytes:
    """The bytes of a source that match what was listed, or else those that came twice."""
    seen = {sha256(first).digest()}
    for shift, fraction in _CUTS:
        log.info("the source looks damaged, or is not what its store tells; reading it again", key=source.key)
        data = _reread(source, (shift, shift + len(first) // fraction), len(first), options, max_bytes)
        digest = sha256(data).digest()
        if digest in seen or (matches is not None and matches(data)):
            return data
        seen.add(digest)
    raise SourceUnreadable(
        f"{redact_uri(source.uri)}: {len(seen)} reads gave different bytes, so something between the store and here "
        "damages them; check the network and its proxies, and run the job again"
    )


def _reread(
    source: Source, cuts: tuple[int, ...], length: int, options: Mapping[str, Any] | None, max_bytes: int
) -> bytes:
    """The bytes again; from a store in pieces, of the ``length`` that was seen or whatever there is now."""
    if is_local(source.uri):
        return _read_local(source, max_bytes)
    start = source.offset or 0
    end = None if source.offset is None else start + (source.size or 0)
    inner = [start + cut for cut in cuts if 0 < cut < length]
    if not inner:
        return _read_remote(source, options, max_bytes).data
    pieces = pairwise([start, *inner, end])
    found = [fetch(source.uri, options, start=a or 0, end=b, max_bytes=max_bytes).data for a, b in pieces]
    return _whole(source, b"".join(found))


def _whole(source: Source, data: bytes) -> bytes:
    if source.offset is not None and len(data) != source.size:
        raise SourceUnreadable(f"{redact_uri(source.uri)}: {len(data)} of {source.size} bytes at {source.offset}")
    return data


# --- local ---------------------------------------------------------------------------------------


def _read_local(source: Source, max_bytes: int) -> bytes:
    with open_regular(local_path(source.uri)) as file:
        status = os.fstat(file.fileno())
        if source.offset is not None:
            _check_version(source, Source(key=source.key, uri=source.uri, mtime=status.st_mtime))
            file.seek(source.offset)
            return _whole(source, file.read(min(source.size or 0, max(0, status.st_size - source.offset))))
        if status.st_size > max_bytes:
            raise too_large(source.uri, status.st_size, max_bytes)
        data = file.read(status.st_size + 1)
        if len(data) <= status.st_size:
            return data
        grown = bytearray(data)  # or a file of the kernel, which has no size
        while len(grown) <= max_bytes:
            chunk = file.read(CHUNK)
            if not chunk:
                return bytes(grown)
            grown += chunk
        raise too_large(source.uri, None, max_bytes)


def _check_version(source: Source, now: Source) -> None:
    """In another version of a tar file other bytes lie where the listing found this member."""
    known = (source.etag, now.etag) if source.etag and now.etag else (source.mtime, now.mtime)
    old, new = known
    if isinstance(old, float) and isinstance(new, float):  # stores and file systems keep times to a microsecond or so
        old, new = round(old, 5), round(new, 5)
    if old is not None and new is not None and old != new:
        raise SourceUnreadable(
            f"{redact_uri(source.uri)} has changed since it was listed; run the job on it again when this one is over"
        )


# --- remote --------------------------------------------------------------------------------------


def _read_remote(source: Source, options: Mapping[str, Any] | None, max_bytes: int) -> Fetched:
    if source.offset is None:
        return fetch(source.uri, options, max_bytes=max_bytes, size=source.size)
    end = source.offset + (source.size or 0)
    file_system, path = open_file_system(source.uri, options)
    if source.etag and source.size and hasattr(file_system, "call_s3"):
        try:  # one version of the object, in one request
            data = fetch(source.uri, options, start=source.offset, end=end, max_bytes=max_bytes, etag=source.etag).data
            return Fetched(data=_whole(source, data))
        except Exception:  # noqa: BLE001, S110 - why, is found out below
            pass
    file_system.invalidate_cache(path)
    _check_version(source, remote_source(source.uri, file_system.info(path), source.key))
    data = fetch(source.uri, options, start=source.offset, end=end, max_bytes=max_bytes).data
    return Fetched(data=_whole(source, data))
