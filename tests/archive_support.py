"""What an archive in a test has to say for itself."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from lichen.pipeline.archive import layout
from lichen.pipeline.archive.index import IndexRow
from lichen.pipeline.archive.manifest import SEAL, dump
from lichen.pipeline.archive.marker import read_marker
from lichen.pipeline.archive.payload_list import read_payloads
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.shard import Location
from lichen.pipeline.archive.snapshot import latest_snapshot, read_snapshot
from lichen.pipeline.archive.store import Store


def opened(store: Store, number: int | None = None) -> Archive:
    """The newest snapshot, or an older one."""
    found = latest_snapshot(store) if number is None else read_snapshot(store, number)
    return Archive(store, read_marker(store), found)


def contents(store: Store, number: int | None = None) -> dict[str, bytes]:
    """The originals in it by key."""
    archive = opened(store, number)
    return {key: archive.original(key) for key in archive}


def make_row(location: Location, key: str, original: bytes, **columns: Any) -> IndexRow:
    """The row of an original that is stored as it is."""
    values: dict[str, Any] = {
        "key": key,
        "status": "stored",
        "source_bytes": len(original),
        "source_sha256": hashlib.sha256(original).digest(),
        "reason": "test",
        **location.columns(),
        **columns,
    }
    return IndexRow(**values)


def in_json(store: Store, number: int) -> None:
    """Write a snapshot as early versions did: its payload files in the JSON file."""
    path = layout.snapshot_path(number)
    record = {name: value for name, value in json.loads(store.read(path)).items() if name != SEAL}
    payloads = read_payloads(store, read_snapshot(store, number))
    listed = record.pop("payload_files")["list"]
    record["payloads"] = [{**one.record.to_json(), "index_size": one.index_size} for one in payloads]
    store.put(path, dump({**record, "format": 1}))
    store.delete([layout.snapshot_file_path(listed["file"])])
