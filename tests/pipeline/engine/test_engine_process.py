"""Jobs in a worker process: one that dies, one that hangs, drivers that die, and what is refused."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobs_support import job_config
from PIL import Image

from lichen.errors import JobError, LichenError, UnknownCodec, UsageError
from lichen.pipeline.archive.job import list_jobs
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.store import open_store
from lichen.pipeline.engine import process
from lichen.pipeline.engine.compress import NOT_LOOKED_AT
from lichen.pipeline.engine.config import JobConfig
from lichen.pipeline.engine.driver import run_job
from lichen.pipeline.engine.executors import choose
from lichen.pipeline.engine.progress import JobProgress

Make = Callable[..., JobConfig]
Pictures = Callable[..., Path]
Contents = Callable[[str], dict[str, tuple[Any, ...]]]

DRIVER = """
import sys
from lichen.pipeline.engine.config import CodecConfig, EngineConfig, JobConfig
from lichen.pipeline.engine.driver import run_job
engine = EngineConfig(executor="process", shard_pictures=1, lanes=1)
run_job(JobConfig(source=sys.argv[1], archive=sys.argv[2], codec=CodecConfig(name="webp"), engine=engine))
"""


def children(pid: int) -> list[int]:
    """Worker processes of a driver."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            program = (entry / "cmdline").read_bytes()
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if b"engine.child" in program and parent == pid:
            found.append(int(entry.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(true: Callable[[], bool], seconds: float = 30) -> bool:
    deadline = time.monotonic() + seconds
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()


def endless_jpeg(scans: int = 450, side: int = 4000) -> bytes:
    """A progressive JPEG whose first scan is repeated, less often than what is refused without decoding."""
    buffer = io.BytesIO()
    Image.new("L", (side, side), 128).save(buffer, "JPEG", progressive=True, quality=30)
    data = buffer.getvalue()
    starts = [n for n in range(len(data) - 1) if data[n : n + 2] == b"\xff\xda"]
    first = data[starts[0] : starts[1]]
    return data[: starts[1]] + first * scans + data[starts[1] :]


def test_killed_workers(config: Make, pictures: Pictures, contents: Contents, tmp_path: Path) -> None:
    source = pictures(24)
    local = config(source, str(tmp_path / "local"))
    run_job(local)
    job = config(source, executor="process", shard_pictures=1, lanes=1)
    marks, killed = [2, 8], set()

    def watch(progress: JobProgress) -> None:
        if marks and progress.shards_done >= marks[0]:
            marks.pop(0)
            (pid,) = children(os.getpid())
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)

    summary = run_job(job, watch)
    assert (len(killed), summary.worker_deaths) == (2, 2)
    assert (summary.counts.compressed, summary.splits) == (24, 0)
    assert contents(job.archive) == contents(local.archive)
    assert not children(os.getpid())


@pytest.mark.parametrize("place", [0, 4])
def test_the_picture_that_kills_its_workers_is_stored(
    config: Make, pictures: Pictures, plugin: str, capfd: pytest.CaptureFixture[str], place: int
) -> None:
    source = pictures(6, hurtful=(place,))
    job = config(source, executor="process", codec="test-dies", shard_pictures=6)
    summary = run_job(job)
    assert (summary.counts.compressed, summary.counts.stored) == (5, 1)
    assert summary.splits >= 1
    assert capfd.readouterr().out == ""
    archive = Archive.open(job.archive)
    assert archive.row(f"{place:03d}.png").reason == NOT_LOOKED_AT
    assert archive.original(f"{place:03d}.png") == (source / f"{place:03d}.png").read_bytes()


@pytest.mark.parametrize("executor", ["process", "local"])
def test_a_picture_that_hangs_its_decoder_is_stored(config: Make, pictures: Pictures, executor: str) -> None:
    """The rest of its shard goes on at once, and the process in which it hangs gets no further shard."""
    source = pictures(9)
    (source / "002x.jpg").write_bytes(endless_jpeg())
    seen: list[int] = []

    def watch(_progress: JobProgress) -> None:
        seen.extend(pid for pid in children(os.getpid()) if pid not in seen)

    job = config(source, executor=executor, shard_pictures=2, picture_timeout=1.0)
    summary = run_job(job, watch)
    assert (summary.counts.compressed, summary.counts.stored, summary.worker_deaths) == (9, 1, 0)
    archive = Archive.open(job.archive)
    assert "within 1 s" in (archive.row("002x.jpg").reason or "")
    assert archive.original("002x.jpg") == (source / "002x.jpg").read_bytes()
    if executor == "process":
        assert len(seen) == 2
        assert not any(alive(pid) for pid in seen)


def test_a_worker_that_stops_is_replaced(
    config: Make, pictures: Pictures, contents: Contents, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped, it neither dies nor answers."""
    monkeypatch.setattr(process, "SILENCE", 6.0)
    source = pictures(8)
    job = config(source, executor="process", shard_pictures=1, lanes=1, picture_timeout=1.0)
    stopped: list[int] = []

    def watch(progress: JobProgress) -> None:
        if progress.shards_done >= 2 and not stopped:
            stopped.extend(children(os.getpid()))
            os.kill(stopped[0], signal.SIGSTOP)

    summary = run_job(job, watch)
    assert (summary.counts.compressed, summary.worker_deaths) == (8, 1)
    assert not alive(stopped[0])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_worker_ends_with_its_driver(
    config: Make, pictures: Pictures, contents: Contents, tmp_path: Path, number: int
) -> None:
    source, archive = pictures(24), tmp_path / "archive"
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(source), str(archive)])
    assert wait_until(lambda: len(list(archive.glob("commits/*/*.json"))) >= 3)
    workers = children(driver.pid)
    driver.send_signal(number)
    assert driver.wait(30) == (1 if number == signal.SIGTERM else -number)
    assert workers
    assert wait_until(lambda: not any(map(alive, workers)), 10)
    summary = run_job(config(source, str(archive), shard_pictures=1, lanes=1))
    assert (summary.resumed, summary.counts.compressed) == (True, 24)
    assert len(contents(str(archive))) == 24


def test_workers_that_die_of_everything_end_the_job(config: Make, pictures: Pictures, plugin: str) -> None:
    """Even the warm-up kills this one."""
    with pytest.raises(JobError, match="status 11"):
        run_job(config(pictures(1, hurtful=(0,)), executor="process", codec="test-dies-at-once"))


def test_what_is_refused_leaves_nothing_behind(config: Make, pictures: Pictures, tmp_path: Path) -> None:
    source, empty, broken = pictures(2), tmp_path / "empty", tmp_path / "broken.json"
    empty.mkdir()
    broken.write_text(json.dumps({"decoder": {}}))
    broken.with_suffix(".safetensors").write_bytes(b"")
    other = pictures(1, name="other")
    twice = (str(source / "000.png"), str(other / "000.png"))
    for number, changes in enumerate(
        [
            {"source": str(tmp_path / "nothing")},
            {"source": str(empty)},
            {"source": twice},
            {"codec": "none"},
            {"codec": str(broken)},
        ]
    ):
        for executor in ("process", "local"):
            archive = tmp_path / f"archive-{number}-{executor}"
            job = config(**{"source": source, "archive": str(archive), "executor": executor, **changes})
            with pytest.raises(LichenError):
                run_job(job)
            assert not archive.exists()
    with pytest.raises(UnknownCodec, match="no codec 'none'"):
        run_job(config(source, executor="process", codec="none"))


def test_two_drivers_at_once_do_the_work_once(pictures: Pictures, contents: Contents, tmp_path: Path) -> None:
    """The second is told, or finds the work done."""
    source, archive = pictures(12), tmp_path / "archive"
    drivers = [
        subprocess.Popen([sys.executable, "-c", DRIVER, str(source), str(archive)], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    errors = [driver.communicate(timeout=120)[1] for driver in drivers]
    codes = [driver.returncode for driver in drivers]
    assert 0 in codes
    assert all(code == 0 or "LeaseHeld" in error for code, error in zip(codes, errors, strict=True))
    assert len(list_jobs(open_store(str(archive)))) == 1
    assert len(contents(str(archive))) == 12


@pytest.mark.parametrize(
    ("changes", "gpus", "ray_runs", "name"),
    [
        ({}, 0, False, "process"),
        ({}, 1, False, "process"),
        ({}, 2, False, "ray"),
        ({"device": "cpu"}, 2, False, "process"),
        ({}, 0, True, "ray"),
        ({"workers": 1}, 0, False, "process"),
        ({"workers": 2}, 0, False, "ray"),
        ({"address": "local"}, 0, False, "ray"),
        ({"gpus_per_worker": 0.5}, 1, False, "ray"),
        ({"archive": "memory://a"}, 2, True, "local"),
        ({"executor": "local"}, 2, True, "local"),
        ({"executor": "ray"}, 0, False, "ray"),
    ],
)
def test_which_executor_suits_a_job(changes: dict[str, Any], gpus: int, ray_runs: bool, name: str) -> None:
    config = job_config(**{"source": "x", "archive": "y", **changes})
    assert choose(config, gpus=gpus, ray_runs=ray_runs) == name


def test_an_address_is_rays() -> None:
    with pytest.raises(UsageError, match="address"):
        job_config("x", "y", executor="process", address="auto")
