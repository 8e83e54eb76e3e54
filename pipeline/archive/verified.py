"""Writing files of an archive so that they count only if the store gives them back as they were written."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lichen.errors import VerificationFailed
from lichen.pipeline.archive.manifest import FileRecord
from lichen.pipeline.archive.store import Store

READ_BACK = 8 * 1024 * 1024


def create_verified(store: Store, path: str, data: bytes) -> bool:
    """Create a file if it is absent, and read it back. False if another's is there, which is not looked at.

    Raises ``VerificationFailed`` if the store holds something else than was written; that is deleted, since it is
    nothing to anybody, and would be in the way of the next who tries.
    """
    if not store.create(path, data):
        return False
    compare(store, path, len(data), hashlib.sha256(data).hexdigest())
    return True


def put_verified(store: Store, path: str, data: bytes, rows: int) -> FileRecord:
    """Write a small data file under an attempt-unique name, read it back and compare."""
    digest = hashlib.sha256(data).hexdigest()
    store.put(path, data)
    compare(store, path, len(data), digest)
    return FileRecord(file=path.rpartition("/")[2], size=len(data), sha256=digest, rows=rows)


def put_file_verified(store: Store, path: str, local: Path, rows: int) -> FileRecord:
    """Put a finished local file of any size, and read it back to compare length and digest."""
    digest = hashlib.sha256()
    size = 0
    with local.open("rb") as file:
        while chunk := file.read(READ_BACK):
            digest.update(chunk)
            size += len(chunk)
    store.put_file(path, local)
    compare(store, path, size, digest.hexdigest())
    return FileRecord(file=path.rpartition("/")[2], size=size, sha256=digest.hexdigest(), rows=rows)


def compare(store: Store, path: str, size: int, sha256: str) -> None:
    """Read an object back; unless it is what was written, delete it and raise ``VerificationFailed``."""
    if store.size(path) != size or stored_sha256(store, path, size) != sha256:
        store.delete([path])
        raise VerificationFailed(f"{store.url}/{path} does not hold the {size} bytes that were written")


def stored_sha256(store: Store, path: str, size: int) -> str:
    """The SHA-256 of an object of that many bytes, read in pieces, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    for offset in range(0, size, READ_BACK):
        digest.update(store.read_range(path, offset, min(READ_BACK, size - offset)))
    return digest.hexdigest()


def wrong_size(found: int | None, size: int) -> str | None:
    """What is to be said of an object that has ``found`` bytes, None where it is missing; None if that is ``size``."""
    if found == size:
        return None
    return "is missing" if found is None else f"has {found} bytes instead of {size}"
