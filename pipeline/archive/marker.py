"""``lichen.json``: what makes a folder an archive."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from lichen.errors import ArchiveError, ArchiveNotFound, CorruptArchive, UsageError
from lichen.pipeline.archive.layout import FOLDERS, MARKER, PROBES, TEMPORARY, is_own, now
from lichen.pipeline.archive.manifest import dump, load
from lichen.pipeline.archive.store import Store
from lichen.pipeline.archive.verified import create_verified


@dataclass(frozen=True, slots=True, kw_only=True)
class Marker:
    """The identity of an archive: a random id (32 hexadecimal digits), when and by what it was created."""

    id: str
    created: str
    writer: str


def check_vacant(store: Store) -> None:
    """Raise ``UsageError`` where an archive would have to share its names with files that are there already.

    An archive that is there may go on, and what nobody else uses is vacant, whatever else lies beside. Nothing is
    written. Raises ``CorruptArchive`` for a marker that is none.
    """
    if store.exists(MARKER):
        read_marker(store)
        return
    for folder in FOLDERS:
        # Unfinished files of others who are about to make an archive here have names that only lichen gives.
        tolerated = folder in (TEMPORARY, PROBES)
        taken = next((name for name in store.names(folder) if not (tolerated and is_own(name))), None)
        if taken is not None and not store.exists(MARKER):  # or another process has made it one meanwhile
            raise UsageError(
                f"{store.url}/{taken} is there already, and an archive keeps its own files under {folder}/; give a "
                f"folder of its own (or, if this was an archive, put its {MARKER} back)"
            )


def create_marker(store: Store, *, exist_ok: bool = False) -> Marker:
    """Make an archive of a store's root. Raises ``ArchiveError`` if it is one, unless ``exist_ok``.

    Raises ``UsageError`` where something else has the names that it needs (``check_vacant``).
    """
    check_vacant(store)
    record = {
        "kind": "lichen-archive",
        "id": secrets.token_hex(16),
        "created": now(),
        "writer": f"lichen {_version()}",
    }
    if not create_verified(store, MARKER, dump(record)) and not exist_ok:
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
