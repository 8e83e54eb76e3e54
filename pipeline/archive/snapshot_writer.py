"""Writing snapshots: the newest one merged with the committed shards of a job, in bounded memory (docs/format.md, 7).

Index files of the newest snapshot in whose range of keys the job has nothing are named again, and neither read nor
written. So what an append costs depends on what it adds and touches, not on what is there.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from lichen.errors import CorruptArchive, DuplicateKey, StoreError
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.codecs import codec_files
from lichen.pipeline.archive.commit import TOTALS, ShardCommit, counting_commits, list_commits, table_totals
from lichen.pipeline.archive.index import IndexWriter
from lichen.pipeline.archive.index_file import IndexFile, open_part, open_shard_index
from lichen.pipeline.archive.job import read_job
from lichen.pipeline.archive.manifest import FileRecord
from lichen.pipeline.archive.merge import THREADS, Rows, Stream, merge, sweep
from lichen.pipeline.archive.payload_list import PayloadSizes, read_payloads, write_payloads
from lichen.pipeline.archive.snapshot import IndexPart, PayloadFile, Snapshot, dump_snapshot, latest_snapshot
from lichen.pipeline.archive.store import Store
from lichen.pipeline.archive.verified import create_verified, put_file_verified, wrong_size

PART_ROWS = 1_000_000
"""Rows of one index file of a snapshot."""
LEAST_ROWS = PART_ROWS // 4
"""Of an index file that is left alone beside rows that are written: smaller ones are joined with these."""

RACES = 50

Existing = Literal["replace", "keep"]


def write_snapshot(
    store: Store, job: str, *, existing: Existing = "replace", spool: Path | None = None, restoring: bool = False
) -> Snapshot:
    """Merge the committed shards of a job into the newest snapshot, and publish the result as the next.

    May be called while the job goes on, and again later. If the newest snapshot holds exactly this already,
    it is returned as it is. Both indexes are streamed. With ``existing="keep"`` pictures from other sources win over
    those of the job with the same keys. ``spool`` is a local folder for the index files. Raises ``DuplicateKey`` if
    the job has a key twice, and ``CorruptArchive`` if files that were committed are gone; ``restoring`` the snapshot
    of a job that is over, payload files that are gone since are left out.
    """
    for _ in range(RACES):
        commits = counting_commits(list_commits(store, job), job)
        parent = latest_snapshot(store)
        if parent is not None and parent.job == job and parent.shards == len(commits):
            return parent
        with tempfile.TemporaryDirectory(prefix="lichen-", dir=spool) as folder:
            writer = _Writer(store, job, _whole(store, commits, restoring), parent, Path(folder))
            snapshot = replace(writer.write(existing), shards=len(commits))
        if create_verified(store, layout.snapshot_path(snapshot.number), dump_snapshot(snapshot)):
            return snapshot
        store.delete(layout.snapshot_file_path(name) for name in writer.written)
    raise StoreError(f"lost {RACES} races for the next snapshot of {store.url}")


@dataclass(slots=True)
class _Sums:
    """What a snapshot tells of its rows: those of its parent, less the rows that were read, and the rows written."""

    totals: Counter[str] = field(default_factory=Counter)
    payloads: Counter[str] = field(default_factory=Counter)

    def add(self, table: pa.Table, sign: int = 1) -> None:
        for name, value in table_totals(table).items():
            self.totals[name] += sign * value
        for pair in table.column("shard").value_counts().to_pylist():
            self.payloads[pair["values"]] += sign * pair["counts"]


class _Writer:
    """One attempt at the next snapshot. ``written`` are the names of the files that it made."""

    def __init__(
        self, store: Store, job: str, commits: Sequence[ShardCommit], parent: Snapshot | None, folder: Path
    ) -> None:
        self._store, self._job, self._commits, self._parent, self._folder = store, job, commits, parent, folder
        self._number = 1 if parent is None else parent.number + 1
        self._attempt = layout.new_attempt()
        self._codecs = codec_files(store, {} if parent is None else parent.codecs)
        self._parts: list[IndexPart] = []
        self._file: IndexWriter | None = None
        self._used: set[str] = set()
        self._before: dict[str, PayloadFile] = {}
        self._sums = _Sums()
        self.written: list[str] = []

    def write(self, existing: Existing) -> Snapshot:
        store, job, parent = self._store, self._job, self._parent
        kept: set[str] = set()
        if parent is not None:
            self._sums.totals.update(parent.totals)
            self._before = {one.record.file: one for one in read_payloads(store, parent)}
            self._sums.payloads.update({name: one.record.rows for name, one in self._before.items()})
            if existing == "keep":
                kept = _strangers(store, job, parent)
        fresh = Stream(_unique(sweep(_groups_of(store, self._commits), self._folder), job))
        sizes = PayloadSizes(store, parent)
        for part in () if parent is None else parent.index:
            first = fresh.first()
            beyond = first is None or first > part.max_key
            if beyond and (part.record.rows >= LEAST_ROWS or (first is None and self._file is None)):
                self._close()
                self._parts.append(part)
            else:
                self._rewrite(part, fresh, sizes, kept)
        for table in fresh.upto(None):
            self._append(table, PART_ROWS)
        self._close()
        return self._snapshot()

    def _rewrite(self, part: IndexPart, fresh: Stream, sizes: Mapping[str, int], kept: Collection[str]) -> None:
        file = open_part(self._store, part, sizes)
        left = part.record.rows
        for table in merge(fresh, self._old(file), self._job, kept):
            left = max(0, left - table.num_rows)
            # No small file is left behind a large one only because some rows were added.
            self._append(table, PART_ROWS if left >= LEAST_ROWS else 2 * PART_ROWS)

    def _old(self, file: IndexFile) -> Iterator[pa.Table]:
        for group in range(file.groups):
            table = file.read(group)
            self._sums.add(table, -1)
            yield table

    def _append(self, table: pa.Table, most: int) -> None:
        self._sums.add(table)
        while table.num_rows:
            if self._file is not None and self._file.rows >= most:
                self._close()
            if self._file is None:
                name = layout.snapshot_file(self._number, self._attempt, len(self.written))
                self.written.append(name)
                self._file = IndexWriter(self._folder / name, {"snapshot": str(self._number)}, self._codecs)
            some = table.slice(0, most - self._file.rows)
            self._file.write(some)
            self._used.update(digest for digest in some.column("codec").unique().to_pylist() if digest)
            table = table.slice(some.num_rows)

    def _close(self) -> None:
        if self._file is None:
            return
        file, self._file = self._file, None
        file.close()
        path = self._folder / self.written[-1]
        record = put_file_verified(self._store, layout.snapshot_file_path(path.name), path, file.rows)
        codecs = tuple(sorted(self._used))
        self._parts.append(
            IndexPart(record=record, min_key=file.min_key or "", max_key=file.max_key or "", codecs=codecs)
        )
        self._used = set()
        path.unlink()

    def _snapshot(self) -> Snapshot:
        parent, codecs = self._parent, self._codecs
        before = {} if parent is None else parent.codecs
        used: set[str] = set()
        for part in self._parts:  # an early version did not say which ones a file names
            used.update(before if part.codecs is None else part.codecs)
        if missing := used - codecs.keys():
            raise CorruptArchive(f"codec {min(missing)} was used, but is not in the archive")
        self._check_sums()
        files = dict(self._before)
        for commit in self._commits:
            files[commit.payload.file] = PayloadFile(record=commit.payload, index_size=commit.index.size)
        payloads = []
        for name in sorted(name for name, rows in self._sums.payloads.items() if rows):
            record = replace(files[name].record, rows=self._sums.payloads[name])
            payloads.append(PayloadFile(record=record, index_size=files[name].index_size))
        jobs = () if parent is None else parent.jobs
        listed = self._list(payloads)
        return Snapshot(
            number=self._number,
            parent=None if parent is None else parent.number,
            attempt=self._attempt,
            created=layout.now(),
            job=self._job,
            shards=len(self._commits),
            jobs=jobs if self._job in jobs else (*jobs, self._job),
            rows=sum(part.record.rows for part in self._parts),
            index=tuple(self._parts),
            payload_list=listed,
            inline_payloads=(),
            payload_count=len(payloads),
            payload_bytes=sum(one.record.size for one in payloads),
            part_bytes=sum(one.index_size for one in payloads),
            codecs={digest: codecs[digest] for digest in sorted(used)},
            totals={name: self._sums.totals[name] for name in TOTALS},
        )

    def _check_sums(self) -> None:
        """Raise ``CorruptArchive`` if the sums are not of the rows: a payload file left out is swept one day."""
        rows, totals, payloads = sum(part.record.rows for part in self._parts), self._sums.totals, self._sums.payloads
        if min([*totals.values(), *payloads.values()], default=0) < 0 or not (
            rows == totals["pictures"] == payloads.total()
        ):
            path = layout.snapshot_path(max(1, self._number - 1))
            raise CorruptArchive(
                f"{path} does not count its rows as its index files have them. Put it back from a copy of the archive, "
                "or delete it, and the same command makes it again from what was committed"
            )

    def _list(self, payloads: Sequence[PayloadFile]) -> FileRecord | None:
        if not payloads:
            return None
        path = self._folder / layout.payload_list(self._number, self._attempt)
        write_payloads(path, payloads, self._number)
        self.written.append(path.name)
        return put_file_verified(self._store, layout.snapshot_file_path(path.name), path, len(payloads))


def _whole(store: Store, commits: list[ShardCommit], restoring: bool) -> list[ShardCommit]:
    """The commits whose files are there as they were committed; all of them, or it is an error."""
    sizes = {entry.path: entry.size for entry in store.entries(layout.SHARDS)}
    whole = []
    for commit in commits:
        records = [commit.payload, commit.index]
        if restoring:
            if layout.shard_path(commit.payload.file) not in sizes:
                continue
            records = [commit.index]  # what a payload file that was cut still holds can be read
        for record in records:
            path = layout.shard_path(record.file)
            if (wrong := wrong_size(sizes.get(path), record.size)) is not None:
                raise CorruptArchive(
                    f"{path} {wrong}, but was committed. Put it back from a copy of the archive, or delete "
                    f"{layout.commit_path(commit.shard)}, and the same command makes its pictures again"
                )
        whole.append(commit)
    return whole


def _groups_of(store: Store, commits: Sequence[ShardCommit]) -> Iterator[Rows]:
    """The row groups of the index parts of a job's shards. Their footers are read side by side, and not kept."""
    with ThreadPoolExecutor(THREADS, "lichen-footers") as pool:
        for groups in pool.map(partial(_groups, store), commits):
            yield from groups


def _groups(store: Store, commit: ShardCommit) -> list[Rows]:
    file = open_shard_index(store, commit)
    found = []
    for number in range(file.groups):
        if not file.count(number):
            continue
        low, high = file.bounds(number)
        found.append(Rows(low, high, file.count(number), partial(_read_group, store, commit, number)))
    return found


def _read_group(store: Store, commit: ShardCommit, number: int) -> pa.Table:
    return open_shard_index(store, commit).read(number)


def _unique(tables: Iterator[pa.Table], job: str) -> Iterator[pa.Table]:
    """Sorted tables, as they come. Raises ``DuplicateKey`` for a key that comes twice: equal ones are side by side."""
    for table in tables:
        keys = table.column("key")
        if table.num_rows > 1:
            twice = pc.index(pc.equal(keys.slice(1), keys.slice(0, table.num_rows - 1)), True).as_py()
            if twice >= 0:
                raise DuplicateKey(f"job {job} has two pictures with the key {keys[twice].as_py()!r}")
        yield table


def _strangers(store: Store, job: str, parent: Snapshot) -> set[str]:
    """Jobs in a snapshot that archived other sources than this one."""
    own = read_job(store, job).config.get("source")
    return {other for other in parent.jobs if other != job and read_job(store, other).config.get("source") != own}
