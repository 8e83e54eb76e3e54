"""What of a listing is the archive's own, where the archive lies in what is archived."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jobs_support import job_config

from lichen.pipeline.archive import layout
from lichen.pipeline.archive.store import open_store
from lichen.pipeline.engine.changes import outside
from lichen.pipeline.engine.driver import run_job
from lichen.pipeline.sources import Source, list_sources

JOB, ATTEMPT = "20200102T030405-abcdef", "0123456789ab"
OWN = (
    "lichen.json",
    f"codecs/{'ab' * 32}.json",
    f"shards/{JOB}.00000-{ATTEMPT}.bin",
    f"jobs/{JOB}/job.json",
    f"jobs/{JOB}/lease/00000000.beat.json",
    f"commits/{JOB}/{JOB}.00000.json",
    f"snapshots/00000001-{ATTEMPT}-00000.parquet",
)
THEIRS = (
    "photo.jpg",
    "jobs/photo.jpg",
    f"jobs/{JOB}/photo.jpg",
    "codecs/video.png",
    f"codecs/{'ab' * 32}.jpg",
    f"commits/{JOB}/a.png",
    "shards/00000.png",
    "snapshots/00000001.jpg",
    ".tmp/a.jpg",
    "nested/lichen.json",
)


@pytest.mark.parametrize("inner", ["", "archives/mine"])
def test_pictures_under_the_names_of_an_archive_are_sources(tmp_path: Path, inner: str) -> None:
    home = tmp_path / "home" / inner
    for name in (*OWN, *THEIRS):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "home")
    for archive in (str(home), str(tmp_path / "link" / inner)):
        for named in (str(tmp_path / "home"), f"file://{tmp_path}/home", str(tmp_path / "link")):
            found = outside(list_sources(named, hidden=True), open_store(archive))
            keys = {source.key.removeprefix(inner).removeprefix("/") for source in found}
            assert keys == set(THEIRS), (archive, named)


def test_the_same_on_s3(s3_url: str, s3_options: dict[str, Any]) -> None:
    store = open_store(f"{s3_url}/mine", s3_options)
    for name in (*OWN, *THEIRS):
        store.put(name, b"x")
    found = outside(list_sources(s3_url, storage_options=s3_options, hidden=True), store)
    assert {source.key for source in found} == {f"mine/{name}" for name in THEIRS}


def test_an_archive_next_to_its_sources_takes_none_of_them(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "photos"))
    beside = [Source(key=name, uri=f"{tmp_path}/photos2/{name}") for name in OWN]
    assert list(outside(beside, store)) == beside
    assert all(layout.is_own(source.key) for source in beside)


def test_an_archive_that_is_met_through_links(tmp_path: Path) -> None:
    home, photos = tmp_path / "disk/archive", tmp_path / "photos"
    photos.mkdir()
    for name in (*OWN, *THEIRS):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_bytes(b"x")
    (photos / "here").symlink_to(home)
    (photos / "above").symlink_to(tmp_path / "disk")
    (home / "shards").rename(tmp_path / "disk/moved")
    (home / "shards").symlink_to(tmp_path / "disk/moved")
    for archive in (home, photos / "here", photos / "above/archive"):
        found = outside(list_sources(str(photos), hidden=True), open_store(str(archive)))
        keys = {source.key for source in found}
        there = {f"{top}/{name}" for top in ("here", "above/archive") for name in THEIRS}
        assert keys == there | {f"above/moved/{name.rpartition('/')[2]}" for name in (OWN[2], "00000.png")}


def test_an_archive_does_not_take_itself_in_through_a_link(photo_files: dict[str, bytes], tmp_path: Path) -> None:
    photos, archive = tmp_path / "photos", tmp_path / "archive"
    photos.mkdir()
    (photos / "a.png").write_bytes(photo_files["photos/budgie.jpg"][:2000])  # stored: the shard begins like a picture
    (photos / "archive").symlink_to(archive)
    archive.mkdir()
    config = job_config(photos, archive, codec="jpeg", executor="local")
    assert run_job(config).counts.sources == 1
    assert run_job(config).job is None
