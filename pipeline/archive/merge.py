"""Sorted index rows from many places as one stream, in bounded memory.

``sweep`` orders the row groups of any number of files by their least keys and lets through, again and again, the rows
that nothing to come can precede (a k-way merge in key ranges). Where the groups of more rows overlap than may be held
at once (sources that were listed in no order), it first sorts what fits into runs on the local disk, and sweeps over
these: external merge sort (Knuth, The Art of Computer Programming 3, 5.4). ``merge`` joins that stream with the
tables of a snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from lichen.errors import CorruptArchive
from lichen.pipeline.archive.index import SCHEMA

HELD_ROWS = 400_000
"""Rows that are in memory at once, some 400 bytes each, and twice that while they are sorted."""
RUN_ROWS = 2_000
"""At most so many rows has a row group of a run: a sweep holds one of each run."""
THREADS = 16
"""Row groups that are fetched at once."""


@dataclass(frozen=True, slots=True)
class Rows:
    """A row group somewhere: its least and greatest key, how many rows it has, and how to read them."""

    low: str
    high: str
    count: int
    read: Callable[[], pa.Table]


def sweep(groups: Iterable[Rows], folder: Path, *, held: int = HELD_ROWS) -> Iterator[pa.Table]:
    """All rows, as sorted tables each of which begins after the one before ends; equal keys are side by side.

    ``folder`` is for runs, on the local disk. Raises ``CorruptArchive`` if a row group has other keys than its bounds
    say, and whatever reading raises.
    """
    waiting = sorted(groups, key=lambda group: (group.low, group.high))
    with ThreadPoolExecutor(THREADS, "lichen-merge") as pool:
        if _overlap(waiting) > held:
            waiting = _runs(waiting, folder, held, pool)
        yield from _swept(waiting, held, pool)


def _overlap(groups: Sequence[Rows]) -> int:
    """The most rows of groups that have a key in common."""
    ends: list[tuple[str, int, int]] = []
    for group in groups:
        ends += [(group.low, 0, group.count), (group.high, 1, -group.count)]
    most = now = 0
    for _, _, change in sorted(ends):
        now += change
        most = max(most, now)
    return most


def _swept(waiting: Sequence[Rows], held: int, pool: ThreadPoolExecutor) -> Iterator[pa.Table]:
    rows = SCHEMA.empty_table()
    position = 0
    while position < len(waiting):
        # Enough at once that sorting again what stays costs no more than what comes.
        wanted, start = max(min(held // 4, 100_000), rows.num_rows), position
        fetched = 0
        while position < len(waiting) and (fetched < wanted or position == start):
            fetched += waiting[position].count
            position += 1
        tables = pool.map(_read, waiting[start:position])
        rows = pa.concat_tables([*([rows] if rows.num_rows else ()), *tables]).sort_by("key")
        if position < len(waiting):
            bound = pa.scalar(waiting[position].low)
            ready = pc.sum(pc.less(rows.column("key"), bound)).as_py() or 0
            if ready:
                yield rows.slice(0, ready)
                rows = rows.slice(ready).combine_chunks()
    if rows.num_rows:
        yield rows


def _read(group: Rows) -> pa.Table:
    table = group.read()
    bounds = pc.min_max(table.column("key")).as_py()
    if table.num_rows != group.count or (bounds["min"], bounds["max"]) != (group.low, group.high):
        raise CorruptArchive("a row group of an index part has other keys than its file says")
    return table


def _runs(groups: Sequence[Rows], folder: Path, held: int, pool: ThreadPoolExecutor) -> list[Rows]:
    """The rows of sorted tables in files of about ``held`` rows, as row groups of which one a file is held later."""
    found: list[Rows] = []
    step = max(1, min(RUN_ROWS, held * held // sum(group.count for group in groups)))
    position = number = 0
    while position < len(groups):
        start, count = position, 0
        while position < len(groups) and (count < held or position == start):
            count += groups[position].count
            position += 1
        table = pa.concat_tables(pool.map(_read, groups[start:position])).sort_by("key")
        path = folder / f"run-{number}.parquet"
        pq.write_table(table, path, row_group_size=step, compression="zstd", compression_level=1)
        keys = table.column("key")
        for at in range(0, table.num_rows, step):
            last = min(at + step, table.num_rows) - 1
            read = _RunReader(path, at // step)
            found.append(Rows(keys[at].as_py(), keys[last].as_py(), last + 1 - at, read))
        number += 1
    return sorted(found, key=lambda group: (group.low, group.high))


@dataclass(frozen=True, slots=True)
class _RunReader:
    path: Path
    group: int

    def __call__(self) -> pa.Table:
        with pq.ParquetFile(self.path) as file:
            return file.read_row_group(self.group, use_threads=False)


class Stream:
    """Sorted tables that come one after another, taken by key."""

    def __init__(self, tables: Iterator[pa.Table]) -> None:
        self._tables = tables
        self._rest = SCHEMA.empty_table()

    def first(self) -> str | None:
        """The next key; None at the end."""
        while not self._rest.num_rows:
            table = next(self._tables, None)
            if table is None:
                return None
            self._rest = table
        return str(self._rest.column("key")[0].as_py())

    def upto(self, last: str | None) -> Iterator[pa.Table]:
        """The rows with keys of at most ``last``, in tables; all that are left where that is None."""
        while (first := self.first()) is not None and (last is None or first <= last):
            count = self._rest.num_rows
            if last is not None and self._rest.column("key")[-1].as_py() > last:
                count = pc.sum(pc.less_equal(self._rest.column("key"), pa.scalar(last))).as_py()
            table, self._rest = self._rest.slice(0, count), self._rest.slice(count)
            yield table


def merge(fresh: Stream, old: Iterator[pa.Table], job: str, kept: Collection[str] = ()) -> Iterator[pa.Table]:
    """Merge the rows of a job with sorted tables of a snapshot, up to the last key of these; yields sorted tables.

    Of two rows with the same key the one of the newer job wins, except that rows of the jobs ``kept`` always stay.
    """
    settled = pa.array(sorted(kept), pa.string())
    for table in old:
        rest = table
        for rivals in fresh.upto(table.column("key")[-1].as_py()) if table.num_rows else ():
            below = pc.less_equal(rest.column("key"), rivals.column("key")[-1])
            count = pc.sum(below).as_py() or 0
            yield _settled(rest.slice(0, count), rivals, job, settled)
            rest = rest.slice(count)
        if rest.num_rows:
            yield rest


def _settled(table: pa.Table, rivals: pa.Table, job: str, settled: pa.Array) -> pa.Table:
    contested = pc.is_in(table.column("key"), value_set=rivals.column("key").combine_chunks())
    theirs = pc.utf8_slice_codeunits(table.column("shard"), 0, len(job))
    stays = pc.or_(pc.greater(theirs, job), pc.is_in(theirs, value_set=settled))
    beaten = table.filter(pc.and_(contested, stays)).column("key").combine_chunks()
    rivals = rivals.filter(pc.invert(pc.is_in(rivals.column("key"), value_set=beaten)))
    table = table.filter(pc.or_(pc.invert(contested), stays))
    return pa.concat_tables([table, rivals]).sort_by("key")
