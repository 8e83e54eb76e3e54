"""Snapshots: the whole archive at one moment, as a sorted index and a list of files (docs/format.md, 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from lichen.errors import CorruptArchive
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.commit import (
    read_totals,
)
from lichen.pipeline.archive.index_file import IndexFile
from lichen.pipeline.archive.manifest import Fields, FileRecord, Json, dump, require
from lichen.pipeline.archive.store import Store

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
    codecs: tuple[str, ...] | None = None
    """Digests that its rows name; None where the snapshot that wrote it did not say."""


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
            codecs=part.names("codecs", "digest") if "codecs" in part.values else None,
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


def dump_snapshot(snapshot: Snapshot) -> bytes:
    """The snapshot as its JSON file."""
    index: list[Json] = [
        {**part.record.to_json(), "min_key": part.min_key, "max_key": part.max_key}
        | ({} if part.codecs is None else {"codecs": list(part.codecs)})
        for part in snapshot.index
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
