"""Commits: the one attempt of a shard that counts, or the split of a shard into children.

Everything here is a conditional create of ``commits/<job>/<shard>.json``; see section 5 of docs/format.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc

from lichen.errors import CommitConflict, CorruptArchive
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.manifest import Fields, FileRecord, Json, dump, load
from lichen.pipeline.archive.plan import PlannedShard
from lichen.pipeline.archive.store import READERS, Store
from lichen.pipeline.archive.verified import create_verified

TOTALS = ("pictures", "compressed", "packed", "stored", "source_bytes", "payload_bytes", "side_bytes", "pixels")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardCommit:
    """A finished attempt at a shard. Every source is in one of the tables that it names."""

    job: str
    shard: str
    attempt: str
    created: str
    sources: int
    payload: FileRecord
    index: FileRecord
    quarantine: FileRecord | None
    skipped: FileRecord | None
    totals: Mapping[str, int]
    """The integers named in ``TOTALS``."""
    summary: Mapping[str, Any] = field(default_factory=dict)
    """The engine's own notes (stage times), JSON."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """Sources ``begin`` to ``end`` (exclusive) of the parent's list."""

    shard: str
    begin: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSplit:
    """A shard that its children replace."""

    job: str
    shard: str
    attempt: str
    created: str
    reason: str
    children: tuple[Child, ...]


CommitRecord: TypeAlias = ShardCommit | ShardSplit


# --- writing ----------------------------------------------------------------------------------------


def commit_shard(store: Store, commit: ShardCommit) -> None:
    """Make an attempt the one that counts. Raises ``CommitConflict`` if another attempt or a split does.

    Committing the same record again is harmless.
    """
    if not create_verified(store, layout.commit_path(commit.shard), _dump(commit)):
        winner = read_commit(store, commit.shard)
        if winner is None or winner.attempt != commit.attempt:
            kind = "split" if isinstance(winner, ShardSplit) else "committed by another attempt"
            raise CommitConflict(f"shard {commit.shard} was {kind} first; {commit.attempt} is dropped")


def split_shard(store: Store, planned: PlannedShard, reason: str, parts: int = 2) -> CommitRecord:
    """Replace a shard by children of about equal length, under its own name, and return what now stands.

    That is this split, or another driver's, or the commit of an attempt that finished after all. Hand out
    children only as ``children_of`` this answer. Raises ``ValueError`` for a shard of a single source.
    """
    count = len(planned.sources)
    if count < 2 or parts < 2:
        raise ValueError(f"shard {planned.shard} of {count} sources cannot be split into {parts}")
    parts = min(parts, count)
    bounds = [count * n // parts for n in range(parts + 1)]
    split = ShardSplit(
        job=layout.job_of(planned.shard),
        shard=planned.shard,
        attempt=layout.new_attempt(),
        created=layout.now(),
        reason=reason,
        children=tuple(
            Child(shard=layout.child_id(planned.shard, n), begin=bounds[n], end=bounds[n + 1]) for n in range(parts)
        ),
    )
    if create_verified(store, layout.commit_path(planned.shard), _dump(split)):
        return split
    standing = read_commit(store, planned.shard)
    if standing is None:
        raise CorruptArchive(f"{layout.commit_path(planned.shard)} has vanished")
    return standing


def children_of(planned: PlannedShard, split: ShardSplit) -> list[PlannedShard]:
    """The children of a split shard with their sources."""
    if split.shard != planned.shard or split.children[-1].end != len(planned.sources):
        raise CorruptArchive(f"the split of {split.shard} does not fit the plan of {planned.shard}")
    return [
        PlannedShard(shard=child.shard, sources=planned.sources[child.begin : child.end]) for child in split.children
    ]


# --- reading ----------------------------------------------------------------------------------------


def read_commit(store: Store, shard: str) -> CommitRecord | None:
    """What stands under the name of a shard; None if nothing does yet."""
    fields = load(store, layout.commit_path(shard))
    return None if fields is None else _parse(fields, shard)


def list_commits(store: Store, job: str) -> dict[str, CommitRecord]:
    """All commit records of a job by shard, whether or not a split leads to them."""
    folder = f"{layout.COMMITS}/{layout.check('job', job)}"
    shards = []
    for entry in store.entries(folder):
        match = re.fullmatch(rf"{folder}/([^/]+)\.json", entry.path)
        if match and layout.is_name("shard", match[1]):
            shards.append(match[1])
    with ThreadPoolExecutor(READERS) as pool:
        records = list(pool.map(lambda shard: read_commit(store, shard), shards))
    return {record.shard: record for record in records if record is not None}


def counting_commits(commits: Mapping[str, CommitRecord], job: str) -> list[ShardCommit]:
    """The shards that count: those of the plan, with split ones replaced by their children. Pure."""
    root = re.compile(rf"{re.escape(job)}\.\d+")
    found: list[ShardCommit] = []
    open_names = sorted((shard for shard in commits if root.fullmatch(shard)), reverse=True)
    while open_names:
        record = commits.get(open_names.pop())
        if isinstance(record, ShardSplit):
            open_names.extend(child.shard for child in reversed(record.children))
        elif record is not None:
            found.append(record)
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """Where a job stands: what is committed and what is still to do, splits followed."""

    committed: tuple[ShardCommit, ...]
    open: tuple[PlannedShard, ...]


def job_state(planned: Iterable[PlannedShard], commits: Mapping[str, CommitRecord]) -> JobState:
    """Follow the plan through the commits. Pure."""
    committed: list[ShardCommit] = []
    remaining: list[PlannedShard] = []
    for root in planned:
        stack = [root]
        while stack:
            shard = stack.pop()
            match commits.get(shard.shard):
                case None:
                    remaining.append(shard)
                case ShardSplit() as split:
                    stack.extend(reversed(children_of(shard, split)))
                case ShardCommit() as commit:
                    if commit.sources != len(shard.sources):
                        raise CorruptArchive(
                            f"the commit of {shard.shard} covers {commit.sources} sources,"
                            f" the plan {len(shard.sources)}"
                        )
                    committed.append(commit)
    return JobState(committed=tuple(committed), open=tuple(remaining))


def read_totals(fields: Fields) -> dict[str, int]:
    """The totals of a record. Those of earlier versions count nothing as packed."""
    totals = {"packed": 0, **fields.integers("totals")}
    if missing := [name for name in TOTALS if name not in totals]:
        raise CorruptArchive(f"{fields.where}: totals without {missing[0]}")
    return totals


def add_totals(totals: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum, over all the names in ``TOTALS``."""
    result = dict.fromkeys(TOTALS, 0)
    for one in totals:
        for name in TOTALS:
            result[name] += one[name]
    return result


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


# --- JSON -------------------------------------------------------------------------------------------


def _dump(record: CommitRecord) -> bytes:
    common: dict[str, Json] = {
        "kind": "shard" if isinstance(record, ShardCommit) else "split",
        "job": record.job,
        "shard": record.shard,
        "attempt": record.attempt,
        "created": record.created,
    }
    if isinstance(record, ShardSplit):
        children: Sequence[Json] = [
            {"shard": child.shard, "begin": child.begin, "end": child.end} for child in record.children
        ]
        return dump({**common, "reason": record.reason, "children": children})
    return dump(
        {
            **common,
            "sources": record.sources,
            "payload": record.payload.to_json(),
            "index": record.index.to_json(),
            "quarantine": record.quarantine.to_json() if record.quarantine else None,
            "skipped": record.skipped.to_json() if record.skipped else None,
            "totals": dict(record.totals),
            "summary": dict(record.summary),
        }
    )


def _parse(fields: Fields, shard: str) -> CommitRecord:
    job = layout.job_of(shard)
    if fields.text("shard") != shard or fields.text("job") != job:
        raise CorruptArchive(f"{fields.where} is the record of another shard")
    attempt = fields.name("attempt", "attempt")
    match fields.text("kind"):
        case "split":
            return ShardSplit(
                job=job,
                shard=shard,
                attempt=attempt,
                created=fields.text("created"),
                reason=fields.text("reason"),
                children=_parse_children(fields, shard),
            )
        case "shard":
            return _parse_shard(fields, job, shard, attempt)
        case other:
            raise CorruptArchive(f"{fields.where}: unknown kind {other[:40]!r}")


def _parse_children(fields: Fields, shard: str) -> tuple[Child, ...]:
    children = []
    begin = 0
    for number, inner in enumerate(fields.objects("children")):
        child = Child(shard=inner.text("shard"), begin=inner.integer("begin"), end=inner.integer("end"))
        if child.shard != layout.child_id(shard, number) or child.begin != begin or child.end <= begin:
            raise CorruptArchive(f"{inner.where}: children must be numbered and follow each other")
        begin = child.end
        children.append(child)
    if len(children) < 2:
        raise CorruptArchive(f"{fields.where}: a split has at least two children")
    return tuple(children)


def _parse_shard(fields: Fields, job: str, shard: str, attempt: str) -> ShardCommit:
    def record(name: str, file: str) -> FileRecord:
        inner = Fields(fields.mapping(name), f"{fields.where}: {name}")
        kind = "payload file" if name == "payload" else "table file"
        found = FileRecord.from_fields(inner, kind)
        if found.file != file:
            raise CorruptArchive(f"{inner.where}: {found.file} is not a file of this attempt")
        return found

    payload, table = layout.payload_file(shard, attempt), layout.table_file(shard, attempt)
    totals = read_totals(fields)
    commit = ShardCommit(
        job=job,
        shard=shard,
        attempt=attempt,
        created=fields.text("created"),
        sources=fields.integer("sources"),
        payload=record("payload", payload),
        index=record("index", table),
        quarantine=None if fields.values.get("quarantine") is None else record("quarantine", table),
        skipped=None if fields.values.get("skipped") is None else record("skipped", table),
        totals=totals,
        summary=fields.mapping("summary"),
    )
    tables = (commit.index, commit.quarantine, commit.skipped)
    if commit.sources != sum(table.rows for table in tables if table is not None):
        raise CorruptArchive(f"{fields.where}: the tables do not add up to {commit.sources} sources")
    return commit
