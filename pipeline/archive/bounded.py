"""Reading Parquet files that may come from anybody, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.parquet as pq

from lichen.errors import CorruptArchive
from lichen.pipeline.archive.pages import check_lengths, read_pages
from lichen.pipeline.archive.store_file import Refused, StoreFile

MAX_FOOTER = 64 * 1024 * 1024
MAX_GROUP_ROWS = 1 << 20
MAX_GROUP_BYTES = 1 << 28
"""Most bytes of the pages of a row group, and of its decoded columns. Ours have some megabytes."""

BATCH_BYTES = 1 << 28
"""What the rows that are decoded at once may come to, at worst."""


@contextmanager
def parquet_errors(where: str) -> Iterator[None]:
    """What pyarrow raises for malformed files, as ``CorruptArchive``."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, IndexError, OverflowError) as error:
        raise CorruptArchive(f"{where}: {error}") from error


class BoundedParquet:
    """A Parquet file of flat columns whose memory does not depend on what it claims. Not thread-safe.

    Raises ``CorruptArchive``. Page checksums are tested, where a page has one.
    """

    def __init__(self, file: StoreFile, where: str, *, max_bytes: int = MAX_GROUP_BYTES) -> None:
        self._file, self._where, self._max_bytes = file, where, max_bytes
        self._seen: set[tuple[int, int]] = set()
        with parquet_errors(where):
            self._parquet = pq.ParquetFile(
                file,
                page_checksum_verification=True,
                thrift_string_size_limit=MAX_FOOTER,
                thrift_container_size_limit=1_000_000,
            )
            self.metadata = self._parquet.metadata
            self.schema: pa.Schema = self._parquet.schema_arrow
            self._numbers = {column.path: number for number, column in enumerate(self._parquet.schema)}
            for number in range(self.metadata.num_row_groups):
                if not 0 <= self.metadata.row_group(number).num_rows <= MAX_GROUP_ROWS:
                    raise CorruptArchive(f"{where}: row group {number} is absurdly large")

    @classmethod
    def of_bytes(cls, data: bytes, where: str, *, max_bytes: int) -> BoundedParquet:
        """Open a Parquet file in memory."""
        return cls(
            StoreFile(lambda offset, length: data[offset : offset + length], len(data)), where, max_bytes=max_bytes
        )

    def column(self, group: int, number: int) -> pq.ColumnChunkMetaData:
        """What the footer says of a column of a row group.

        Where a footer contradicts itself, pyarrow's own access ends the process: it does not catch the C++ exception.
        The reader of rows does, and looks at the same before it reads, so it comes first, without a byte to read. It
        does not look at groups without rows, which have no columns here.
        """
        if self.metadata.row_group(group).num_rows == 0:
            raise CorruptArchive(f"{self._where}: row group {group} has no rows")
        if (group, number) not in self._seen:
            self._file.refusing = True
            try:
                with parquet_errors(self._where):
                    self._parquet.reader.read_row_group(group, column_indices=[number], use_threads=False)
            except CorruptArchive as error:
                if not isinstance(error.__cause__, Refused):
                    raise
            finally:
                self._file.refusing = False
            self._seen.add((group, number))
        return self.metadata.row_group(group).column(number)

    def read_group(self, group: int, columns: Sequence[str]) -> pa.Table:
        """Some columns of a row group, in that order; validated."""
        tables, size = [], 0
        for batch in self.batches(group, columns):
            size += batch.get_total_buffer_size()
            if size > self._max_bytes:
                raise CorruptArchive(f"{self._where}: row group {group} decodes to absurdly many bytes")
            tables.append(pa.Table.from_batches([batch]))
        with parquet_errors(self._where):
            schema = pa.schema([self.schema.field(name) for name in columns])
            table = pa.concat_tables([schema.empty_table(), *(one.select(list(columns)) for one in tables)])
            table.validate(full=True)
        return table.combine_chunks()

    def batches(self, group: int, columns: Sequence[str], most: int = MAX_GROUP_ROWS) -> Iterator[pa.RecordBatch]:
        """The rows of a row group, at most so many at once, and never more than ``BATCH_BYTES`` of them."""
        self._check(columns)
        with parquet_errors(self._where):
            try:
                rows = min(most, self._batch_rows(group, columns))
                options = {"row_groups": [group], "columns": list(columns), "use_threads": False}
                yield from self._parquet.iter_batches(batch_size=rows, **options)
            finally:
                self._file.fetch([])

    def read_all(self, columns: Sequence[str]) -> pa.Table:
        """Some columns of all row groups, in that order; validated."""
        self._check(columns)
        groups = range(self.metadata.num_row_groups)
        schema = pa.schema([self.schema.field(name) for name in columns])
        return pa.concat_tables([schema.empty_table(), *(self.read_group(group, columns) for group in groups)])

    def _check(self, columns: Sequence[str]) -> None:
        for name in columns:
            if name not in self._numbers or self.schema.get_field_index(name) < 0:  # nested, or there twice
                raise CorruptArchive(f"{self._where}: {name[:80]!r} is not one flat column of it")

    def _batch_rows(self, group: int, columns: Sequence[str]) -> int:
        """How many rows may be decoded at once. Fetches the columns; their pages are looked at, not decoded."""
        stated = self.metadata.row_group(group)
        if stated.num_rows == 0:
            return 1
        chunks = [self.column(group, self._numbers[name]) for name in columns]
        places = []
        for chunk in chunks:
            start = chunk.data_page_offset
            if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
                start = chunk.dictionary_page_offset
            places.append((start, chunk.total_compressed_size))
        total = worst = 0
        for name, chunk, data in zip(columns, chunks, self._file.fetch(places), strict=True):
            texts = chunk.physical_type == "BYTE_ARRAY"
            largest = 0
            for page in read_pages(data):
                total += page.size
                if total > self._max_bytes:
                    raise CorruptArchive(f"{self._where}: row group {group} is absurdly large")
                if texts:
                    check_lengths(page, chunk.compression, stated.num_rows, nullable=self.schema.field(name).nullable)
                    largest = max(largest, page.size if page.expands else 0)
            worst += largest
        rows = int(stated.num_rows)
        return max(1, min(rows, BATCH_BYTES // worst if worst else rows))
