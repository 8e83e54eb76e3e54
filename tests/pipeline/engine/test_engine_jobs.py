"""Jobs and archives: updates, second data sets, stops and what is refused, in this process."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from lichen.errors import (
    DuplicateKey,
    JobInterrupted,
    LeaseHeld,
    UsageError,
)
from lichen.pipeline.archive.job import list_jobs, read_done, read_progress
from lichen.pipeline.archive.lease import acquire
from lichen.pipeline.archive.plan import Grouping, write_plan
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.store import open_store
from lichen.pipeline.engine.config import JobConfig
from lichen.pipeline.engine.driver import run_job
from lichen.pipeline.engine.messages import Counts
from lichen.pipeline.engine.progress import JobProgress
from lichen.pipeline.sources import list_sources

DATA = Path(__file__).parents[2] / "data"

Make = Callable[..., JobConfig]
Pictures = Callable[..., Path]
Contents = Callable[[str], dict[str, tuple[Any, ...]]]


def test_progress_is_told(config: Make, pictures: Pictures) -> None:
    job = config(pictures(9))
    seen: list[JobProgress] = []
    summary = run_job(job, seen.append)
    assert seen[-1].counts == summary.counts
    assert [p.counts.sources for p in seen] == sorted(p.counts.sources for p in seen)
    assert (seen[-1].shards_done, seen[-1].planned_sources, seen[-1].plan_complete) == (5, 9, True)
    assert seen[-1].eta == pytest.approx(0, abs=0.2)
    assert summary.job is not None
    stated = read_progress(open_store(job.archive), summary.job) or {}
    assert (stated["state"], stated["counts"]["compressed"]) == ("finished", 9)


def test_update_adds_what_is_new_and_changed(config: Make, pictures: Pictures, contents: Contents) -> None:
    source = pictures(5)
    job = config(source)
    run_job(job)
    before = contents(job.archive)
    shutil.copy(source / "000.png", source / "new.png")
    shutil.copy(source / "001.png", source / "002.png")
    os.utime(source / "002.png", (1, 1))
    (source / "004.png").unlink()
    summary = run_job(job)
    assert (summary.counts.compressed, summary.unchanged, summary.missing) == (2, 3, 1)
    assert summary.missing_names == ("004.png",)
    after = contents(job.archive)
    assert after["002.png"] == before["001.png"]
    assert after["new.png"] == before["000.png"]
    for key in ("000.png", "001.png", "003.png", "004.png"):
        assert after[key] == before[key]
    again = run_job(job)
    assert (again.job, again.counts, again.unchanged) == (None, Counts(), 5)
    assert len(list_jobs(open_store(job.archive))) == 2


def test_a_second_data_set(config: Make, pictures: Pictures) -> None:
    first, second = pictures(2), pictures(3, name="others")
    os.utime(second / "000.png", (1, 1))
    job = config(first)
    run_job(job)
    with pytest.raises(DuplicateKey, match="on-collision"):
        run_job(config(second))
    assert run_job(config(second, on_collision="keep")).counts.compressed == 1
    archive = Archive.open(job.archive)
    assert archive.row("000.png").source_mtime == pytest.approx((first / "000.png").stat().st_mtime, abs=1e-5)
    replaced = run_job(config(second, on_collision="replace"))
    assert replaced.missing == 0
    assert Archive.open(job.archive).row("000.png").source_mtime == 1


def test_keeping_those_of_others_keeps_none_of_ones_own(config: Make, pictures: Pictures) -> None:
    source = pictures(2)
    job = config(source, on_collision="keep")
    run_job(job)
    os.utime(source / "000.png", (1, 1))
    assert run_job(job).counts.compressed == 1
    assert Archive.open(job.archive).row("000.png").source_mtime == 1
    assert run_job(job).job is None


def test_an_archive_inside_its_source_is_not_archived(config: Make, pictures: Pictures, tmp_path: Path) -> None:
    source = pictures(3)
    (tmp_path / "link").symlink_to(source)
    for folder in (source, tmp_path / "link"):
        job = config(folder, str(source / "inner" / "archive"), store_others=True)
        assert run_job(job).counts.skipped == 0
        assert len(Archive.open(job.archive)) == 3
        assert run_job(job).job is None
        shutil.rmtree(job.archive)


def test_sources_inside_an_archive_are_archived(config: Make, pictures: Pictures, tmp_path: Path) -> None:
    source = pictures(3)
    for archive in (tmp_path, source):
        job = config(source, str(archive))
        assert run_job(job).counts.compressed == 3
        assert run_job(job).job is None
        assert len(Archive.open(job.archive)) == 3


def test_manifests_are_compared_as_folders_are(config: Make, pictures: Pictures, tmp_path: Path) -> None:
    first, second = pictures(2), pictures(2, name="others")
    for folder in (first, second):
        (folder / "list.txt").write_text("000.png\n001.png\n")
    job = config(first / "list.txt")
    assert run_job(job).counts.compressed == 2
    assert run_job(job).job is None
    os.utime(first / "001.png", (1, 1))
    assert run_job(job).counts.compressed == 1
    os.utime(second / "000.png", (1, 1))
    with pytest.raises(DuplicateKey):
        run_job(config(second / "list.txt"))


def test_what_nothing_is_known_of_is_not_taken_for_another_archives(config: Make, pictures: Pictures) -> None:
    """Entries of a manifest on a store that tells nothing but names: two data sets with the same ones."""
    memory = fsspec.filesystem("memory")
    for name in ("one", "two"):
        memory.put(str(pictures(2, name=name)) + "/", f"/{name}/", recursive=True)
        memory.pipe_file(f"/{name}/list.txt", b"000.png\n001.png\n")
    job = config("memory://one/list.txt", shard_pictures=1)
    assert run_job(job).counts.compressed == 2
    assert run_job(job).job is None
    with pytest.raises(DuplicateKey):
        run_job(config("memory://two/list.txt"))


def test_members_of_a_tar_file_that_changed_are_not_mistaken(config: Make, pictures: Pictures, tmp_path: Path) -> None:
    """Another tar file of the same members in another order, between the plan and the work."""
    source, tar = pictures(30), tmp_path / "set.tar"

    def write(names: list[Path], when: int) -> None:
        with tarfile.open(tar, "w") as file:
            for path in names:
                file.add(path, path.name)
        os.utime(tar, (when, when))

    paths = sorted(source.glob("*.png"))
    write(paths, 1)
    job, stop = config(tar, shard_pictures=1, lanes=1), threading.Event()
    with pytest.raises(JobInterrupted):
        run_job(job, lambda progress: stop.set() if progress.shards_done else None, stop=stop)
    store = open_store(job.archive)
    (name,) = list_jobs(store)
    planned = list(write_plan(store, name, list_sources(str(tar)), Grouping(max_sources=1)))  # to the end
    assert len(planned) == 30
    write(paths[::-1], 2)
    summary = run_job(job)
    assert summary.exit_code == 3 and summary.counts.quarantined > 0
    assert run_job(job).counts.quarantined == 0
    archive = Archive.open(job.archive)
    assert {row.key: row.source_sha256.hex() for row in archive.rows() if row.source_sha256} == {
        f"set/{path.name}": hashlib.sha256(path.read_bytes()).hexdigest() for path in paths
    }


def test_duplicate_keys_are_found_before_the_job_starts(config: Make, pictures: Pictures) -> None:
    both = (str(pictures(2)), str(pictures(2, name="others")))
    job = config(both)
    with pytest.raises(DuplicateKey):
        run_job(job)
    assert list_jobs(open_store(job.archive)) == []
    assert run_job(config(both, on_duplicate="rename")).counts.compressed == 4


def test_a_stopped_job_goes_on(config: Make, pictures: Pictures, contents: Contents) -> None:
    source = pictures(16)
    whole = config(source, "memory://" + uuid.uuid4().hex)
    run_job(whole)
    job = config(source, shard_pictures=1)
    stop = threading.Event()

    def watch(progress: JobProgress) -> None:
        if progress.shards_done >= 2:
            stop.set()

    with pytest.raises(JobInterrupted):
        run_job(job, watch, stop=stop)
    store = open_store(job.archive)
    (name,) = list_jobs(store)
    assert (read_progress(store, name) or {})["state"] == "interrupted"
    assert read_done(store, name) is None
    with pytest.raises(UsageError, match=r"quality 85"):
        run_job(config(source, shard_pictures=1, quality=50))
    summary = run_job(job)
    assert (summary.job, summary.resumed, summary.counts.compressed) == (name, True, 16)
    assert contents(job.archive) == contents(whole.archive)


def test_an_unfinished_job_can_be_abandoned(config: Make, pictures: Pictures) -> None:
    source = pictures(6)
    stop = threading.Event()
    with pytest.raises(JobInterrupted):
        run_job(config(source, shard_pictures=1), lambda _progress: stop.set(), stop=stop)
    summary = run_job(config(source, shard_pictures=1, quality=40, abandon=True))
    assert (summary.resumed, summary.counts.compressed) == (False, 6)
    archive = Archive.open(config(source).archive)
    assert {row.quality for row in archive.rows()} == {40}
    states = [read_done(archive.store, job) for job in list_jobs(archive.store)]
    assert [done.state for done in states if done] == ["abandoned", "finished"]


def test_one_driver_at_a_time(config: Make, pictures: Pictures) -> None:
    stop = threading.Event()
    job = config(pictures(4), shard_pictures=1)
    with pytest.raises(JobInterrupted):
        run_job(job, lambda _progress: stop.set(), stop=stop)
    store = open_store(job.archive)
    with acquire(store, list_jobs(store)[0]), pytest.raises(LeaseHeld):
        run_job(job)


def test_the_driver_needs_neither_torch_nor_ray() -> None:
    code = (
        "import sys, lichen.pipeline.engine.config, lichen.pipeline.engine.driver;"
        "sys.exit(bool({'torch', 'ray', 'numba'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_bad_requests(config: Make, pictures: Pictures) -> None:
    source = pictures(1)
    for changes in ({"quality": 0}, {"ms_ssim": 2}, {"lanes": 0}, {"executor": "x"}, {"gpus_per_worker": 1.5}):
        with pytest.raises(UsageError):
            config(source, **changes)
    with pytest.raises(UsageError, match="does not exist"):
        run_job(config(source / "none"))
    with pytest.raises(UsageError, match="no codec"):
        run_job(config(source, codec="none"))
    with pytest.raises(UsageError, match="memory"):
        run_job(config(source, "memory://x", executor="ray"))
