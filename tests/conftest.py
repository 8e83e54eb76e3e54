"""Fixtures for all tests: an S3 server of our own."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """The address of an S3 server (moto over HTTP on a free port), with credentials in the environment."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "testing")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.delenv("AWS_PROFILE", raising=False)
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def s3_options(s3_endpoint: str) -> dict[str, Any]:
    """fsspec storage options for that server; they can be pickled to other processes."""
    return {
        "key": "testing",
        "secret": "testing",
        "client_kwargs": {"endpoint_url": s3_endpoint, "region_name": "us-east-1"},
    }


@pytest.fixture(scope="session")
def _s3_bucket(s3_options: dict[str, Any]) -> str:
    import boto3

    client = boto3.client(
        "s3",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        **s3_options["client_kwargs"],
    )
    client.create_bucket(Bucket="lichen-tests")
    return "lichen-tests"


@pytest.fixture
def s3_url(_s3_bucket: str) -> str:
    """A fresh prefix in a bucket of that server."""
    return f"s3://{_s3_bucket}/{uuid.uuid4().hex}"
