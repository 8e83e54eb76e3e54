"""Manifests: lists of URIs as text (one a line, ``#`` comments) or Parquet.

Parquet has a column ``uri``, and may have ``key``, ``size`` and ``etag``.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from lichen.models.errors import SourceUnreadable, UsageError
from lichen.pipeline.sources.base import is_local, local_path, open_file_system, store_failures

MAX_LINE = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a manifest: a URI, absolute or relative to the manifest, and perhaps its key.

    ``size`` (bytes) and ``etag`` are what the store would tell of the object; by them an update sees that it changed.
    """

    uri: str
    key: str | None = None
    size: int | None = None
    etag: str | None = None


def read_manifest(uri: str, options: Mapping[str, Any] | None) -> Iterator[Entry]:
    """Stream the entries of a manifest. Raises ``UsageError`` if it is malformed."""
    parse = _parse_parquet if uri.lower().endswith(".parquet") else _parse_text
    try:
        with open_binary(uri, options) as file:
            yield from parse(file, uri)
    except store_failures() as error:
        raise SourceUnreadable(f"cannot read the manifest {uri}: {error}") from error


def open_binary(uri: str, options: Mapping[str, Any] | None, **settings: Any) -> IO[bytes]:
    """Open a URI for reading; ``settings`` (caching) matter only for stores that are not local."""
    if is_local(uri):
        return open(local_path(uri), "rb")
    file_system, path = open_file_system(uri, options)
    # fsspec's own files lack parts of the standard interface, such as readline with a limit
    return io.BufferedReader(file_system.open(path, "rb", **settings))


def _parse_text(file: IO[bytes], uri: str) -> Iterator[Entry]:
    number = 0
    while line := file.readline(MAX_LINE):
        number += 1
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError as error:
            raise UsageError(f"{uri}, line {number}: not UTF-8") from error
        if len(line) == MAX_LINE or "\0" in text:
            raise UsageError(f"{uri}, line {number}: this is no list of URIs")
        if text and not text.startswith("#"):
            yield Entry(uri=text)


def _parse_parquet(file: IO[bytes], uri: str) -> Iterator[Entry]:
    try:
        table = pq.ParquetFile(file)
        schema = table.schema_arrow
        columns = [name for name in ("uri", "key", "size", "etag") if name in schema.names]
        if "uri" not in columns:
            raise UsageError(f"{uri} has no column 'uri', only {', '.join(schema.names[:20])}")
        for name in columns:
            kind = schema.field(name).type
            if name == "size":
                if not pa.types.is_integer(kind):
                    raise UsageError(f"{uri}: column 'size' must be integers, not {kind}")
            elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
                raise UsageError(f"{uri}: column {name!r} must be strings, not {kind}")
        for batch in table.iter_batches(batch_size=8192, columns=columns):
            for row in batch.to_pylist():
                if not row["uri"]:
                    raise UsageError(f"{uri} has rows without a URI")
                size, etag = row.get("size"), row.get("etag")
                if size is not None and not 0 <= size < 1 << 60:
                    raise UsageError(f"{uri}: {row['uri']} cannot have {size} bytes")
                etag = etag.strip('"') if etag else None
                yield Entry(uri=row["uri"], key=row.get("key") or None, size=size, etag=etag)
    except pa.ArrowException as error:
        raise UsageError(f"{uri} is no readable Parquet file: {error}") from error
