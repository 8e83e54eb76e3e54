"""The driver is killed with SIGKILL wherever it is; the same command ends in the same archive."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lichen.errors import UsageError
from lichen.pipeline.archive.job import list_jobs
from lichen.pipeline.archive.store import open_store
from lichen.pipeline.engine.config import JobConfig
from lichen.pipeline.engine.driver import run_job

DRIVER = """
import sys
from lichen.pipeline.engine.config import CodecConfig, EngineConfig, JobConfig
from lichen.pipeline.engine.driver import run_job
engine = EngineConfig(executor="local", shard_pictures=1, lanes=1)
run_job(JobConfig(source=sys.argv[1], archive=sys.argv[2], codec=CodecConfig(name="webp"), engine=engine))
"""
COUNT = 24

Contents = Callable[[str], dict[str, tuple[Any, ...]]]


def start(source: Path, archive: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", DRIVER, str(source), archive])


def wait_for(driver: subprocess.Popen[bytes], archive: str, pattern: str, count: int) -> None:
    """Until the archive holds so many files of that pattern, or the driver is done."""
    deadline = time.monotonic() + 60
    while len(list(Path(archive).glob(pattern))) < count and driver.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)


# What exists when the driver is killed: the job, parts of the plan, an upload that nobody committed perhaps, commits,
# all commits, the index of the snapshot.
POINTS = [
    ("jobs/*/job.json", 1),
    ("jobs/*/plan-*.parquet", 2),
    ("shards/*.bin", 2),
    ("commits/*/*.json", 6),
    ("commits/*/*.json", COUNT),
    ("snapshots/*.parquet", 1),
]


def test_killed_drivers(
    config: Callable[..., JobConfig], pictures: Callable[..., Path], contents: Contents, tmp_path: Path
) -> None:
    """One job, whose drivers are killed one after the other, each a little further on."""
    source = pictures(COUNT)
    whole = config(source, str(tmp_path / "whole"), shard_pictures=1)
    run_job(whole)
    archive = str(tmp_path / "archive")
    killed = 0
    for pattern, count in POINTS:
        driver = start(source, archive)
        wait_for(driver, archive, pattern, count)
        driver.send_signal(signal.SIGKILL)
        killed += driver.wait() == -signal.SIGKILL
    assert killed >= 4  # the last ones may have come too late
    summary = run_job(config(source, archive, shard_pictures=1))
    assert len(list_jobs(open_store(archive))) == 1
    assert summary.job is None or summary.resumed
    assert contents(archive) == contents(whole.archive)


def test_sigterm_abandons_cleanly(
    config: Callable[..., JobConfig], pictures: Callable[..., Path], contents: Contents, tmp_path: Path
) -> None:
    source = pictures(COUNT)
    archive = str(tmp_path / "archive")
    driver = start(source, archive)
    wait_for(driver, archive, "commits/*/*.json", 2)
    driver.terminate()
    assert driver.wait(30) == 1  # JobInterrupted, not a death by signal
    store = open_store(archive)
    (job,) = list_jobs(store)
    summary = run_job(config(source, archive, shard_pictures=1))  # its lease was released
    assert (summary.job, summary.resumed) == (job, True)
    assert len(contents(archive)) == COUNT
    with pytest.raises(UsageError):
        run_job(config(source / "none", archive))
