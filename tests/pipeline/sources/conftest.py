"""Sources on local disk, in memory and on S3."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import s3fs
from sources_support import NAMES, Bucket, Damage, content


@pytest.fixture
def bucket(s3_options: dict[str, Any]) -> Bucket:
    file_system = s3fs.S3FileSystem(**s3_options)
    name = f"sources-{uuid.uuid4().hex[:12]}"
    file_system.call_s3("create_bucket", Bucket=name)
    return Bucket(name=name, options=s3_options, file_system=file_system)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in [*NAMES, ".hidden.png", ".git/x.png", "a/.b/x.png"]:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(name))
    return root


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    file_system = fsspec.filesystem("memory")
    file_system.store.clear()
    file_system.pseudo_dirs[:] = [""]
    yield file_system
    file_system.store.clear()
    file_system.pseudo_dirs[:] = [""]


@pytest.fixture
def damage(s3_endpoint: str) -> Iterator[Damage]:
    """A proxy in front of the S3 server."""
    with Damage(s3_endpoint).running() as proxy:
        yield proxy
