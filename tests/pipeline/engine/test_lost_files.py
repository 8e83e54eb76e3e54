"""Jobs into an archive that lost files: what can be made again is, and nobody is told that all is well."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lichen.errors import CorruptArchive, DuplicateKey, JobInterrupted, LichenError
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.store_local import LocalStore
from lichen.pipeline.engine.config import JobConfig
from lichen.pipeline.engine.driver import run_job
from lichen.pipeline.verify import verify_archive

Make = Callable[..., JobConfig]
Pictures = Callable[..., Path]
Contents = Callable[[str], dict[str, tuple[Any, ...]]]


def shards(archive: str, pattern: str = "*.bin") -> list[Path]:
    return sorted((Path(archive) / "shards").glob(pattern))


@pytest.mark.parametrize("cut", [False, True])
def test_pictures_of_lost_payload_files_are_made_again(
    config: Make, pictures: Pictures, contents: Contents, cut: bool
) -> None:
    """From the sources that are there; what has none stays as it is, for what is left of its file."""
    source = pictures(6)
    job = config(source)
    run_job(job)
    before = contents(job.archive)
    lost = shards(job.archive)[0]
    os.truncate(lost, 9) if cut else lost.unlink()
    summary = run_job(job)
    assert (summary.lost, summary.counts.compressed, summary.unchanged, summary.missing) == (2, 2, 4, 0)
    assert contents(job.archive) == before
    assert verify_archive(Archive.open(job.archive)).ok
    again = run_job(job)
    assert (again.job, again.lost) == (None, 0)
    (source / "001.png").unlink()
    shards(job.archive)[-1].unlink()  # that of the second job, with 000 and 001
    summary = run_job(job)
    assert (summary.lost, summary.counts.compressed, set(Archive.open(job.archive))) == (2, 1, set(before))
    again = run_job(job)
    assert (again.job, again.lost) == (None, 1)
    assert not verify_archive(Archive.open(job.archive)).ok


def test_another_picture_of_the_same_key_is_no_replacement(config: Make, pictures: Pictures) -> None:
    """Not unasked: what is left of the file may have the picture still."""
    job = config(pictures(4))
    run_job(job)
    os.truncate(shards(job.archive)[0], 9)
    with pytest.raises(DuplicateKey):
        run_job(config(pictures(1, name="others"), job.archive))


def test_the_newest_snapshot_is_made_again(config: Make, pictures: Pictures, contents: Contents) -> None:
    """The archive may hold the only copy: the sources are gone."""
    source = pictures(3)
    job = config(source)
    first = run_job(job).job
    (source / "new.png").write_bytes((source / "000.png").read_bytes())
    second = run_job(job).job
    before = contents(job.archive)
    for path in Path(job.archive, "snapshots").glob("*.json"):
        path.unlink()
    shutil.rmtree(source)
    summary = run_job(config(pictures(1, name="others"), job.archive, on_collision="keep"))
    assert summary.restored == (first, second)
    assert contents(job.archive) == before


@pytest.mark.parametrize("cut", [False, True])
def test_a_job_does_not_finish_without_what_it_committed(
    config: Make, pictures: Pictures, contents: Contents, cut: bool
) -> None:
    source = pictures(8)
    whole = config(source, str(source.parent / "whole"), shard_pictures=1)
    run_job(whole)
    job = config(source, shard_pictures=1)
    stop = threading.Event()
    with pytest.raises(JobInterrupted):
        run_job(job, lambda progress: stop.set() if progress.shards_done else None, stop=stop)
    lost = shards(job.archive)[0]
    os.truncate(lost, 9) if cut else lost.unlink()
    for _ in range(2):
        with pytest.raises(CorruptArchive, match=lost.name) as caught:
            run_job(job)
    (commit,) = [path for path in Path(job.archive).glob("commits/*/*.json") if str(path)[-40:] in str(caught.value)]
    commit.unlink()  # as the message says
    assert run_job(job).resumed
    assert contents(job.archive) == contents(whole.archive)


def test_an_archive_that_was_deleted_does_not_come_back(config: Make, pictures: Pictures) -> None:
    """Not in pieces, which would be in the way of the next one."""
    job = config(pictures(8), shard_pictures=1)
    with pytest.raises(LichenError):
        run_job(job, lambda progress: shutil.rmtree(job.archive) if progress.shards_done == 1 else None)
    assert not Path(job.archive).exists()
    assert run_job(job).counts.compressed == 8


def test_progress_that_cannot_be_written_ends_no_job(
    config: Make, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that refuses now and then; nothing depends on that file."""
    put = LocalStore._put

    def refuse(store: LocalStore, path: str, data: bytes) -> None:
        if path.endswith("progress.json"):
            raise OSError("refused")
        put(store, path, data)

    monkeypatch.setattr(LocalStore, "_put", refuse)
    job = config(pictures(3))
    assert run_job(job).counts.compressed == 3 and verify_archive(Archive.open(job.archive)).ok


@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_codec_that_is_gone_is_put_back(config: Make, pictures: Pictures, contents: Contents, damage: str) -> None:
    """By the codec itself, if the job has it; an archive whose pictures do not decode is not up to date."""
    source = pictures(3)
    job = config(source)
    run_job(job)
    (path,) = Path(job.archive, "codecs").glob("*.json")
    data = path.read_bytes()
    os.truncate(path, 20) if damage == "cut" else path.unlink()
    with pytest.raises(CorruptArchive, match=path.stem):
        run_job(config(source, codec="jpeg"))
    if damage == "cut":
        with pytest.raises(CorruptArchive, match="delete them"):
            run_job(job)
        path.unlink()
    assert run_job(job).job is None
    assert path.read_bytes() == data
    assert verify_archive(Archive.open(job.archive)).ok
