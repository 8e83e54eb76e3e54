"""Jobs on a Ray of their own on this machine: workers that die, drivers that die, GPUs that are not there."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from lichen.errors import UnknownCodec
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.engine import ray_executor
from lichen.pipeline.engine.compress import NOT_LOOKED_AT
from lichen.pipeline.engine.config import JobConfig
from lichen.pipeline.engine.driver import run_job
from lichen.pipeline.engine.progress import JobProgress

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

Make = Callable[..., JobConfig]
Pictures = Callable[..., Path]
Contents = Callable[[str], dict[str, tuple[Any, ...]]]

DRIVER = """
import sys
from lichen.pipeline.engine.config import CodecConfig, EngineConfig, JobConfig
from lichen.pipeline.engine.driver import run_job
engine = EngineConfig(executor="ray", shard_pictures=1, lanes=1)
run_job(JobConfig(source=sys.argv[1], archive=sys.argv[2], codec=CodecConfig(name="webp"), engine=engine))
"""


@pytest.fixture
def small_ray() -> Iterator[None]:
    """Two cores, and two GPUs that exist only on paper."""
    ray.init(address="local", num_cpus=2, num_gpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def below(driver: int) -> dict[int, str]:
    """Command lines of the descendants of a process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal():
            continue
        ancestor = int(entry.name)
        while ancestor > 1 and ancestor != driver:
            ancestor = parent(ancestor)
        if ancestor == driver:
            with contextlib.suppress(OSError):
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def start_driver(source: Path, archive: Path) -> subprocess.Popen[str]:
    """A driver in a process of its own, once it has committed something."""
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(source), str(archive)], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 90
    while len(list(archive.glob("commits/*/*.json"))) < 3:
        assert driver.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return driver


def workers_below(driver: int) -> list[int]:
    """Processes of our actors among the descendants of a process."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            is_worker = entry.name.isdecimal() and (entry / "cmdline").read_bytes().startswith(b"ray::RayWorker")
        except OSError:
            continue
        pid = int(entry.name) if is_worker else 0
        ancestor = pid
        while ancestor > 1 and ancestor != driver:
            ancestor = parent(ancestor)
        if pid and ancestor == driver:
            found.append(pid)
    return found


def test_declared_gpus_fall_back_to_the_cpu_and_metrics_are_exported(
    small_ray: None,
    config: Make,
    pictures: Pictures,
    contents: Contents,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also: a Ray that runs already is used and left alone, and the content is that of the local executor."""
    source = pictures(8)
    (source / "notes.txt").write_text("no picture")
    local = config(source, str(tmp_path / "local"))
    run_job(local)
    caplog.set_level("DEBUG", logger="lichen")
    job = config(source, executor="ray", gpus_per_worker=0.5, shard_pictures=1)
    scraped = []

    def watch(progress: JobProgress) -> None:
        if progress.counts.compressed and not scraped:
            scraped.append(_scrape("lichen_pictures_total"))

    summary = run_job(job, watch)
    assert ray.is_initialized()
    assert (summary.counts.compressed, summary.worker_deaths, summary.exit_code) == (8, 0, 0)
    assert contents(job.archive) == contents(local.archive)
    [left] = [one for one in caplog.records if one.getMessage().startswith("left out")]  # told by the actor
    assert left.process != os.getpid() and left.key == "notes.txt"  # type: ignore[attr-defined]
    assert 'codec="webp"' in scraped[0] and 'status="compressed"' in scraped[0]


def _scrape(name: str) -> str:
    """The line of a metric at this node's metrics port; workers report every few seconds."""
    port = ray.nodes()[0]["MetricsExportPort"]
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"ray_{name}"):
                    return str(line)
        time.sleep(0.5)
    return ""


def test_killed_workers(config: Make, pictures: Pictures, contents: Contents, tmp_path: Path) -> None:
    source = pictures(24)
    local = config(source, str(tmp_path / "local"))
    run_job(local)
    job = config(source, executor="ray", shard_pictures=1, workers=2, cpus_per_worker=1, lanes=1)
    marks = [2, 8]
    killed: list[int] = []

    def watch(progress: JobProgress) -> None:
        if marks and progress.shards_done >= marks[0]:
            marks.pop(0)
            pid = workers_below(os.getpid())[0]
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    summary = run_job(job, watch)
    assert len(set(killed)) == 2
    assert summary.worker_deaths == 2
    assert (summary.counts.compressed, summary.splits) == (24, 0)
    assert contents(job.archive) == contents(local.archive)
    assert not ray.is_initialized()


def test_the_picture_that_kills_its_workers_is_stored(
    config: Make, pictures: Pictures, plugin: str, capsys: pytest.CaptureFixture[str]
) -> None:
    source = pictures(6, hurtful=(4,))
    job = config(source, executor="ray", codec="test-dies", shard_pictures=6)
    summary = run_job(job)
    assert (summary.counts.compressed, summary.counts.stored) == (5, 1)
    assert summary.splits >= 1
    assert capsys.readouterr().out == ""  # Ray's complaints belong on standard error
    archive = Archive.open(job.archive)
    assert archive.row("004.png").reason == NOT_LOOKED_AT
    assert archive.original("004.png") == (source / "004.png").read_bytes()


def test_killed_driver(config: Make, pictures: Pictures, contents: Contents, tmp_path: Path) -> None:
    source = pictures(24)
    local = config(source, str(tmp_path / "local"))
    run_job(local)
    archive = tmp_path / "archive"
    driver = start_driver(source, archive)
    processes = below(driver.pid)
    assert any("raylet" in line for line in processes.values())
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    deadline = time.monotonic() + 60
    while left := [processes[pid] for pid in processes if is_alive(pid)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    job = config(source, str(archive), executor="ray", shard_pictures=1, lanes=1)
    summary = run_job(job)
    assert (summary.resumed, summary.counts.compressed) == (True, 24)
    assert contents(str(archive)) == contents(local.archive)


def test_a_dead_raylet_ends_the_job(config: Make, pictures: Pictures, contents: Contents, tmp_path: Path) -> None:
    """With an error, or with the work done; the same command goes on."""
    source, archive = pictures(60), tmp_path / "archive"
    driver = start_driver(source, archive)
    (raylet,) = (pid for pid, line in below(driver.pid).items() if line.split()[0].endswith("/raylet"))
    os.kill(raylet, signal.SIGKILL)
    _, error = driver.communicate(timeout=150)
    assert driver.returncode == 0 or "Ray on this machine has died" in error
    run_job(config(source, str(archive), executor="process", shard_pictures=1, lanes=1))
    assert len(contents(str(archive))) == 60


def test_errors_of_the_first_worker_are_the_jobs(small_ray: None, config: Make, pictures: Pictures) -> None:
    with pytest.raises(UnknownCodec, match="no codec 'none'"):
        run_job(config(pictures(1), executor="ray", codec="none"))


def test_a_worker_that_cannot_be_placed_holds_nothing_up(
    small_ray: None, config: Make, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A core that Ray counts, and that others have: what was meant for its worker is done by the one that runs."""

    @ray.remote(num_cpus=1)
    class Other:
        def ready(self) -> bool:
            return True

    other = Other.remote()
    assert ray.get(other.ready.remote())
    monkeypatch.setattr(ray_executor, "PATIENCE", 1.0)
    job = config(pictures(12), executor="ray", shard_pictures=1, gpus_per_worker=0, workers=2, lanes=1)
    summary = run_job(job)
    assert (summary.counts.compressed, summary.worker_deaths) == (12, 0)
    ray.kill(other)


def test_a_relative_archive_is_where_the_driver_is(
    small_ray: None, config: Make, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers begin in the folder that Ray was started in."""
    source = pictures(3)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert run_job(config(source, "relative", executor="ray", gpus_per_worker=0)).counts.compressed == 3
    assert len(Archive.open(str(tmp_path / "here" / "relative"))) == 3
