"""Snapshots: the whole archive at one moment, as a sorted index and a list of files (docs/format.md, 7)."""

from __future__ import annotations

import tempfile
from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from lichen.errors import CorruptArchive, DuplicateKey, StoreError
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.commit import (
    ShardCommit,
    add_totals,
    counting_commits,
    list_commits,
    read_totals,
)
from lichen.pipeline.archive.index import SCHEMA, IndexWriter
from lichen.pipeline.archive.index_file import IndexFile
from lichen.pipeline.archive.job import read_job
from lichen.pipeline.archive.manifest import Fields, FileRecord, Json, dump, require
from lichen.pipeline.archive.store import Store
from lichen.pipeline.archive.verified import create_verified, put_file_verified, wrong_size

PART_ROWS = 1_000_000
"""Rows of one index file of a snapshot."""

RACES = 50

Existing = Literal["replace", "keep"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexPart:
    """One index file of a snapshot; the keys bound its rows."""

    record: FileRecord
    min_key: str
    max_key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadFile:
    """A payload file that at least one row of the snapshot names; ``record.rows`` counts those."""

    record: FileRecord
    index_size: int
    """Bytes of the index part beside it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A snapshot as its JSON file describes it."""

    number: int
    parent: int | None
    attempt: str
    created: str
    job: str
    """The job whose shards this snapshot added to its parent."""
    shards: int
    """How many committed shards of that job it has seen."""
    jobs: tuple[str, ...]
    """All jobs ever merged, in that order."""
    rows: int
    index: tuple[IndexPart, ...]
    payloads: tuple[PayloadFile, ...]
    codecs: Mapping[str, Mapping[str, int]]
    """Digest to file extension to size in bytes."""
    totals: Mapping[str, int]

    @property
    def payload_sizes(self) -> dict[str, int]:
        return {payload.record.file: payload.record.size for payload in self.payloads}

    def open_index(self, store: Store) -> list[IndexFile]:
        """The index files, in key order."""
        sizes = self.payload_sizes
        return [
            IndexFile(
                store,
                layout.snapshot_file_path(part.record.file),
                size=part.record.size,
                rows=part.record.rows,
                payload_sizes=sizes,
            )
            for part in self.index
        ]


# --- reading ----------------------------------------------------------------------------------------


def snapshot_numbers(store: Store) -> list[int]:
    """The numbers of all snapshots, ascending."""
    numbers = (layout.snapshot_number(entry.path) for entry in store.entries(layout.SNAPSHOTS))
    return sorted(number for number in numbers if number is not None)


def read_snapshot(store: Store, number: int) -> Snapshot:
    """Read a snapshot; raises ``CorruptArchive`` if it is not there or malformed."""
    fields = require(store, layout.snapshot_path(number))
    if fields.integer("snapshot", 1) != number:
        raise CorruptArchive(f"{fields.where} is another snapshot")
    totals = read_totals(fields)
    codecs = {}
    for digest, sizes in fields.mapping("codecs").items():
        layout.check("digest", digest)
        inner = Fields(sizes, f"{fields.where}: codec {digest}")
        codecs[digest] = {layout.check("extension", name): inner.integer(name) for name in inner.values}
    index = tuple(
        IndexPart(
            record=FileRecord.from_fields(part, "snapshot file"),
            min_key=part.text("min_key"),
            max_key=part.text("max_key"),
        )
        for part in fields.objects("index")
    )
    rows = fields.integer("rows")
    if sum(part.record.rows for part in index) != rows:
        raise CorruptArchive(f"{fields.where}: its index files do not add up to {rows} rows")
    payloads = tuple(
        PayloadFile(record=FileRecord.from_fields(one, "payload file"), index_size=one.integer("index_size"))
        for one in fields.objects("payloads")
    )
    return Snapshot(
        number=number,
        parent=fields.optional_integer("parent"),
        attempt=fields.name("attempt", "attempt"),
        created=fields.text("created"),
        job=fields.name("job", "job"),
        shards=fields.integer("shards"),
        jobs=fields.names("jobs", "job"),
        rows=rows,
        index=index,
        payloads=payloads,
        codecs=codecs,
        totals=totals,
    )


def latest_snapshot(store: Store) -> Snapshot | None:
    """The newest snapshot; None if the archive has none yet."""
    numbers = snapshot_numbers(store)
    return read_snapshot(store, numbers[-1]) if numbers else None


# --- writing ----------------------------------------------------------------------------------------


def write_snapshot(
    store: Store, job: str, *, existing: Existing = "replace", spool: Path | None = None, restoring: bool = False
) -> Snapshot:
    """Merge the committed shards of a job into the newest snapshot, and publish the result as the next.

    May be called while the job goes on, and again later. If the newest snapshot holds exactly this already,
    it is returned as it is. The index of the parent is streamed; the rows of the job are held in memory.
    With ``existing="keep"`` pictures from other sources win over those of the job with the same keys. ``spool`` is a
    local folder for the index files. Raises ``DuplicateKey`` if the job has a key twice, and ``CorruptArchive`` if
    files that were committed are gone; ``restoring`` the snapshot of a job that is over, payload files that are gone
    since are left out.
    """
    for _ in range(RACES):
        commits = counting_commits(list_commits(store, job), job)
        parent = latest_snapshot(store)
        if parent is not None and parent.job == job and parent.shards == len(commits):
            return parent
        with tempfile.TemporaryDirectory(prefix="lichen-", dir=spool) as folder:
            whole = _whole(store, commits, restoring)
            snapshot = replace(_build(store, job, whole, parent, existing, Path(folder)), shards=len(commits))
        if create_verified(store, layout.snapshot_path(snapshot.number), _dump(snapshot)):
            return snapshot
        store.delete(layout.snapshot_file_path(part.record.file) for part in snapshot.index)
    raise StoreError(f"lost {RACES} races for the next snapshot of {store.url}")


def _build(
    store: Store,
    job: str,
    commits: list[ShardCommit],
    parent: Snapshot | None,
    existing: Existing,
    folder: Path,
) -> Snapshot:
    number = 1 if parent is None else parent.number + 1
    attempt = layout.new_attempt()
    fresh = _rows_of(store, commits, job)
    old = [] if parent is None else parent.open_index(store)
    counts: Counter[str] = Counter()
    used: set[str] = set()
    totals: list[dict[str, int]] = []
    parts: list[IndexPart] = []
    codecs = _codec_files(store)
    kept = _strangers(store, job, parent) if existing == "keep" and parent is not None else set()
    merged = _bounded(merge(fresh, _tables(old), job, kept), PART_ROWS)
    while (table := next(merged, None)) is not None:
        path = folder / layout.snapshot_file(number, attempt, len(parts))
        writer = IndexWriter(path, {"snapshot": str(number)}, codecs)
        while table is not None:
            writer.write(table)
            totals.append(table_totals(table))
            for pair in table.column("shard").value_counts().to_pylist():
                counts[pair["values"]] += pair["counts"]
            used.update(digest for digest in table.column("codec").unique().to_pylist() if digest)
            table = next(merged, None) if writer.rows < PART_ROWS else None
        writer.close()
        record = put_file_verified(store, layout.snapshot_file_path(path.name), path, writer.rows)
        parts.append(IndexPart(record=record, min_key=writer.min_key or "", max_key=writer.max_key or ""))
        path.unlink()
    if missing := used - codecs.keys():
        raise CorruptArchive(f"codec {min(missing)} was used, but is not in the archive")
    files = {} if parent is None else {payload.record.file: payload for payload in parent.payloads}
    for commit in commits:
        files[commit.payload.file] = PayloadFile(record=commit.payload, index_size=commit.index.size)
    payloads = []
    for name in sorted(counts):
        record = replace(files[name].record, rows=counts[name])
        payloads.append(PayloadFile(record=record, index_size=files[name].index_size))
    jobs = () if parent is None else parent.jobs
    return Snapshot(
        number=number,
        parent=None if parent is None else parent.number,
        attempt=attempt,
        created=layout.now(),
        job=job,
        shards=len(commits),
        jobs=jobs if job in jobs else (*jobs, job),
        rows=sum(part.record.rows for part in parts),
        index=tuple(parts),
        payloads=tuple(payloads),
        codecs={digest: codecs[digest] for digest in sorted(used)},
        totals=add_totals(totals),
    )


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


def _rows_of(store: Store, commits: list[ShardCommit], job: str) -> pa.Table:
    """The rows of a job's committed shards, sorted by key."""
    tables = [SCHEMA.empty_table()]
    for commit in commits:
        part = IndexFile(
            store,
            layout.shard_path(commit.index.file),
            size=commit.index.size,
            rows=commit.index.rows,
            payload_sizes={commit.payload.file: commit.payload.size},
        )
        tables.append(part.read_all())
    table = pa.concat_tables(tables).sort_by("key")
    keys = table.column("key")
    if table.num_rows > 1:
        twice = pc.index(pc.equal(keys.slice(1), keys.slice(0, table.num_rows - 1)), True).as_py()
        if twice >= 0:
            raise DuplicateKey(f"job {job} has two pictures with the key {keys[twice].as_py()!r}")
    return table


def _strangers(store: Store, job: str, parent: Snapshot) -> set[str]:
    """Jobs in a snapshot that archived other sources than this one."""
    own = read_job(store, job).config.get("source")
    return {other for other in parent.jobs if other != job and read_job(store, other).config.get("source") != own}


def _tables(files: list[IndexFile]) -> Iterator[pa.Table]:
    for file in files:
        for group in range(file.groups):
            yield file.read(group)


def _bounded(tables: Iterator[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The rows of ``tables`` in non-empty tables of at most ``rows``."""
    for table in tables:
        for start in range(0, table.num_rows, rows):
            yield table.slice(start, rows)


def merge(fresh: pa.Table, old: Iterator[pa.Table], job: str, kept: Collection[str] = ()) -> Iterator[pa.Table]:
    """Merge the sorted rows of a job with the sorted tables of a snapshot; yields sorted tables. Pure.

    Of two rows with the same key the one of the newer job wins, except that rows of the jobs ``kept`` always stay.
    """
    settled = pa.array(sorted(kept), pa.string())
    keys = [key.encode() for key in fresh.column("key").to_pylist()]
    position = 0
    for table in old:
        if table.num_rows == 0:
            continue
        last = table.column("key")[-1].as_py().encode()
        end = bisect_right(keys, last, position)
        rivals = fresh.slice(position, end - position)
        position = end
        contested = pc.is_in(table.column("key"), value_set=rivals.column("key").combine_chunks())
        theirs = pc.utf8_slice_codeunits(table.column("shard"), 0, len(job))
        stays = pc.or_(pc.greater(theirs, job), pc.is_in(theirs, value_set=settled))
        beaten = table.filter(pc.and_(contested, stays)).column("key").combine_chunks()
        rivals = rivals.filter(pc.invert(pc.is_in(rivals.column("key"), value_set=beaten)))
        table = table.filter(pc.or_(pc.invert(contested), stays))
        yield pa.concat_tables([table, rivals]).sort_by("key")
    if position < fresh.num_rows:
        yield fresh.slice(position)


def table_totals(table: pa.Table) -> dict[str, int]:
    """The totals of ``commit.TOTALS`` over index rows."""

    def total(values: Any) -> int:
        return int(pc.sum(values).as_py() or 0)

    compressed, packed = (total(pc.equal(table.column("status"), status)) for status in ("compressed", "packed"))
    sides = total(table.column("side_length"))
    width, height = (table.column(name).cast(pa.int64()) for name in ("width", "height"))
    return {
        "pictures": table.num_rows,
        "compressed": compressed,
        "packed": packed,
        "stored": table.num_rows - compressed - packed,
        "source_bytes": total(table.column("source_bytes")),
        "payload_bytes": total(table.column("length")) + sides,
        "side_bytes": sides,
        "pixels": total(pc.multiply(width, height)),
    }


def _codec_files(store: Store) -> dict[str, dict[str, int]]:
    """All codec files of the archive: digest to extension to size."""
    found: dict[str, dict[str, int]] = {}
    for entry in store.entries(layout.CODECS):
        digest, _, extension = entry.path.rpartition("/")[2].partition(".")
        if layout.is_name("digest", digest) and layout.is_name("extension", extension):
            found.setdefault(digest, {})[extension] = entry.size
    return found


def _dump(snapshot: Snapshot) -> bytes:
    index: list[Json] = [
        {**part.record.to_json(), "min_key": part.min_key, "max_key": part.max_key} for part in snapshot.index
    ]
    return dump(
        {
            "snapshot": snapshot.number,
            "parent": snapshot.parent,
            "attempt": snapshot.attempt,
            "created": snapshot.created,
            "job": snapshot.job,
            "shards": snapshot.shards,
            "jobs": list(snapshot.jobs),
            "rows": snapshot.rows,
            "index": index,
            "payloads": [{**one.record.to_json(), "index_size": one.index_size} for one in snapshot.payloads],
            "codecs": {digest: dict(sizes) for digest, sizes in snapshot.codecs.items()},
            "totals": dict(snapshot.totals),
        }
    )
