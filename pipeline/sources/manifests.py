"""Manifests: lists of URIs as text (one a line, ``#`` comments) or Parquet.

Parquet has a column ``uri``, and may have ``key``, ``size`` and ``etag``. A line or a row that cannot be one is an
entry with a fault, so that it is named and stops no other; a file that has hardly anything else is no manifest.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa

from lichen.errors import CorruptArchive, UsageError
from lichen.pipeline.archive.bounded import BoundedParquet
from lichen.pipeline.archive.store_file import StoreFile
from lichen.pipeline.sources.base import is_utf8
from lichen.pipeline.sources.secrets import redact_uri, without_query
from lichen.pipeline.sources.stores import open_binary, store_errors

MAX_LINE = 1 << 16
MAX_SIZE = 1 << 60
MAX_GROUP = 1 << 30
"""Most bytes of the pages of one row group of a manifest, in the columns that are read."""
BATCH = 8192

_SAMPLE = 64
"""Entries by which a file is told from something that is no manifest: at least half of them must be good."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a manifest: a URI, absolute or relative to the manifest, and perhaps its key.

    ``number`` is that of the line or row, from 1. ``size`` (bytes) and ``etag`` are what the store would tell of the
    object; by them an update sees that it changed. ``fault`` says what is wrong with the line.
    """

    uri: str
    number: int
    key: str | None = None
    size: int | None = None
    etag: str | None = None
    fault: str | None = None


def read_manifest(uri: str, options: Mapping[str, Any] | None) -> Iterator[Entry]:
    """Stream the entries of a manifest. Raises ``UsageError`` if it is none, ``SourceUnreadable`` if a store fails."""
    name = redact_uri(uri)
    parse = _parse_parquet if without_query(uri).lower().endswith(".parquet") else _parse_text
    with store_errors(f"cannot read the manifest {name}", options, uri), open_binary(uri, options) as file:
        yield from _if_manifest(parse(file, name), name)


def _if_manifest(entries: Iterable[Entry], name: str) -> Iterator[Entry]:
    stream = iter(entries)
    sample = list(itertools.islice(stream, _SAMPLE))
    faults = [entry.fault for entry in sample if entry.fault is not None]
    if faults and len(faults) * 2 > len(sample):
        raise UsageError(f"{name} is no list of URIs: {faults[0]}")
    yield from sample
    yield from stream


# --- text ----------------------------------------------------------------------------------------


def _parse_text(file: IO[bytes], name: str) -> Iterator[Entry]:
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        fault = None
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            text, fault = "", "not UTF-8"
        if len(line) == MAX_LINE and not line.endswith(b"\n"):
            fault = f"longer than {MAX_LINE:,} bytes"
            while (rest := file.readline(MAX_LINE)) and not rest.endswith(b"\n"):
                pass
        elif "\0" in text:
            fault = "null bytes, which no URI has"
        elif text and _is_nowhere(text):
            fault = "names no file"
        if fault is not None:
            yield Entry(uri="", number=number, fault=f"line {number} of {name}: {fault}")
        elif text and not text.startswith("#"):
            yield Entry(uri=text, number=number)


def _is_nowhere(uri: str) -> bool:
    path = uri.partition("://")[2] or uri
    return all(part in ("", ".", "..") for part in path.split("/"))


# --- Parquet -------------------------------------------------------------------------------------


def _parse_parquet(file: IO[bytes], name: str) -> Iterator[Entry]:
    number = 0
    try:
        table = BoundedParquet(_store_file(file), name, max_bytes=MAX_GROUP)
        columns = _columns(table.schema, name)
        for group in range(table.metadata.num_row_groups):
            for batch in table.batches(group, columns, BATCH):
                for row in batch.to_pylist():
                    number += 1
                    yield _row_entry(row, number, name)
    except (CorruptArchive, pa.ArrowException, OSError) as error:
        if number == 0:
            raise UsageError(f"{name} is no readable Parquet file: {error}") from error
        yield Entry(uri="", number=number + 1, fault=f"{name} is damaged behind row {number}: {error}")


def _store_file(file: IO[bytes]) -> StoreFile:
    def read(offset: int, length: int) -> bytes:
        file.seek(offset)
        return file.read(length)

    return StoreFile(read, file.seek(0, 2))


def _columns(schema: pa.Schema, name: str) -> list[str]:
    columns = [column for column in ("uri", "key", "size", "etag") if column in schema.names]
    if "uri" not in columns:
        raise UsageError(f"{name} has no column 'uri', only {', '.join(schema.names[:20])}")
    for column in columns:
        kind = schema.field(column).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if pa.types.is_null(kind) and column != "uri":
            continue
        if column == "size":
            # pandas makes floating-point numbers of integers where some are missing
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
                raise UsageError(f"{name}: column 'size' must be integers, not {kind}")
        elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
            raise UsageError(f"{name}: column {column!r} must be strings, not {kind}")
    return columns


def _row_entry(row: Mapping[str, Any], number: int, name: str) -> Entry:
    where = f"row {number} of {name}"
    uri, size, etag = row["uri"], row.get("size"), row.get("etag")
    if not uri or not is_utf8(uri) or "\0" in uri:
        return Entry(uri="", number=number, fault=f"{where}: no URI")
    if len(uri) > MAX_LINE or len(row.get("key") or "") > MAX_LINE:
        return Entry(uri="", number=number, fault=f"{where}: longer than {MAX_LINE:,} characters")
    if row.get("key") is None and _is_nowhere(uri):
        return Entry(uri="", number=number, fault=f"{where}: names no file")
    if size is not None and size != size:  # not a number, which is what pandas writes for nothing
        size = None
    if size is not None and (not 0 <= size < MAX_SIZE or size != int(size)):
        return Entry(uri=uri, number=number, key=row.get("key") or None, fault=f"{where} cannot have {size} bytes")
    return Entry(
        uri=uri,
        number=number,
        key=row.get("key") or None,
        size=None if size is None else int(size),
        etag=(etag.strip('"') or None) if etag else None,
    )
