"""Bytes out of stores that are not local: a whole object or a part of it, never more than allowed.

S3 and HTTP are read as streams, so that a limit holds whatever the store says of the size, and so that what the
answer tells (length, MD5) is known of the very bytes that came with it.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import md5
from typing import Any

import fsspec.asyn

from lichen.errors import SourceUnreadable
from lichen.pipeline.logs import Log
from lichen.pipeline.secrets import redact_uri
from lichen.pipeline.sources.stores import open_file_system

log = Log(__name__)
CHUNK = 1 << 20
BODY_READS = 3
"""Times that an answer is asked for again whose body broke off; clients repeat only requests without an answer."""

_MD5 = re.compile(r"([0-9a-f]{32})(?:-([1-9]\d{0,4}))?")
_MIB = 1 << 20
_USUAL_PARTS = (8, 5, 16, 50, 10, 15, 17, 25, 32, 64, 100, 128)
_MAX_GUESSES = 24
_NOT_MD5 = ("aws:kms", "aws:kms:dsse")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """Bytes, and whether they are those that the store says they are; None where it does not say."""

    data: bytes
    matches: Callable[[bytes], bool] | None = None


def fetch(
    uri: str,
    options: Mapping[str, Any] | None,
    *,
    start: int = 0,
    end: int | None = None,
    max_bytes: int,
    size: int | None = None,
    etag: str | None = None,
) -> Fetched:
    """The bytes from ``start`` up to ``end`` or the end of the object.

    ``size`` is what the listing told of the whole object. With ``etag``, another version of the object is refused
    where the store can do that. Raises ``SourceUnreadable`` for more than ``max_bytes``, else what the file system
    raises.
    """
    file_system, path = open_file_system(uri, options)
    if end is not None and end <= start:
        return Fetched(data=b"")  # an empty range is an error on S3
    reach = (start, end, max_bytes, uri)
    if hasattr(file_system, "call_s3"):
        return _run(file_system, _from_s3(file_system, path, reach, etag))
    if "http" in file_system.protocol and hasattr(file_system, "set_session"):
        return _run(file_system, _from_http(file_system, path, reach))
    return Fetched(data=_from_other(file_system, path, reach, size))


Reach = tuple[int, int | None, int, str]


def _run(file_system: Any, work: Awaitable[Fetched]) -> Fetched:
    async def result() -> Fetched:
        return await work

    found: Fetched = fsspec.asyn.sync(file_system.loop, result)
    return found


def too_large(uri: str, size: int | None, max_bytes: int) -> SourceUnreadable:
    """The error for a source beyond the limit; ``size`` is None where it was not read to the end."""
    has = f"more than {max_bytes:,}" if size is None else f"{size:,}"
    return SourceUnreadable(
        f"{redact_uri(uri)} has {has} bytes, and sources may have {max_bytes:,}; --max-source-bytes raises that"
    )


async def _limited(read: Callable[[int], Awaitable[bytes]], uri: str, max_bytes: int) -> bytes:
    data = bytearray()
    while chunk := await read(CHUNK):
        data += chunk
        if len(data) > max_bytes:
            raise too_large(uri, None, max_bytes)
    return bytes(data)


async def _from_s3(file_system: Any, path: str, reach: Reach, etag: str | None) -> Fetched:
    start, end, max_bytes, uri = reach
    bucket, key, version = file_system.split_path(path)
    request: dict[str, Any] = {"Bucket": bucket, "Key": key}
    if version:
        request["VersionId"] = version
    if start or end is not None:
        request["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
    if etag:
        request["IfMatch"] = f'"{etag}"'
    for attempt in range(BODY_READS):
        answer = await file_system._call_s3("get_object", **request)  # noqa: SLF001 - the one way to a stream
        body, length = answer["Body"], answer.get("ContentLength")
        try:
            if length is not None and length > max_bytes:
                raise too_large(uri, length, max_bytes)
            data = await _limited(body.read, uri, max_bytes)
            if length is not None and len(data) != length:
                raise OSError(f"{len(data)} of {length} bytes came")
        except SourceUnreadable:
            raise
        except Exception as error:
            if attempt == BODY_READS - 1:
                raise
            log.info("the store broke off at %s, reading again: %s", uri, error)
            continue
        finally:
            body.close()
        whole = "Range" not in request
        sealed = answer.get("ServerSideEncryption") in _NOT_MD5 or answer.get("SSECustomerAlgorithm")
        return Fetched(data=data, matches=_etag_check(answer.get("ETag")) if whole and not sealed else None)
    raise AssertionError("unreachable")


async def _from_http(file_system: Any, url: str, reach: Reach) -> Fetched:
    start, end, max_bytes, uri = reach
    settings = dict(file_system.kwargs)
    if start or end is not None:
        wanted = f"bytes={start}-{'' if end is None else end - 1}"
        settings["headers"] = {**settings.get("headers", {}), "Range": wanted, "Accept-Encoding": "identity"}
    session = await file_system.set_session()
    async with session.get(file_system.encode_url(url), **settings) as answer:
        if answer.status == 404:
            raise FileNotFoundError(url)
        answer.raise_for_status()
        if answer.status == 206 or not (start or end is not None):
            data = await _limited(answer.content.read, uri, max_bytes)
        else:  # a server that does not know ranges sends everything
            data = (await _limited(answer.content.read, uri, start + max_bytes))[start:end]
        encoded = answer.headers.get("Content-Encoding", "identity") != "identity"
        if answer.status != 200 or encoded or start or end is not None:
            return Fetched(data=data)
        return Fetched(data=data, matches=_header_check(answer.headers))


def _from_other(file_system: Any, path: str, reach: Reach, size: int | None) -> bytes:
    start, end, max_bytes, uri = reach
    whole = start == 0 and end is None
    if whole and size is None:
        size = _size_now(file_system, path)
    if whole and size is not None and size > max_bytes:
        raise too_large(uri, size, max_bytes)
    if whole and size == 0:
        return bytes(file_system.cat_file(path))  # a range of an empty object is an error on some stores
    stop = start + max_bytes + 1 if end is None else end
    data = bytes(file_system.cat_file(path, start=start, end=stop))
    if len(data) > max_bytes:
        raise too_large(uri, None, max_bytes)
    if whole and size is not None and len(data) != size:  # it may have changed since it was listed
        file_system.invalidate_cache(path)
        size = _size_now(file_system, path)
        if size is not None and len(data) != size:
            raise OSError(f"{len(data)} of {size} bytes came")
    return data


def _size_now(file_system: Any, path: str) -> int | None:
    size = file_system.info(path).get("size")
    return size if isinstance(size, int) else None


def _etag_check(etag: object) -> Callable[[bytes], bool] | None:
    """A comparison with an ETag that looks like an MD5, as most stores give to what was uploaded in one piece.

    Of what was uploaded in several (``<hex>-3``) it is the MD5 of their MD5s; how large they were has to be guessed.
    """
    match = _MD5.fullmatch(etag.strip('"').lower()) if isinstance(etag, str) else None
    if match is None:
        return None
    digest, parts = match[1], match[2]
    if parts is None:
        return lambda data: _md5(data).hex() == digest
    return lambda data: any(
        _md5(b"".join(_md5(data[at : at + size]) for at in range(0, len(data), size))).hex() == digest
        for size in part_sizes(len(data), int(parts))
    )


def part_sizes(length: int, parts: int) -> list[int]:
    """Sizes of parts, in whole MiB, with which an object has so many of them; those that clients use come first."""
    if parts == 1:
        return [max(1, length)]
    smallest = -(-length // (parts * _MIB))
    largest = (length - 1) // ((parts - 1) * _MIB) if parts else 0
    fitting = [size for size in (*_USUAL_PARTS, *range(smallest, largest + 1)) if smallest <= size <= largest]
    return [size * _MIB for size in dict.fromkeys(fitting[:_MAX_GUESSES])]


def _md5(data: bytes) -> bytes:
    return md5(data, usedforsecurity=False).digest()


def _header_check(headers: Mapping[str, str]) -> Callable[[bytes], bool] | None:
    """A comparison with the MD5 that an HTTP answer states, or else with its ETag."""
    stated = re.search(r"md5=([A-Za-z0-9+/]{22}==)", headers.get("x-goog-hash", ""))
    code = stated[1] if stated else headers.get("Content-MD5")
    if code:
        return lambda data: base64.b64encode(_md5(data)).decode() == code
    return _etag_check(headers.get("ETag"))
