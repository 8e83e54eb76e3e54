"""Stores by URL: local disks, object stores, memory. What they promise is section 3 of docs/format.md."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any, ClassVar

from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from lichen.errors import UsageError
from lichen.pipeline.archive.store_base import READERS, TIMEOUT, Entry, Store
from lichen.pipeline.archive.store_local import LocalStore
from lichen.pipeline.secrets import redact, split_credentials

__all__ = ["READERS", "Entry", "LocalStore", "MemoryStore", "Store", "open_store"]


class MemoryStore(Store):
    """A folder of fsspec's in-process memory file system."""

    _lock: ClassVar[threading.Lock] = threading.Lock()

    def _create(self, path: str, data: bytes) -> bool:
        with self._lock:
            if self.filesystem.exists(path):
                return False
            self.filesystem.pipe_file(path, data)
            return True


def open_store(
    url: str,
    storage_options: Mapping[str, Any] | None = None,
    *,
    conditional: bool | None = None,
    timeout: float = TIMEOUT,
) -> Store:
    """The store at any fsspec URL or local path. Nothing is read or written.

    ``conditional`` passes on what ``probe`` found, to workers that open the same store. ``timeout`` bounds what a
    remote store may take for an operation, in seconds, beside the time for the bytes. User and password in the URL
    become options; the store's ``url``, and so what is printed, is without them. Raises ``UsageError`` if no file
    system knows the URL, and for what is no folder.
    """
    if not url:  # a variable of a shell script that is not set; fsspec would take the working directory
        raise UsageError("the name of the archive is empty")
    url, credentials = split_credentials(url)
    options = {**credentials, **(storage_options or {})}
    if url.startswith(("s3://", "s3a://")):
        from lichen.pipeline.archive.store_s3 import s3_options

        options = s3_options(options)
    try:
        filesystem, root = url_to_fs(url, **options)
    except (ValueError, ImportError) as error:
        raise UsageError(redact(f"cannot open {url}: {error}")) from error
    store: Store
    if isinstance(filesystem, LocalFileSystem):
        if os.path.exists(root) and not os.path.isdir(root):
            raise UsageError(f"{url} is a file, and an archive is a folder (after compress the last name)")
        store = LocalStore(filesystem, os.path.abspath(root), url)
    elif isinstance(filesystem, MemoryFileSystem):
        store = MemoryStore(filesystem, root, url)
    elif "s3" in filesystem.protocol:
        from lichen.pipeline.archive.store_s3 import S3Store

        store = S3Store(filesystem, root, url, timeout)
    else:
        store = Store(filesystem, root, url, timeout)
    if conditional is not None:
        store.conditional = conditional
    return store
