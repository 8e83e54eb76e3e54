"""Writing one shard: payloads to a local spool, the spool to the store, and proof that it arrived."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import google_crc32c

from lichen.errors import DuplicateKey, StoreError
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.commit import ShardCommit, table_totals
from lichen.pipeline.archive.index import IndexRow, check_table, index_bytes, to_table
from lichen.pipeline.archive.manifest import FileRecord
from lichen.pipeline.archive.rejects import Quarantined, Skipped, table_bytes
from lichen.pipeline.archive.store import Store
from lichen.pipeline.archive.verified import compare, put_verified
from lichen.pipeline.closing import Closing


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli), as an unsigned integer."""
    return int(google_crc32c.value(data))


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where ``append`` put a payload; the fields have the names of the index columns."""

    shard: str
    offset: int
    length: int
    crc32c: int
    side_offset: int | None
    side_length: int | None
    side_crc32c: int | None

    def columns(self) -> dict[str, Any]:
        """For ``IndexRow(**location.columns(), key=..., ...)``."""
        return asdict(self)


class ShardWriter(Closing):
    """One attempt at one shard. Nothing is visible to anybody before the result of ``publish`` is committed.

    Use as a context manager: leaving it removes the spool file. ``append``, ``read`` and the methods that add
    rows may be called from several threads; memory holds the rows only, payloads are on the local disk.
    """

    def __init__(self, store: Store, shard: str, *, attempt: str | None = None, spool: Path | None = None) -> None:
        """``spool`` is a local folder (the system's temporary one by default) with room for the shard."""
        self.store = store
        self.shard = layout.check("shard", shard)
        self.attempt = layout.check("attempt", attempt or layout.new_attempt())
        self.file = layout.payload_file(shard, self.attempt)
        self.size = 0
        self._lock = threading.Lock()
        self._sha256 = hashlib.sha256()
        self._rows: dict[str, IndexRow] = {}
        self._quarantined: dict[str, Quarantined] = {}
        self._skipped: dict[str, Skipped] = {}
        self._folder = Path(spool or tempfile.gettempdir())
        # The file has no name, so it vanishes with its process, however that ends.
        self._spool: BinaryIO = cast(BinaryIO, tempfile.TemporaryFile(prefix="lichen-", dir=self._folder))  # noqa: SIM115
        self._path = Path(f"/proc/self/fd/{self._spool.fileno()}")

    def close(self) -> None:
        """Remove the spool file. May be called twice."""
        with contextlib.suppress(OSError):  # what a full disk did not take is thrown away anyway
            self._spool.close()

    # --- filling ---

    def append(self, payload: bytes, side: bytes = b"") -> Location:
        """Write a payload and its side data behind the others. The row must be added by ``add``."""
        with self._lock:
            offset, side_offset = self.size, self.size + len(payload)
            with self._spooling():
                for data in (payload, side):
                    self._spool.write(data)
                    self._sha256.update(data)
            self.size += len(payload) + len(side)
        return Location(
            shard=self.file,
            offset=offset,
            length=len(payload),
            crc32c=crc32c(payload),
            side_offset=side_offset if side else None,
            side_length=len(side) if side else None,
            side_crc32c=crc32c(side) if side else None,
        )

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the spool file, for verification of what was written."""
        with self._lock, self._spooling():
            self._spool.flush()
            return os.pread(self._spool.fileno(), length, offset)

    @contextlib.contextmanager
    def _spooling(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"cannot spool shard {self.shard} in {self._folder}: {error}") from error

    def add(self, row: IndexRow) -> None:
        """Add the row of an appended payload. Raises ``DuplicateKey``."""
        if row.shard != self.file:
            raise ValueError(f"the row of {row.key!r} is located in {row.shard}, not in {self.file}")
        with self._lock:
            self._new(row.key)
            self._rows[row.key] = row

    def quarantine(
        self,
        key: str,
        uri: str,
        error: BaseException,
        *,
        size: int | None = None,
        mtime: float | None = None,
        etag: str | None = None,
    ) -> None:
        """Record a source whose bytes could not be read."""
        with self._lock:
            self._new(key)
            self._quarantined[key] = Quarantined(
                key=key,
                uri=uri,
                error=type(error).__name__,
                message=str(error)[:2000],
                attempt=self.attempt,
                size=size,
                mtime=mtime,
                etag=etag,
            )

    def skip(
        self,
        key: str,
        uri: str,
        reason: str,
        *,
        size: int | None = None,
        mtime: float | None = None,
        etag: str | None = None,
    ) -> None:
        """Record a source that is no picture."""
        with self._lock:
            self._new(key)
            self._skipped[key] = Skipped(
                key=key, uri=uri, reason=reason, attempt=self.attempt, size=size, mtime=mtime, etag=etag
            )

    def _new(self, key: str) -> None:
        if key in self._rows or key in self._quarantined or key in self._skipped:
            raise DuplicateKey(f"{key!r} occurs twice in shard {self.shard}")

    # --- finishing ---

    def publish(
        self, codecs: Mapping[str, tuple[str, ...]] | None = None, summary: Mapping[str, Any] | None = None
    ) -> ShardCommit:
        """Upload everything, read it back, and return the record for ``commit_shard``.

        ``codecs`` maps the digests of the codecs used to their file extensions (for the index's metadata).
        Raises ``VerificationFailed`` if the store returns other bytes than were spooled; then the object is
        deleted. Raises ``CorruptArchive`` if a row does not fit the payload file.
        """
        with self._spooling():
            self._spool.flush()
        digest = self._sha256.hexdigest()
        path = layout.shard_path(self.file)
        table = to_table(self._rows.values())
        check_table(table, self.file, {self.file: self.size})
        self.store.put_file(path, self._path)
        compare(self.store, path, self.size, digest)
        metadata = {"shard": self.shard}
        name = layout.table_file(self.shard, self.attempt)
        index = put_verified(
            self.store, layout.shard_path(name), index_bytes(table, metadata, codecs or {}), len(self._rows)
        )
        job = layout.job_of(self.shard)
        quarantine = skipped = None
        if self._quarantined:
            quarantine = put_verified(
                self.store,
                layout.job_path(job, f"quarantine/{name}"),
                table_bytes(list(self._quarantined.values()), Quarantined),
                len(self._quarantined),
            )
        if self._skipped:
            skipped = put_verified(
                self.store,
                layout.job_path(job, f"skipped/{name}"),
                table_bytes(list(self._skipped.values()), Skipped),
                len(self._skipped),
            )
        return ShardCommit(
            job=job,
            shard=self.shard,
            attempt=self.attempt,
            created=layout.now(),
            sources=len(self._rows) + len(self._quarantined) + len(self._skipped),
            payload=FileRecord(file=self.file, size=self.size, sha256=digest, rows=len(self._rows)),
            index=index,
            quarantine=quarantine,
            skipped=skipped,
            totals=table_totals(table),
            summary=dict(summary or {}),
        )
