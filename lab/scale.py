"""What archives of many millions of pictures cost: snapshots, appending, opening, over made-up index parts.

Payload files are holes of the right size, index parts real files with rows of the usual entropy; everything after
that is the product's own code. Run in a process of its own, since it reports that process's peak memory.
"""

from __future__ import annotations

import hashlib
import io
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from lichen.pipeline.archive import layout
from lichen.pipeline.archive.commit import ShardCommit, commit_shard, table_totals
from lichen.pipeline.archive.index import SCHEMA, IndexWriter
from lichen.pipeline.archive.job import create_job, finish_job
from lichen.pipeline.archive.manifest import FileRecord
from lichen.pipeline.archive.marker import create_marker
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.snapshot_writer import write_snapshot
from lichen.pipeline.archive.store import Store, open_store

SHARD_ROWS = 16_384
LENGTH = 300_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """Seconds of wall time; ``peak_bytes`` is the process's resident memory at its highest."""

    rows: int
    shards: int
    mixed: bool
    """Whether every shard has keys from everywhere, as from a list in no order."""
    written: float
    """To make the parts, which is not the product's time."""
    snapshot: float
    append: float
    """A second job of one shard, whose keys all lie behind those of the first."""
    kept: int
    """Index files that the append named again."""
    open: float
    first_key: float
    peak_bytes: int


def measure(folder: Path, rows: int, *, mixed: bool = False) -> Scale:
    """Make an archive of about ``rows`` pictures in ``folder``, which must be empty, and time what is done with it."""
    store = open_store(str(folder))
    create_marker(store)
    shards = -(-rows // SHARD_ROWS)
    began = time.perf_counter()
    job = create_job(store, {"source": "first"}, []).job
    for number in range(shards):
        keys = np.arange(SHARD_ROWS, dtype=np.int64)
        keys = keys * shards + number if mixed else keys + number * SHARD_ROWS
        _commit(store, job, number, _keys("a", keys))
    written, began = time.perf_counter() - began, time.perf_counter()
    first = write_snapshot(store, job, spool=folder)
    finish_job(store, job, first.number)
    snapshot, began = time.perf_counter() - began, time.perf_counter()
    more = create_job(store, {"source": "second"}, [], after=job).job
    _commit(store, more, 0, _keys("b", np.arange(SHARD_ROWS, dtype=np.int64)))
    second = write_snapshot(store, more, spool=folder)
    finish_job(store, more, second.number)
    append, began = time.perf_counter() - began, time.perf_counter()
    archive = Archive.open(str(folder))
    opened, began = time.perf_counter() - began, time.perf_counter()
    archive.row(_keys("a", np.array([SHARD_ROWS * shards // 2]))[0])
    before = {part.record.file for part in first.index}
    return Scale(
        rows=len(archive),
        shards=shards,
        mixed=mixed,
        written=written,
        snapshot=snapshot,
        append=append,
        kept=sum(part.record.file in before for part in second.index),
        open=opened,
        first_key=time.perf_counter() - began,
        peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    )


def _keys(prefix: str, numbers: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[str]:
    return [f"{prefix}/{n >> 20:06x}/holiday {n >> 10 & 1023:03x}/IMG_{n:010d}.jpg" for n in numbers.tolist()]


def _commit(store: Store, job: str, number: int, keys: list[str]) -> None:
    shard, attempt = layout.shard_id(job, number), layout.new_attempt()
    payload = layout.payload_file(shard, attempt)
    table = _table(keys, payload, number)
    sink = io.BytesIO()
    writer = IndexWriter(sink, {"shard": shard}, {})
    writer.write(table)
    writer.close()
    data = sink.getvalue()
    name = layout.table_file(shard, attempt)
    store.put(layout.shard_path(name), data)
    store.put(layout.shard_path(payload), b"")
    size = LENGTH * len(keys)
    with (Path(store.url) / layout.shard_path(payload)).open("r+b") as file:
        file.truncate(size)  # a hole
    commit_shard(
        store,
        ShardCommit(
            job=job,
            shard=shard,
            attempt=attempt,
            created=layout.now(),
            sources=len(keys),
            payload=FileRecord(file=payload, size=size, sha256="0" * 64, rows=len(keys)),
            index=FileRecord(file=name, size=len(data), sha256=hashlib.sha256(data).hexdigest(), rows=len(keys)),
            quarantine=None,
            skipped=None,
            totals=table_totals(table),
        ),
    )


def _table(keys: list[str], payload: str, seed: int) -> pa.Table:
    count = len(keys)
    random = np.random.default_rng(seed)
    columns = {
        "key": keys,
        "status": ["stored"] * count,
        "shard": [payload] * count,
        "offset": np.arange(count, dtype=np.int64) * LENGTH,
        "length": np.full(count, LENGTH, np.int64),
        "crc32c": random.integers(0, 2**32, count, dtype=np.uint32),
        "source_bytes": random.integers(LENGTH, 10 * LENGTH, count),
        "source_sha256": [random.bytes(32) for _ in range(count)],
        "width": np.full(count, 4000, np.int32),
        "height": np.full(count, 3000, np.int32),
    }
    return pa.table(dict(_all_columns(columns, count)), schema=SCHEMA)


def _all_columns(columns: dict[str, object], count: int) -> Iterator[tuple[str, object]]:
    for field in SCHEMA:
        yield field.name, columns.get(field.name, pa.nulls(count, field.type))
