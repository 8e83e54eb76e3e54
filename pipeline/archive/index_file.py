"""Reading an index file bit by bit: the footer, the row groups that may hold a key, some columns."""

from __future__ import annotations

import struct
import threading
from bisect import bisect_left
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from lichen.errors import CorruptArchive, MissingObject
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.commit import ShardCommit
from lichen.pipeline.archive.index import COLUMNS, SCHEMA, check_schema, check_table, with_later_columns
from lichen.pipeline.archive.payload_list import PayloadSizes
from lichen.pipeline.archive.snapshot import IndexPart, Snapshot
from lichen.pipeline.archive.store import Store
from lichen.pipeline.parquet.bounded import MAX_FOOTER, BoundedParquet, parquet_errors


class IndexFile:
    """An index part or a part of a snapshot, opened by its footer.

    ``size`` and ``rows`` are what the commit or snapshot says of the file; they must agree.
    """

    def __init__(
        self,
        store: Store,
        path: str,
        *,
        size: int,
        rows: int,
        payload_sizes: Mapping[str, int] | None = None,
    ) -> None:
        self.path = path
        self._payload_sizes = payload_sizes
        self._lock = threading.Lock()
        try:
            self.file = store.open(path)
        except MissingObject as error:
            raise CorruptArchive(f"{path} is missing") from error
        if self.file.seek(0, 2) != size:
            raise CorruptArchive(f"{path} has {self.file.tell()} bytes instead of {size}")
        with parquet_errors(path):
            self._check_footer(size)
        self._parquet = BoundedParquet(self.file, path)
        self._metadata = self._parquet.metadata
        check_schema(self._parquet.schema, path)
        if self._metadata.num_rows != rows:
            raise CorruptArchive(f"{path} has {self._metadata.num_rows} rows instead of {rows}")
        with parquet_errors(path):
            self._bounds = self._key_bounds()
        self._maxima = [high for _, high in self._bounds if high is not None]

    def _check_footer(self, size: int) -> None:
        self.file.seek(max(0, size - 8))
        tail = self.file.read(8)
        if len(tail) < 8 or tail[4:] != b"PAR1" or struct.unpack("<I", tail[:4])[0] > min(size, MAX_FOOTER):
            raise CorruptArchive(f"{self.path} is not a Parquet file")

    def _key_bounds(self) -> list[tuple[str | None, str | None]]:
        """Least and greatest key of each row group; None where the file does not say."""
        bounds: list[tuple[str | None, str | None]] = []
        for number in range(self._metadata.num_row_groups):
            column = self._parquet.column(number, 0) if self._metadata.row_group(number).num_rows else None
            statistics = column.statistics if column is not None and column.path_in_schema == "key" else None
            if statistics is None or not statistics.has_min_max:
                bounds.append((None, None))
            else:
                bounds.append((str(statistics.min), str(statistics.max)))
        return bounds

    @property
    def groups(self) -> int:
        return len(self._bounds)

    def count(self, group: int) -> int:
        """The rows of a row group."""
        return int(self._metadata.row_group(group).num_rows)

    def bounds(self, group: int) -> tuple[str, str]:
        """Least and greatest key of a row group, which is read where the footer does not tell."""
        low, high = self._bounds[group]
        if low is None or high is None:
            found = pc.min_max(self.read(group, ["key"]).column("key")).as_py()
            return str(found["min"]), str(found["max"])
        return low, high

    def groups_with(self, key: str) -> list[int]:
        """The row groups that may hold a key: one or none in a sorted file with statistics."""
        if len(self._maxima) == len(self._bounds):
            start = bisect_left(self._maxima, key.encode(), key=str.encode)
            candidates = range(start, min(start + 1, self.groups))
        else:
            candidates = range(self.groups)
        return [n for n in candidates if (low := self._bounds[n][0]) is None or low.encode() <= key.encode()]

    def read(self, group: int, columns: Sequence[str] = COLUMNS) -> pa.Table:
        """A row group, its rows checked."""
        there = [name for name in columns if name in self._parquet.schema.names]
        with self._lock:
            table = self._parquet.read_group(group, there).replace_schema_metadata(None)
        table = with_later_columns(table, columns)
        where = f"{self.path}, row group {group}"
        check_table(table, where, self._payload_sizes)
        with parquet_errors(where):
            return table.cast(pa.schema([SCHEMA.field(name) for name in columns]))

    def read_all(self, columns: Sequence[str] = COLUMNS) -> pa.Table:
        empty = pa.schema([SCHEMA.field(name) for name in columns]).empty_table()
        return pa.concat_tables([empty, *(self.read(group, columns) for group in range(self.groups))])


def open_part(store: Store, part: IndexPart, payload_sizes: Mapping[str, int]) -> IndexFile:
    """One index file of a snapshot. ``payload_sizes`` are those of the snapshot's payload files (``PayloadSizes``)."""
    record = part.record
    path = layout.snapshot_file_path(record.file)
    return IndexFile(store, path, size=record.size, rows=record.rows, payload_sizes=payload_sizes)


def open_shard_index(store: Store, commit: ShardCommit) -> IndexFile:
    """The index part of a committed shard."""
    record, payload = commit.index, commit.payload
    path = layout.shard_path(record.file)
    return IndexFile(store, path, size=record.size, rows=record.rows, payload_sizes={payload.file: payload.size})


def open_index(store: Store, snapshot: Snapshot) -> list[IndexFile]:
    """The index files of a snapshot, in key order."""
    sizes = PayloadSizes(store, snapshot)
    return [open_part(store, part, sizes) for part in snapshot.index]
