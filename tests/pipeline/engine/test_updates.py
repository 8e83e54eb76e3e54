"""The same command again: what it does, what it leaves as it is, and what it says of that."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lichen.pipeline.archive.job import list_jobs
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.store import open_store
from lichen.pipeline.engine.config import JobConfig
from lichen.pipeline.engine.driver import run_job

Make = Callable[..., JobConfig]
Pictures = Callable[..., Path]


def test_a_picture_that_becomes_a_text_is_looked_at_once(config: Make, pictures: Pictures) -> None:
    """The archive keeps the picture; the text is no reason for another job whenever the command runs."""
    source = pictures(3)
    for path in source.iterdir():
        path.rename(path.with_suffix(""))  # a name that claims nothing
    job = config(source)
    run_job(job)
    (source / "001").write_text("no picture any more")
    changed = run_job(job)
    assert (changed.counts.skipped, changed.counts.compressed) == (1, 0)
    assert changed.skipped_names == ("001",)
    again = run_job(job)
    assert (again.job, again.snapshot, again.unchanged) == (None, None, 3)
    assert len(list_jobs(open_store(job.archive))) == 2
    assert sorted(Archive.open(job.archive)) == ["000", "001", "002"]
    (source / "001").write_bytes((source / "000").read_bytes())
    assert run_job(job).counts.compressed == 1


def test_settings_that_are_not_applied_are_told(config: Make, pictures: Pictures) -> None:
    source = pictures(2)
    assert run_job(config(source, quality=60.0)).not_applied == {}
    same = run_job(config(source, quality=60.0))
    assert (same.job, same.not_applied) == (None, {})
    other = run_job(config(source, quality=90.0, codec="jpeg"))
    assert other.job is None
    assert other.not_applied == {"quality": (60.0, 90.0), "codec": ("webp", "jpeg")}
    (source / "new.png").write_bytes((source / "000.png").read_bytes())
    mixed = run_job(config(source, quality=90.0))
    assert (mixed.counts.compressed, mixed.not_applied) == (1, {"quality": (60.0, 90.0)})


def test_sources_without_one_picture_are_no_success(config: Make, tmp_path: Path) -> None:
    source = tmp_path / "texts"
    source.mkdir()
    for name in ("a.txt", "b.md"):
        (source / name).write_text("words")
    job = config(source)
    first = run_job(job)
    assert (first.exit_code, first.counts.skipped, first.skipped_names) == (1, 2, ("a.txt", "b.md"))
    assert run_job(job).exit_code == 1
    assert run_job(config(source, str(tmp_path / "other"), store_others=True)).exit_code == 0


def test_an_archive_that_does_not_change_is_not_written_to(config: Make, pictures: Pictures) -> None:
    job = config(pictures(2))
    run_job(job)
    before = {path: path.stat().st_mtime_ns for path in Path(job.archive).rglob("*") if path.is_file()}
    run_job(job)
    after = {path: path.stat().st_mtime_ns for path in Path(job.archive).rglob("*") if path.is_file()}
    assert after == before
