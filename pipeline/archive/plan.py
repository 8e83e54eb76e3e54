"""The frozen plan of a job: every source with its shard, written part by part ahead of the work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace

import pyarrow as pa
import pyarrow.parquet as pq

from lichen.errors import CorruptArchive, LeaseLost
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.bounded import BoundedParquet
from lichen.pipeline.archive.manifest import dump, load
from lichen.pipeline.archive.store import Store
from lichen.pipeline.archive.verified import create_verified
from lichen.pipeline.sources import Source
from lichen.pipeline.sources.secrets import is_redacted, redact_uri

MAX_PART_BYTES = 1 << 30
MAX_PART_SHARDS = 64

SCHEMA = pa.schema(
    [
        pa.field("shard", pa.string(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size", pa.int64()),
        pa.field("mtime", pa.float64()),
        pa.field("etag", pa.string()),
        pa.field("offset", pa.int64()),
        pa.field("fault", pa.string()),
    ]
)
_LATER = ("fault",)
"""Columns that plans of earlier versions lack."""
_SOURCE_FIELDS = [field.name for field in fields(Source)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """How sources are grouped into shards. A shard is closed by whichever limit it reaches first."""

    target_bytes: int = 256 * 1024 * 1024
    max_sources: int = 16_384
    unknown_size: int = 1024 * 1024
    """Bytes that a source of unknown size counts for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedShard:
    """A shard with its sources in work order."""

    shard: str
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSummary:
    """A complete plan. ``bytes`` counts the sources whose size is known."""

    parts: int
    shards: int
    sources: int
    bytes: int


def group_sources(
    sources: Iterable[Source], job: str, grouping: Grouping | None = None, first: int = 0
) -> Iterator[PlannedShard]:
    """Cut a list of sources into shards, in order. Pure: no I/O, lazy, deterministic."""
    grouping = grouping or Grouping()
    group: list[Source] = []
    size = 0
    for source in sources:
        group.append(source)
        size += grouping.unknown_size if source.size is None else source.size
        if size >= grouping.target_bytes or len(group) >= grouping.max_sources:
            yield PlannedShard(shard=layout.shard_id(job, first), sources=tuple(group))
            first, group, size = first + 1, [], 0
    if group:
        yield PlannedShard(shard=layout.shard_id(job, first), sources=tuple(group))


def write_plan(
    store: Store, job: str, sources: Iterable[Source], grouping: Grouping | None = None
) -> Iterator[PlannedShard]:
    """Yield the shards of a job; each one is in the archive, frozen, before it is yielded.

    Goes on where an earlier driver stopped: shards that are planned already come first, in their order;
    then, unless the plan is complete, ``sources`` is read, without the keys that are planned. When the
    iterator ends, the plan is complete. Keys must be unique. Raises ``LeaseLost`` if another driver writes
    the same plan.

    Passwords and signatures in URIs are never written. Where they are missing in what was planned earlier, the
    same keys in ``sources`` have them; only then are sources listed that are planned already, and held in memory.
    """
    layout.check("job", job)
    part = count = total = shards = 0
    planned: set[str] = set()
    whole: dict[str, str] | None = None
    complete = read_summary(store, job)
    for rows in _read_parts(store, job, complete):
        for shard in rows:
            if any(is_redacted(source.uri) for source in shard.sources):
                if whole is None:
                    sources = list(sources)
                    whole = {source.key: source.uri for source in sources if redact_uri(source.uri) != source.uri}
                shard = _with_secrets(shard, whole)
            if complete is None:
                planned.update(source.key for source in shard.sources)
            count += len(shard.sources)
            total += sum(source.size or 0 for source in shard.sources)
            shards += 1
            yield shard
        part += 1
    if complete is not None:
        if (complete.shards, complete.sources) != (shards, count):
            raise CorruptArchive(f"the plan of job {job} has {shards} shards, not {complete.shards}")
        return
    fresh = (source for source in sources if source.key not in planned)
    batch: list[PlannedShard] = []
    for shard in group_sources(fresh, job, grouping, first=shards):
        batch.append(shard)
        count += len(shard.sources)
        total += sum(source.size or 0 for source in shard.sources)
        shards += 1
        if len(batch) >= min(1 << min(part, 16), MAX_PART_SHARDS):
            _write_part(store, job, part, batch)
            yield from batch
            part, batch = part + 1, []
    if batch:
        _write_part(store, job, part, batch)
        yield from batch
        part += 1
    create_verified(
        store,
        layout.job_path(job, "plan.json"),
        dump({"job": job, "parts": part, "shards": shards, "sources": count, "bytes": total}),
    )


def _with_secrets(shard: PlannedShard, whole: Mapping[str, str]) -> PlannedShard:
    """The shard with the URIs that a listing gave to its keys; what is not listed any more cannot be read."""
    sources = (
        replace(source, uri=whole.get(source.key, source.uri)) if is_redacted(source.uri) else source
        for source in shard.sources
    )
    return replace(shard, sources=tuple(sources))


def read_plan(store: Store, job: str) -> Iterator[PlannedShard]:
    """The shards that are planned so far, in order; with ``***`` in URIs where secrets belong."""
    for shards in _read_parts(store, layout.check("job", job), read_summary(store, job)):
        yield from shards


def read_summary(store: Store, job: str) -> PlanSummary | None:
    """The size of a complete plan; None while it is being written."""
    stated = load(store, layout.job_path(layout.check("job", job), "plan.json"))
    if stated is None:
        return None
    return PlanSummary(
        parts=stated.integer("parts"),
        shards=stated.integer("shards"),
        sources=stated.integer("sources"),
        bytes=stated.integer("bytes"),
    )


def _write_part(store: Store, job: str, part: int, shards: list[PlannedShard]) -> None:
    columns: dict[str, list[object]] = {name: [] for name in SCHEMA.names}
    for shard in shards:
        columns["shard"].extend([shard.shard] * len(shard.sources))
        for name in _SOURCE_FIELDS:
            columns[name].extend(getattr(source, name) for source in shard.sources)
    columns["uri"] = [redact_uri(str(uri)) for uri in columns["uri"]]
    # The attempt tells this driver's part from a rival's, for create()'s comparison.
    metadata = {"lichen.format": str(layout.FORMAT), "lichen.attempt": layout.new_attempt()}
    schema = SCHEMA.with_metadata(metadata)
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_pydict(columns, schema=schema),
        sink,
        compression="zstd",
        use_dictionary=["shard"],
        write_page_checksum=True,
    )
    if not create_verified(store, layout.plan_path(job, part), sink.getvalue().to_pybytes()):
        raise LeaseLost(f"another driver is planning job {job}")


def _read_parts(store: Store, job: str, complete: PlanSummary | None) -> Iterator[list[PlannedShard]]:
    part = first = 0
    while part < complete.parts if complete else store.exists(layout.plan_path(job, part)):
        shards = _read_part(store, job, part, first)
        first += len(shards)
        part += 1
        yield shards


def _read_part(store: Store, job: str, part: int, first: int) -> list[PlannedShard]:
    path = layout.plan_path(job, part)
    data = store.read(path, limit=MAX_PART_BYTES)
    file = BoundedParquet.of_bytes(data, path, max_bytes=MAX_PART_BYTES)
    fields = [field for field in SCHEMA if field.name in file.schema.names or field.name not in _LATER]
    if file.schema.remove_metadata() != pa.schema(fields):
        raise CorruptArchive(f"{path}: not the columns of a plan")
    table = file.read_all([field.name for field in fields])
    for name in SCHEMA.names:
        if name not in table.column_names:
            table = table.append_column(SCHEMA.field(name), pa.nulls(len(table), SCHEMA.field(name).type))
    shards: list[PlannedShard] = []
    names = table.column("shard").to_pylist()
    rows = table.select(_SOURCE_FIELDS).to_pylist()
    start = 0
    for end in range(1, len(names) + 1):
        if end == len(names) or names[end] != names[start]:
            expected = layout.shard_id(job, first + len(shards))
            if names[start] != expected:
                raise CorruptArchive(f"{path}: found shard {str(names[start])[:80]!r} instead of {expected}")
            group = tuple(Source(**row) for row in rows[start:end])
            shards.append(PlannedShard(shard=expected, sources=group))
            start = end
    for shard in shards:
        for source in shard.sources:
            if (source.size or 0) < 0 or (source.offset or 0) < 0:
                raise CorruptArchive(f"{path}: {source.key!r} has a negative size or offset")
    return shards
