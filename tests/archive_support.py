"""What an archive in a test has to say for itself."""

from __future__ import annotations

from lichen.pipeline.archive.marker import read_marker
from lichen.pipeline.archive.reader import Archive
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
