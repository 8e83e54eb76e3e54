"""``lichen.json``: what makes a folder an archive."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from lichen.models.errors import ArchiveError, ArchiveNotFound, CorruptArchive
from lichen.pipeline.archive.layout import MARKER, now
from lichen.pipeline.archive.manifest import dump, load
from lichen.pipeline.archive.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """The identity of an archive: a random id (32 hexadecimal digits), when and by what it was created."""

    id: str
    created: str
    writer: str


def create_marker(store: Store, *, exist_ok: bool = False) -> Marker:
    """Make an archive of a store's root. Raises ``ArchiveError`` if it is one, unless ``exist_ok``."""
    record = {
        "kind": "lichen-archive",
        "id": secrets.token_hex(16),
        "created": now(),
        "writer": f"lichen {_version()}",
    }
    if not store.create(MARKER, dump(record)) and not exist_ok:
        raise ArchiveError(f"{store.url} is an archive already")
    return read_marker(store)


def read_marker(store: Store) -> Marker:
    """Raises ``ArchiveNotFound``, ``CorruptArchive``, or ``UnsupportedArchive`` for a newer format."""
    fields = load(store, MARKER)
    if fields is None:
        raise ArchiveNotFound(f"there is no archive at {store.url}")
    if fields.text("kind") != "lichen-archive":
        raise CorruptArchive(f"{store.url}/{MARKER} is not the marker of an archive")
    return Marker(id=fields.text("id"), created=fields.text("created"), writer=fields.text("writer"))


def _version() -> str:
    try:
        return version("lichen")
    except PackageNotFoundError:
        return "unknown"


def check_vacant(store: Store) -> None:
    """placeholder"""
