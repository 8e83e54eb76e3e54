"""Addresses at which there is no Ray cluster."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from jobs_support import job_config

from lichen.errors import UsageError
from lichen.pipeline.engine.cluster import start_ray
from lichen.pipeline.engine.driver import run_job


@pytest.fixture
def closed() -> str:
    """A port of this machine where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def test_addresses_without_a_cluster_are_refused_at_once(closed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", closed)
    begin = time.monotonic()
    wrong = ("127.0.0.1:99999", "a..b:6379", "head-node", "head-node:x", ":1")
    for address in (closed, f"ray://{closed}", "auto", *wrong):
        with pytest.raises(UsageError, match=r"no Ray cluster at .*`ray start --head`"):
            start_ray(address)
    assert time.monotonic() - begin < 60


def test_a_job_for_no_cluster_leaves_nothing_behind(pictures: Callable[..., Path], tmp_path: Path, closed: str) -> None:
    archive = tmp_path / "archive"
    with pytest.raises(UsageError, match="no Ray cluster"):
        run_job(job_config(pictures(1), archive, address=closed))
    assert not os.path.lexists(archive)
