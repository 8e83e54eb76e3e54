"""What every store does: the few operations that an archive needs, over any file system that fsspec knows.

Paths are relative to the store's root, with ``/`` between the parts. What the operations promise, and how
an atomic create is done on each kind of store, is section 3 of docs/format.md.
"""

from __future__ import annotations

import errno
import os
import secrets
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

from fsspec.asyn import AsyncFileSystem

from lichen.errors import CorruptArchive, MissingObject, StoreError
from lichen.pipeline.archive import layout
from lichen.pipeline.logs import Log
from lichen.pipeline.parquet.store_file import StoreFile
from lichen.pipeline.ranges import MAX_GAP, MAX_REQUEST, plan_ranges
from lichen.pipeline.secrets import redact

log = Log(__name__)
READERS = 8
"""Range requests in flight at once in ``read_ranges``."""

TIMEOUT = 120.0
"""Seconds that an operation on a remote store may take, beside the time for its bytes at ``SLOWEST``."""

SLOWEST = 512 * 1024
"""Bytes a second below which a transfer counts as stalled."""

SMALL = 64 * 1024 * 1024
"""Bytes that are transferred within ``TIMEOUT`` at the rate ``SLOWEST``."""

_WRITING = frozenset({"create", "write"})
"""Operations that need a place to write to, and no object that is there."""

_CONDITIONAL = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})


@dataclass(frozen=True, slots=True)
class Entry:
    """One object of a listing. ``modified`` is in Unix seconds, by the store's clock."""

    path: str
    size: int
    modified: float
    plain: bool = True
    """Whether it is a regular file to which no symbolic link leads; on object stores everything is."""


class Store:
    """An object store behind fsspec. All operations may be called from several threads at once.

    They raise ``MissingObject`` for an object that is not there and ``StoreError`` for whatever else fails.
    """

    failures: tuple[type[Exception], ...] = (OSError, MemoryError)

    def __init__(self, filesystem: Any, root: str, url: str, timeout: float = TIMEOUT) -> None:
        self.filesystem = filesystem
        self.root = root.rstrip("/")
        self.url = url.rstrip("/")
        self.timeout = timeout
        self.conditional = True
        """Whether ``create`` is atomic, as far as is known; ``probe`` finds out."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    # --- what the kinds of stores do differently ---

    def _create(self, path: str, data: bytes) -> bool:
        protocols = self.filesystem.protocol
        names = {protocols} if isinstance(protocols, str) else set(protocols)
        if not self.conditional or not names & _CONDITIONAL:
            self.conditional = False
            if self.filesystem.exists(path, **self._limit()):
                return False
            self.filesystem.pipe_file(path, data, **self._limit(len(data)))
            return True
        try:
            self.filesystem.pipe_file(path, data, mode="create", **self._limit(len(data)))
        except FileExistsError:
            # The client repeats a request whose answer it lost, and is then told that the object exists.
            return bool(self.filesystem.cat_file(path, **self._limit(len(data))) == data)
        return True

    def _put_file(self, path: str, local: Path) -> None:
        self.filesystem.put_file(os.fspath(local), path, **self._limit(local.stat().st_size))

    def _put(self, path: str, data: bytes) -> None:
        self.filesystem.pipe_file(path, data, **self._limit(len(data)))

    def _delete(self, path: str) -> None:
        self.filesystem.rm_file(path, **self._limit())

    def _list(self, folder: str) -> Iterator[tuple[str, int, float, bool]]:
        """Path, size, time and plainness of every file below a folder."""
        for name, entry in self.filesystem.find(folder, detail=True).items():
            names = ("LastModified", "last_modified", "mtime", "updated", "created")
            stamp = next((entry[name] for name in names if entry.get(name)), 0.0)
            seconds = stamp.timestamp() if isinstance(stamp, datetime) else float(stamp)
            yield name, int(entry["size"]), seconds, True

    def _look(self, path: str) -> None:
        """Raise ``OSError`` for what is no file, where reading could wait for ever."""

    def _names(self, folder: str) -> Iterator[str]:
        """Whatever is below a folder, links and all, one by one; none if it does not exist."""
        yield from self.filesystem.find(folder)

    def _top(self) -> Iterator[str]:
        """What lies at the top, relative to it; names from further below may be among it."""
        start = len(self.root) + 1
        return (str(name)[start:] for name in self.filesystem.ls(self.root, detail=False))

    # --- operations ---

    def create(self, path: str, data: bytes) -> bool:
        """Put if absent, atomically. True if the object now holds this caller's data, false if another's.

        ``data`` must hold something of the caller's own wherever it matters who of several won.
        """
        for attempt in range(6):
            try:
                with self._wrapped("create", path):
                    return self._create(self._full(path), data)
            except StoreError as error:
                # 409: a rival's conditional request was in progress. Its outcome shows on the next try.
                busy = isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EBUSY
                if not busy or attempt == 5:
                    raise
                log.info("the store is busy with %s, trying again", path)
                threading.Event().wait(0.05 * 2**attempt)
        raise AssertionError("unreachable")

    def put(self, path: str, data: bytes) -> None:
        """Write or overwrite an object; readers see the old one or the new one, whole."""
        with self._wrapped("write", path):
            self._put(self._full(path), data)

    def put_file(self, path: str, local: Path) -> None:
        """Upload a finished local file of any size in bounded memory; a failure publishes nothing."""
        with self._wrapped("upload", path):
            self._put_file(self._full(path), local)

    def read(self, path: str, limit: int | None = None) -> bytes:
        """The whole object. ``CorruptArchive`` if it has more than ``limit`` bytes; no more are fetched."""
        with self._wrapped("read", path):
            self._look(self._full(path))
            try:
                # A bounded read is one request. What may be large is asked for its size: it may take longer.
                large = limit is None or limit > SMALL
                size = self.filesystem.size(self._full(path), **self._limit()) if large else 0
                start, end = (None, None) if limit is None else (0, limit + 1)
                data = bytes(self.filesystem.cat_file(self._full(path), start=start, end=end, **self._limit(size)))
            except OSError as error:
                # An object store refuses any range of an empty object.
                if error.errno != errno.EINVAL or self.filesystem.size(self._full(path), **self._limit()) != 0:
                    raise
                return b""
        if limit is not None and len(data) > limit:
            raise CorruptArchive(f"{self._show(path)} is larger than such a file can be ({limit} bytes)")
        return data

    def read_range(self, path: str, offset: int, length: int) -> bytes:
        """``length`` bytes from ``offset``; ``StoreError`` if the object ends before."""
        if offset < 0 or length < 0:
            raise StoreError(f"cannot read {length} bytes from {offset} of {self._show(path)}")
        if length == 0:
            return b""
        with self._wrapped("read", path):
            self._look(self._full(path))
            end = offset + length
            data = bytes(self.filesystem.cat_file(self._full(path), start=offset, end=end, **self._limit(length)))
        if len(data) != length:
            raise StoreError(f"{self._show(path)} ends {length - len(data)} bytes before {offset + length}")
        return data

    def read_ranges(
        self,
        ranges: Sequence[tuple[str, int, int]],
        max_gap: int = MAX_GAP,
        max_request: int = MAX_REQUEST,
    ) -> list[bytes]:
        """Many (path, offset, length) ranges, in order; neighbours in a file are fetched together."""
        by_path: dict[str, list[int]] = {}
        for number, (path, _, _) in enumerate(ranges):
            by_path.setdefault(path, []).append(number)
        results = [b""] * len(ranges)
        jobs = []
        for path, numbers in by_path.items():
            for request in plan_ranges([ranges[n][1:] for n in numbers], max_gap, max_request):
                jobs.append((path, numbers, request))
        with ThreadPoolExecutor(max_workers=min(READERS, len(jobs)) or 1) as pool:
            answers = pool.map(lambda job: self.read_range(job[0], job[2].start, job[2].length), jobs)
            for (_, numbers, request), answer in zip(jobs, answers, strict=True):
                for part in request.parts:
                    results[numbers[part.number]] = answer[part.start : part.start + part.length]
        return results

    def open(self, path: str) -> StoreFile:
        """The object as a seekable file for reading, without read-ahead."""
        size = self.size(path)
        return StoreFile(lambda offset, length: self.read_range(path, offset, length), size)

    def exists(self, path: str) -> bool:
        with self._wrapped("look for", path):
            return bool(self.filesystem.exists(self._full(path), **self._limit()))

    def size(self, path: str) -> int:
        """Bytes of the object."""
        with self._wrapped("look at", path):
            return int(self.filesystem.size(self._full(path), **self._limit()))

    def entries(self, folder: str = "") -> list[Entry]:
        """All objects below a folder, sorted by path; none if the folder does not exist."""
        full = self._full(folder) if folder else self.root
        start = len(self.root) + 1
        with self._wrapped("list", folder):
            try:
                found = [Entry(name[start:], size, when, plain) for name, size, when, plain in self._list(full)]
            except FileNotFoundError:
                return []
        return sorted(found, key=lambda entry: entry.path)

    def own_entries(self) -> list[Entry]:
        """The objects whose names have a form that lichen gives, sorted by path. The user's are not looked at."""
        found = [entry for folder in layout.FOLDERS for entry in self.entries(folder) if layout.is_own(entry.path)]
        if self.exists(layout.MARKER):
            found.append(Entry(layout.MARKER, self.size(layout.MARKER), 0.0))
        return sorted(found, key=lambda entry: entry.path)

    def names(self, folder: str) -> Iterator[str]:
        """Paths of whatever is below a folder, also what is no file, as the store tells them; none if there is none."""
        start = len(self.root) + 1
        with self._wrapped("list", folder):
            try:
                for name in self._names(self._full(folder)):
                    yield name[start:]
            except FileNotFoundError:
                return

    def first_names(self, count: int) -> list[str]:
        """Names that lie at the top of the store, among the first ``count`` that it lists; none if it is not there."""
        with self._wrapped("list", ""):
            try:
                return [name for name in islice(self._top(), count) if "/" not in name]
            except FileNotFoundError:
                return []

    def delete(self, paths: Iterable[str]) -> None:
        """Delete objects; those that are not there are passed over."""
        for path in paths:
            with self._wrapped("delete", path):
                try:
                    self._delete(self._full(path))
                except FileNotFoundError:
                    continue

    def probe(self) -> bool:
        """Find out, by trying, whether ``create`` is atomic here, and remember it in ``conditional``."""
        path = layout.probe_path()
        first, second = secrets.token_bytes(16), secrets.token_bytes(16)
        try:
            answers = (self.create(path, first), self.create(path, second))
            self.conditional = self.conditional and answers == (True, False) and self.read(path) == first
        except StoreError:
            # Stores that do not know the condition refuse the request; a store that refuses every
            # request fails the plain write below.
            self.conditional = False
            self.put(path, first)
        self.delete([path])
        return self.conditional

    # --- internals ---

    def _full(self, path: str) -> str:
        parts = path.split("/")
        if not path or any(part in ("", ".", "..") for part in parts) or "\0" in path or "\\" in path:
            raise StoreError(f"{path!r} is not a path inside an archive")
        return f"{self.root}/{path}"

    def _limit(self, size: int = 0) -> dict[str, float]:
        """The argument with which a file system of fsspec's own event loop gives up in time; none for others."""
        return {"timeout": self.timeout + size / SLOWEST} if isinstance(self.filesystem, AsyncFileSystem) else {}

    def _show(self, path: str) -> str:
        return f"{self.url}/{path}"

    @contextmanager
    def _wrapped(self, what: str, path: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if what in _WRITING:
                raise StoreError(
                    f"cannot {what} {self._show(path)}: the bucket or disk is not there, or takes no new names; "
                    "make it first, or give another place"
                ) from error
            raise MissingObject(f"{self._show(path)} does not exist") from error
        except TimeoutError as error:
            raise StoreError(
                f"cannot {what} {self._show(path)}: the store did not answer in time; look after it and the network, "
                "then give the same command again"
            ) from error
        except self.failures as error:
            reason = redact(str(error) or type(error).__name__)
            raise StoreError(f"cannot {what} {self._show(path)}: {reason}") from error
