"""The payload files of a snapshot: a Parquet table beside its index, looked up by name (docs/format.md, 7).

An archive of a hundred thousand payload files would else read megabytes of JSON at each opening. Early versions wrote
the list into the snapshot's JSON file; both are read.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from lichen.errors import CorruptArchive, MissingObject
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.manifest import MAX_INTEGER, FileRecord
from lichen.pipeline.archive.snapshot import PayloadFile, Snapshot
from lichen.pipeline.archive.store import Store
from lichen.pipeline.parquet.bounded import BoundedParquet

GROUP_ROWS = 2_000
"""Payload files of a row group, some 150 kB."""

SCHEMA = pa.schema(
    [
        pa.field("file", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("sha256", pa.binary(32), nullable=False),
        pa.field("rows", pa.int64(), nullable=False),
        pa.field("index_size", pa.int64(), nullable=False),
    ]
)


def write_payloads(path: Path, payloads: Sequence[PayloadFile], number: int) -> None:
    """Write the list of snapshot ``number``, which is sorted by name, to a local file."""
    records = [payload.record for payload in payloads]
    table = pa.table(
        {
            "file": [record.file for record in records],
            "size": [record.size for record in records],
            "sha256": [bytes.fromhex(record.sha256) for record in records],
            "rows": [record.rows for record in records],
            "index_size": [payload.index_size for payload in payloads],
        },
        schema=SCHEMA.with_metadata({"lichen.format": str(layout.FORMAT), "lichen.snapshot": str(number)}),
    )
    pq.write_table(
        table, path, row_group_size=GROUP_ROWS, compression="zstd", write_page_checksum=True, use_dictionary=False
    )


def read_payloads(store: Store, snapshot: Snapshot | None) -> tuple[PayloadFile, ...]:
    """All payload files that rows of a snapshot name, by name. Raises ``CorruptArchive``."""
    if snapshot is None or snapshot.payload_list is None:
        return () if snapshot is None else snapshot.inline_payloads
    reader = _Table(store, snapshot.payload_list)
    return tuple(payload for group in range(reader.groups) for payload in reader.read(group))


class PayloadSizes(Mapping[str, int]):
    """Bytes of the payload files of a snapshot by name; reads what is asked for, in pieces. Thread-safe."""

    def __init__(self, store: Store, snapshot: Snapshot | None) -> None:
        self._store, self._snapshot = store, snapshot
        self._table: _Table | None = None
        self._known: dict[str, int] = {}
        self._groups: set[int] = set()
        self._lock = threading.Lock()
        if snapshot is not None and snapshot.payload_list is None:
            self._known = {payload.record.file: payload.record.size for payload in snapshot.inline_payloads}

    def __getitem__(self, name: str) -> int:
        with self._lock:
            if name not in self._known and self._snapshot is not None and self._snapshot.payload_list is not None:
                if self._table is None:
                    self._table = _Table(self._store, self._snapshot.payload_list)
                group = bisect_left(self._table.maxima, name)
                if group < self._table.groups and group not in self._groups:
                    self._known.update((one.record.file, one.record.size) for one in self._table.read(group))
                    self._groups.add(group)
            return self._known[name]

    def __iter__(self) -> Iterator[str]:
        return (payload.record.file for payload in read_payloads(self._store, self._snapshot))

    def __len__(self) -> int:
        return 0 if self._snapshot is None else self._snapshot.payload_count


class _Table:
    def __init__(self, store: Store, record: FileRecord) -> None:
        self._path = layout.snapshot_file_path(record.file)
        try:
            file = store.open(self._path)
        except MissingObject as error:
            raise CorruptArchive(f"{self._path} is missing") from error
        if file.seek(0, 2) != record.size:
            raise CorruptArchive(f"{self._path} has {file.tell()} bytes instead of {record.size}")
        self._parquet = BoundedParquet(file, self._path)
        metadata = self._parquet.metadata
        if metadata.num_rows != record.rows or self._parquet.schema.remove_metadata() != SCHEMA:
            raise CorruptArchive(f"{self._path} is not the list of {record.rows} payload files that it should be")
        self.groups = int(metadata.num_row_groups)
        self.maxima: list[str] = []
        for number in range(self.groups):
            statistics = self._parquet.column(number, 0).statistics
            if statistics is None or not statistics.has_min_max:
                raise CorruptArchive(f"{self._path} does not say which names it has where")
            self.maxima.append(str(statistics.max))

    def read(self, group: int) -> list[PayloadFile]:
        found = []
        for row in self._parquet.read_group(group, SCHEMA.names).to_pylist():
            if any(not 0 <= row[name] <= MAX_INTEGER for name in ("size", "rows", "index_size")):
                raise CorruptArchive(f"{self._path} has a payload file of an impossible size")
            record = FileRecord(
                file=layout.check("payload file", row["file"]),
                size=row["size"],
                sha256=row["sha256"].hex(),
                rows=row["rows"],
            )
            found.append(PayloadFile(record=record, index_size=row["index_size"]))
        return found
