"""The index: one row for each picture, as a Parquet table (section 6 of docs/format.md).

Rows become a table in the order of their keys, and a file that everything reads that reads Parquet:

    >>> import io
    >>> stored = {"status": "stored", "shard": "20261121T120701-3fa9c1.00000-0123456789ab.bin", "crc32c": 0}
    >>> stored |= {"length": 100, "source_bytes": 100, "source_sha256": bytes(32)}
    >>> rows = [IndexRow(key="b.jpg", offset=100, **stored), IndexRow(key="a.jpg", offset=0, **stored)]
    >>> data = index_bytes(to_table(rows), {"lichen.shard": "20261121T120701-3fa9c1.00000"}, {})
    >>> table = pq.read_table(io.BytesIO(data))
    >>> table.column("key").to_pylist()
    ['a.jpg', 'b.jpg']
    >>> check_table(table, "index", {stored["shard"]: 200})
    >>> to_rows(table)[1] == rows[0]
    True

Nothing in an index is believed. Here the second picture ends behind its payload file:

    >>> check_table(table, "index", {stored["shard"]: 150})
    Traceback (most recent call last):
        ...
    lichen.errors.CorruptArchive: index: row 1: offset '100' leads out of the payload file
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lichen.errors import CorruptArchive
from lichen.pipeline.archive.layout import DIGEST_PATTERN, FORMAT, is_name
from lichen.pipeline.formats import Packing

ROW_GROUP = 10_000
MAX_OFFSET = 2**48
MAX_LENGTH = 2**40
MAX_SECONDS = 1e12
MAX_SIDE = 2**31 - 1
"""Pixels along one side of a picture."""

Status = Literal["compressed", "packed", "stored"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What it takes to find, read and decode one picture: the first columns of the index."""

    key: str
    status: Status
    shard: str
    """Name of the payload file."""
    offset: int
    length: int
    crc32c: int
    side_offset: int | None = None
    side_length: int | None = None
    side_crc32c: int | None = None
    codec: str | None = None
    """Digest of the codec, 64 hexadecimal digits; None where packed or stored."""
    width: int | None = None
    height: int | None = None
    mode: str | None = None
    source_format: str | None = None
    packing: Packing | None = None
    """How a packed original was made smaller; None where compressed or stored, and in older archives."""
    source_bytes: int

    @property
    def is_original(self) -> bool:
        """Whether the archive has the file itself, packed or as it is, and not only its picture."""
        return self.status != "compressed"


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRow(Placement):
    """A whole row. ``source_mtime`` is in Unix seconds, kept to the microsecond; digests are raw bytes."""

    source_sha256: bytes
    source_mtime: float | None = None
    source_etag: str | None = None
    quality: float | None = None
    bit_depth: int | None = None
    bpp: float | None = None
    psnr: float | None = None
    ms_ssim: float | None = None
    block_psnr: float | None = None
    ssimulacra2: float | None = None
    """SSIMULACRA 2, at most 100; None where it was not measured, and in older archives."""
    symbols_digest: bytes | None = None
    pixels_digest: bytes | None = None
    reason: str | None = None
    damaged: bool | None = None
    """Whether data of the source are missing or damaged; None where nobody looked, and in older archives."""


def _field(name: str, kind: pa.DataType, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable)


SCHEMA = pa.schema(
    [
        _field("key", pa.string()),
        _field("status", pa.string()),
        _field("shard", pa.string()),
        _field("offset", pa.int64()),
        _field("length", pa.int64()),
        _field("crc32c", pa.uint32()),
        _field("side_offset", pa.int64(), True),
        _field("side_length", pa.int64(), True),
        _field("side_crc32c", pa.uint32(), True),
        _field("codec", pa.string(), True),
        _field("width", pa.int32(), True),
        _field("height", pa.int32(), True),
        _field("mode", pa.string(), True),
        _field("source_format", pa.string(), True),
        _field("packing", pa.string(), True),
        _field("source_bytes", pa.int64()),
        _field("source_sha256", pa.binary(32)),
        _field("quality", pa.float32(), True),
        _field("bit_depth", pa.uint8(), True),
        _field("source_mtime", pa.timestamp("us", "UTC"), True),
        _field("source_etag", pa.string(), True),
        _field("bpp", pa.float32(), True),
        _field("psnr", pa.float32(), True),
        _field("ms_ssim", pa.float32(), True),
        _field("block_psnr", pa.float32(), True),
        _field("ssimulacra2", pa.float32(), True),
        _field("symbols_digest", pa.binary(16), True),
        _field("pixels_digest", pa.binary(16), True),
        _field("reason", pa.string(), True),
        _field("damaged", pa.bool_(), True),
    ]
)
COLUMNS: tuple[str, ...] = tuple(SCHEMA.names)
LATER_COLUMNS = frozenset({"damaged", "packing", "ssimulacra2"})
"""Columns that archives of earlier versions lack; they read as null."""
PLACEMENT_COLUMNS: tuple[str, ...] = tuple(field.name for field in dataclasses.fields(Placement))

_DICTIONARY = ["status", "shard", "codec", "quality", "mode", "bit_depth", "source_format", "packing", "reason"]
_ENCODING = {
    "key": "DELTA_BYTE_ARRAY",
    "offset": "DELTA_BINARY_PACKED",
    "length": "DELTA_BINARY_PACKED",
    "side_offset": "DELTA_BINARY_PACKED",
    "side_length": "DELTA_BINARY_PACKED",
    "width": "DELTA_BINARY_PACKED",
    "height": "DELTA_BINARY_PACKED",
    "source_bytes": "DELTA_BINARY_PACKED",
    "source_mtime": "DELTA_BINARY_PACKED",
    "bpp": "BYTE_STREAM_SPLIT",
    "psnr": "BYTE_STREAM_SPLIT",
    "ms_ssim": "BYTE_STREAM_SPLIT",
    "ssimulacra2": "BYTE_STREAM_SPLIT",
    "block_psnr": "BYTE_STREAM_SPLIT",
}


# --- rows and tables --------------------------------------------------------------------------------


def import_pandas() -> None:
    """Make pyarrow look for pandas now, as it does at the first array of Python objects (0.2 s), and not later."""
    pa.array([""])


def to_table(rows: Iterable[IndexRow]) -> pa.Table:
    """The rows as a table in the order of their keys."""
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for row in sorted(rows, key=lambda row: row.key.encode()):
        for name, values in columns.items():
            values.append(getattr(row, name))
    columns["source_mtime"] = [microseconds(mtime) for mtime in columns["source_mtime"]]
    return pa.Table.from_pydict(columns, schema=SCHEMA)


def to_rows(table: pa.Table) -> list[IndexRow]:
    """The rows of a table that has all columns."""
    return [IndexRow(**values) for values in _values(table.select(list(COLUMNS)))]


def to_placements(table: pa.Table) -> list[Placement]:
    """The rows of a table that has at least the columns of ``Placement``."""
    return [Placement(**values) for values in _values(table.select(list(PLACEMENT_COLUMNS)))]


def with_later_columns(table: pa.Table, columns: Sequence[str]) -> pa.Table:
    """The table with exactly these columns; those that it lacks are nulls."""
    arrays = [
        table.column(name) if name in table.column_names else pa.nulls(table.num_rows, SCHEMA.field(name).type)
        for name in columns
    ]
    return pa.table(arrays, names=list(columns))


def _values(table: pa.Table) -> list[dict[str, Any]]:
    if "source_mtime" not in table.column_names:
        return table.to_pylist()  # type: ignore[no-any-return]
    position = table.column_names.index("source_mtime")
    numbers = table.column(position).cast(pa.int64())
    values: list[dict[str, Any]] = table.set_column(position, "source_mtime", numbers).to_pylist()
    for row in values:
        if row["source_mtime"] is not None:
            row["source_mtime"] /= 1e6
    return values


def microseconds(seconds: float | None) -> int | None:
    """A modification time as the index keeps it; None for one that no calendar has."""
    if seconds is None or not abs(seconds) < MAX_SECONDS:  # NaN is in no range
        return None
    return round(seconds * 1e6)


# --- writing ----------------------------------------------------------------------------------------


class IndexWriter:
    """Writes an index file to a local path or buffer; tables must come in key order."""

    def __init__(self, target: Any, metadata: Mapping[str, str], codecs: Mapping[str, Iterable[str]]) -> None:
        self.rows = 0
        self.min_key: str | None = None
        self.max_key: str | None = None
        self._pending = SCHEMA.empty_table()
        stated = {
            "lichen.format": str(FORMAT),
            "lichen.codecs": json.dumps({digest: sorted(codecs[digest]) for digest in sorted(codecs)}),
            **{f"lichen.{name}": value for name, value in metadata.items()},
        }
        self._writer = pq.ParquetWriter(
            target,
            SCHEMA.with_metadata(stated),
            compression="zstd",
            compression_level=9,
            use_dictionary=_DICTIONARY,
            column_encoding=_ENCODING,
            write_page_checksum=True,
            sorting_columns=[pq.SortingColumn(0)],
        )

    def write(self, table: pa.Table) -> None:
        if table.num_rows == 0:
            return
        if self.min_key is None:
            self.min_key = table.column("key")[0].as_py()
        self.max_key = table.column("key")[-1].as_py()
        self.rows += table.num_rows
        self._pending = pa.concat_tables([self._pending, table.cast(SCHEMA)])
        # Whole row groups only, however small the tables are that come in.
        whole = self._pending.num_rows // ROW_GROUP * ROW_GROUP
        if whole:
            self._writer.write_table(self._pending.slice(0, whole), row_group_size=ROW_GROUP)
            self._pending = self._pending.slice(whole)

    def close(self) -> None:
        if self._pending.num_rows:
            self._writer.write_table(self._pending, row_group_size=ROW_GROUP)
        self._writer.close()


def index_bytes(table: pa.Table, metadata: Mapping[str, str], codecs: Mapping[str, Iterable[str]]) -> bytes:
    """A whole index part as a file in memory (a shard's, so some megabytes)."""
    sink = pa.BufferOutputStream()
    writer = IndexWriter(sink, metadata, codecs)
    writer.write(table)
    writer.close()
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


# --- checking ---------------------------------------------------------------------------------------


def check_schema(schema: pa.Schema, where: str) -> None:
    """Raise ``CorruptArchive`` unless all columns are there with their types, apart from ``LATER_COLUMNS``."""
    for field in SCHEMA:
        number = schema.get_field_index(field.name)
        if number < 0 and field.name in LATER_COLUMNS and field.name not in schema.names:
            continue
        if number < 0 or schema.field(number).type != field.type:
            found = "missing" if number < 0 else f"of type {schema.field(number).type}"
            raise CorruptArchive(f"{where}: column {field.name} is {found}, not {field.type}")


def check_table(table: pa.Table, where: str, payload_sizes: Mapping[str, int] | None = None) -> None:
    """Raise ``CorruptArchive`` if a row claims what cannot be.

    Checks the columns that the table has. ``payload_sizes`` gives the size of every payload file that rows
    may name; without it only the form of the names is checked.
    """

    def refuse(column: str, wrong: Any, what: str) -> None:
        """``wrong`` is a boolean array; nulls count as fine."""
        number = pc.index(wrong, True).as_py()
        if number >= 0:
            value = table.column(column)[number].as_py()
            raise CorruptArchive(f"{where}: row {number}: {column} {str(value)[:100]!r} {what}")

    def has(*columns: str) -> bool:
        return all(column in table.column_names for column in columns)

    for field in SCHEMA:
        if not field.nullable and has(field.name) and table.column(field.name).null_count:
            raise CorruptArchive(f"{where}: column {field.name} has nulls")
    limits = {
        "offset": (0, MAX_OFFSET),
        "length": (0, MAX_LENGTH),
        "side_offset": (0, MAX_OFFSET),
        "side_length": (0, MAX_LENGTH),
        "source_bytes": (0, MAX_LENGTH),
        "width": (1, MAX_SIDE),
        "height": (1, MAX_SIDE),
    }
    for name, (low, high) in limits.items():
        if has(name):
            column = table.column(name)
            refuse(name, pc.or_(pc.less(column, low), pc.greater(column, high)), "is out of range")
    if has("key"):
        refuse("key", pc.equal(pc.binary_length(table.column("key")), 0), "is empty")
    if has("status"):
        known = pa.array(get_args(Status))
        refuse("status", pc.invert(pc.is_in(table.column("status"), value_set=known)), "is unknown")
    if has("packing"):
        unknown = pc.invert(pc.is_in(table.column("packing"), value_set=pa.array(get_args(Packing))))
        refuse("packing", pc.and_(unknown, pc.is_valid(table.column("packing"))), "is unknown")
    if has("packing", "status"):
        packed = pc.equal(table.column("status"), "packed")
        refuse("packing", pc.xor(packed, pc.is_valid(table.column("packing"))), "does not fit the status")
    if has("codec"):
        named = pc.match_substring_regex(table.column("codec"), f"^(?:{DIGEST_PATTERN})\\z")
        refuse("codec", pc.invert(named), "is no digest")
    if has("codec", "status"):
        compressed = pc.equal(table.column("status"), "compressed")
        refuse("codec", pc.and_(compressed, pc.is_null(table.column("codec"))), "is missing")
    if has("shard"):
        _check_shards(table, where, payload_sizes)
    sides = ("side_offset", "side_length", "side_crc32c")
    if has(*sides):
        first, *others = (pc.is_null(table.column(name)) for name in sides)
        for other in others:
            refuse("side_offset", pc.xor(first, other), "is null without its length and CRC, or they are")
    if payload_sizes is not None and has("shard", "offset", "length"):
        ends = _payload_ends(table.column("shard"), payload_sizes)
        for offset, length in (("offset", "length"), ("side_offset", "side_length")):
            if has(offset, length):
                end = pc.add(table.column(offset), table.column(length))
                refuse(offset, pc.greater(end, ends), "leads out of the payload file")


def _check_shards(table: pa.Table, where: str, payload_sizes: Mapping[str, int] | None) -> None:
    for name in table.column("shard").unique():
        text = name.as_py()
        if payload_sizes is not None and text not in payload_sizes:
            raise CorruptArchive(f"{where}: payload file {text[:100]!r} is not one that the archive names")
        if payload_sizes is None and not is_name("payload file", text):
            raise CorruptArchive(f"{where}: {text[:100]!r} is not the name of a payload file")


def _payload_ends(shards: pa.ChunkedArray, payload_sizes: Mapping[str, int]) -> pa.ChunkedArray:
    names = shards.unique()
    sizes = pa.array([payload_sizes[name.as_py()] for name in names], pa.int64())
    return pc.take(sizes, pc.index_in(shards, value_set=names))
