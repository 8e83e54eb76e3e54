"""Snapshots: the whole archive at one moment, as a sorted index and a list of files (docs/format.md, 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lichen.errors import CorruptArchive
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.commit import read_totals
from lichen.pipeline.archive.manifest import Fields, FileRecord, Json, dump, require
from lichen.pipeline.archive.store import Store


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
    payload_list: FileRecord | None
    """The table of payload files (``payload_list``); None in snapshots of early versions, and without any."""
    inline_payloads: tuple[PayloadFile, ...]
    """The payload files in snapshots of early versions."""
    payload_count: int
    payload_bytes: int
    """Bytes of all payload files; they may hold more than the rows name."""
    part_bytes: int
    """Bytes of the index parts beside the payload files."""
    codecs: Mapping[str, Mapping[str, int]]
    """Digest to file extension to size in bytes."""
    totals: Mapping[str, int]

    @property
    def index_bytes(self) -> int:
        """Bytes of the index files, the list of payload files, and the index parts beside these."""
        listed = 0 if self.payload_list is None else self.payload_list.size
        return sum(part.record.size for part in self.index) + listed + self.part_bytes


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
    payload_list: FileRecord | None = None
    inline: tuple[PayloadFile, ...] = ()
    if "payload_files" in fields.values:
        if "payloads" in fields.values:
            raise CorruptArchive(f"{fields.where} has two lists of payload files")
        stated = Fields(fields.values["payload_files"], f"{fields.where}: payload_files")
        count, size, parts = (stated.integer(name) for name in ("count", "bytes", "part_bytes"))
        if stated.values.get("list") is not None:
            payload_list = FileRecord.from_fields(
                Fields(stated.values["list"], f"{stated.where}: list"), "payload list"
            )
        if count != (0 if payload_list is None else payload_list.rows):
            raise CorruptArchive(f"{fields.where}: its list does not have {count} payload files")
    else:
        inline = tuple(
            PayloadFile(record=FileRecord.from_fields(one, "payload file"), index_size=one.integer("index_size"))
            for one in fields.objects("payloads")
        )
        count, size = len(inline), sum(one.record.size for one in inline)
        parts = sum(one.index_size for one in inline)
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
        payload_list=payload_list,
        inline_payloads=inline,
        payload_count=count,
        payload_bytes=size,
        part_bytes=parts,
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
            "payload_files": {
                "list": None if snapshot.payload_list is None else snapshot.payload_list.to_json(),
                "count": snapshot.payload_count,
                "bytes": snapshot.payload_bytes,
                "part_bytes": snapshot.part_bytes,
            },
            "codecs": {digest: dict(sizes) for digest, sizes in snapshot.codecs.items()},
            "totals": dict(snapshot.totals),
        }
    )
