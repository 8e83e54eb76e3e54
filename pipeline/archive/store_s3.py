"""A bucket or prefix of S3, or of a server that speaks its protocol, as a store."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fsspec.asyn import sync
from fsspec.callbacks import Callback

from lichen.pipeline.archive.store_base import SLOWEST, Store

UPLOAD_PART = 16 * 1024 * 1024
UPLOADS = 4
"""Parts of an upload in flight at once."""

CONFIG: Mapping[str, Any] = {
    "connect_timeout": 10,
    "read_timeout": 30,
    "retries": {"mode": "standard", "max_attempts": 3},
}
"""Of the client, unless the user's ``config_kwargs`` say otherwise. A request that stalls is made again; how long an
operation takes with all its requests is bounded by the store's ``timeout``, also where the client would wait for ever:
while it sends to a server that reads no more."""


def s3_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The user's options for s3fs, with what an archive needs where they say nothing."""
    config = {**CONFIG, **(options.get("config_kwargs") or {})}
    # A cached listing would hide what other processes commit.
    return {"use_listings_cache": False, **options, "config_kwargs": config}


class S3Store(Store):
    """Every operation ends: each page of a listing and each step of an upload within the store's ``timeout``."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.failures = _failures()

    def _put_file(self, path: str, local: Path) -> None:
        sync(self.filesystem.loop, self._upload, path, local)

    async def _upload(self, path: str, local: Path) -> None:
        """Upload in parts, as long as parts arrive."""
        steps = _Steps()
        upload = self.filesystem._put_file(  # noqa: SLF001 (its coroutine: only one can be given up)
            os.fspath(local), path, chunksize=UPLOAD_PART, max_concurrency=UPLOADS, callback=steps
        )
        task = asyncio.ensure_future(upload)
        seen = -1
        while not task.done():
            if seen == steps.value:
                task.cancel()
                raise TimeoutError
            seen = steps.value
            await asyncio.wait([task], timeout=self.timeout + UPLOADS * UPLOAD_PART / SLOWEST)
        task.result()

    def _pages(self, folder: str) -> Iterator[list[dict[str, Any]]]:
        bucket, _, prefix = folder.partition("/")
        request: dict[str, Any] = {"Bucket": bucket, "Prefix": f"{prefix}/" if prefix else ""}
        while True:
            page = self.filesystem.call_s3("list_objects_v2", **request, **self._limit())
            yield page.get("Contents", [])
            if not page.get("IsTruncated"):
                return
            request["ContinuationToken"] = page["NextContinuationToken"]

    def _list(self, folder: str) -> Iterator[tuple[str, int, float, bool]]:
        bucket = folder.partition("/")[0]
        for page in self._pages(folder):
            for item in page:
                if not item["Key"].endswith("/"):  # what stands for a folder
                    yield f"{bucket}/{item['Key']}", int(item["Size"]), item["LastModified"].timestamp(), True

    def _top(self) -> Iterator[str]:
        return (name[len(self.root) + 1 :] for name in self._names(self.root))

    def _names(self, folder: str) -> Iterator[str]:
        return (name for name, *_ in self._list(folder))


class _Steps(Callback):  # type: ignore[misc]
    """Counts the bytes of a transfer that have arrived."""


def _failures() -> tuple[type[Exception], ...]:
    from aiohttp import ClientError
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
    from botocore.exceptions import ClientError as RefusedError

    return (OSError, MemoryError, BotoCoreError, RefusedError, ClientError)
