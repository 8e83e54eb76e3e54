"""The two tables beside the index: sources that could not be read, and sources that are no pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

from lichen.errors import CorruptArchive
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.store import Store
from lichen.pipeline.parquet.bounded import BoundedParquet
from lichen.pipeline.secrets import redact, redact_uri

MAX_TABLE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantined:
    """A source whose bytes could not be read."""

    key: str
    uri: str
    error: str
    message: str
    attempt: str
    size: int | None = None
    mtime: float | None = None
    etag: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A source that is no picture."""

    key: str
    uri: str
    reason: str
    attempt: str
    size: int | None = None
    mtime: float | None = None
    etag: str | None = None


Reject: TypeAlias = type[Quarantined] | type[Skipped]
_TYPES = {"size": pa.int64(), "mtime": pa.float64()}


def schema_of(kind: Reject) -> pa.Schema:
    """The columns of a table of this kind: the fields of the class."""
    names = [field.name for field in fields(kind)]
    return pa.schema([pa.field(name, _TYPES.get(name, pa.string())) for name in names])


def table_bytes(rows: Iterable[Quarantined | Skipped], kind: Reject) -> bytes:
    """A Parquet file of the rows, in the order of their keys, without secrets."""
    ordered: list[dict[str, Any]] = [asdict(row) for row in sorted(rows, key=lambda row: row.key)]
    for row in ordered:
        row["uri"] = redact_uri(row["uri"])
        if "message" in row:
            row["message"] = redact(row["message"])
    schema = schema_of(kind).with_metadata({"lichen.format": str(layout.FORMAT)})
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(ordered, schema=schema), sink, compression="zstd", write_page_checksum=True)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def read_table(store: Store, path: str, kind: Reject) -> pa.Table:
    """Read a table back; raises ``CorruptArchive`` if it is malformed."""
    data = store.read(path, limit=MAX_TABLE_BYTES)
    file = BoundedParquet.of_bytes(data, path, max_bytes=MAX_TABLE_BYTES)
    if file.schema.remove_metadata() != schema_of(kind):
        raise CorruptArchive(f"{path}: not the columns of a {kind.__name__} table")
    return file.read_all(file.schema.names).replace_schema_metadata(None)
