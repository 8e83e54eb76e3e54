"""Fixtures of the pipeline tests."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import s3fs
from moto.server import ThreadedMotoServer


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A fresh bucket on a real S3 endpoint over HTTP."""

    name: str
    options: dict[str, Any]
    file_system: s3fs.S3FileSystem

    @property
    def url(self) -> str:
        return f"s3://{self.name}"


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of an S3 server that lives as long as the test session."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_endpoint: str) -> Bucket:
    options = {
        "key": "test",
        "secret": "test",
        "client_kwargs": {"endpoint_url": s3_endpoint},
    }
    file_system = s3fs.S3FileSystem(**options)
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    file_system.mkdir(name)
    return Bucket(name=name, options=options, file_system=file_system)
