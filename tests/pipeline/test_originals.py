"""Before originals are deleted: whatever would be lost is named, with the reason, and the exit code is not 0."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lichen.jobs.cli import build_app
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.store import open_store
from lichen.pipeline.verify import MAX_KEPT, VerifyResult, verify_archive


@pytest.fixture
def sources(photo_files: dict[str, bytes], tmp_path: Path) -> Path:
    """The files that the archive was made from, without the one that is no picture."""
    for key, data in photo_files.items():
        if key != "notes/credits.csv":
            path = tmp_path / "sources" / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    return tmp_path / "sources"


def kept(result: VerifyResult) -> dict[str, str]:
    assert result.keep_counts == {
        reason: sum(one.reason == reason for one in result.keep) for reason in {one.reason for one in result.keep}
    }
    return {one.key: one.reason for one in result.keep}


def verify(archive: str, source: Path, **options: Any) -> VerifyResult:
    return verify_archive(Archive.open(archive), source=str(source), **options)


def test_nothing_is_lost_with_originals_that_are_all_there(photo_archive: str, sources: Path) -> None:
    result = verify(photo_archive, sources)
    assert result.exit_code == 0 and kept(result) == {} and result.sources_compared == 6
    (sources / "grey.png").unlink()  # gone already
    result = verify(photo_archive, sources)
    assert result.exit_code == 0 and result.sources_missing == 1


def change(sources: Path) -> str:
    (sources / "grey.png").write_bytes((sources / "alpha.png").read_bytes())
    return "grey.png"


def change_stored(sources: Path) -> str:
    with (sources / "wide/cut.jpg").open("ab") as file:
        file.write(b"!")
    return "wide/cut.jpg"


def add(sources: Path) -> str:
    (sources / "photos/new.jpg").write_bytes(b"later")
    return "photos/new.jpg"


def hide(sources: Path) -> str:
    (sources / "photos/.hidden.jpg").write_bytes((sources / "grey.png").read_bytes())
    return "photos/.hidden.jpg"


def quarantine(sources: Path) -> str:
    (sources / "gone.jpg").write_bytes((sources / "grey.png").read_bytes())  # it can be read again
    return "gone.jpg"


def skip(sources: Path) -> str:
    (sources / "notes").mkdir()
    (sources / "notes/credits.csv").write_bytes(b"words")
    return "notes/credits.csv"


def make_unreadable(sources: Path) -> str:
    (sources / "alpha.png").unlink()
    (sources / "alpha.png").symlink_to(sources / "nowhere")
    return "alpha.png"


def touch_only(sources: Path) -> None:
    os.utime(sources / "alpha.png", (1, 1))


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (change, "changed"),
        (change_stored, "changed"),
        (add, "not in the archive"),
        (hide, "not in the archive"),
        (quarantine, "quarantined"),
        (skip, "only skipped"),
        (make_unreadable, "could not be read now"),
    ],
)
def test_what_must_not_be_deleted_is_named(
    photo_archive: str, sources: Path, act: Callable[[Path], str], reason: str
) -> None:
    touch_only(sources)
    key = act(sources)
    result = verify(photo_archive, sources)
    assert result.ok and result.exit_code == 3 and kept(result) == {key: reason}
    done = CliRunner().invoke(build_app(), ["verify", photo_archive, "--source", str(sources)])
    assert done.exit_code == 3 and "all good" not in done.stdout
    assert f"1 source NOT in the archive as they are now: keep them (1 {reason})" in done.stdout
    assert f"lichen: keep {key}: {reason}" in done.stderr
    done = CliRunner().invoke(build_app(), ["verify", photo_archive, "--source", str(sources), "--json"])
    parsed = json.loads(done.stdout)
    assert done.exit_code == parsed["exit_code"] == 3 and parsed["keep_counts"] == {reason: 1}
    assert [(one["key"], one["reason"]) for one in parsed["keep"]] == [(key, reason)]


def test_originals_of_damaged_pictures_are_kept_too(photo_archive: str, sources: Path, tmp_path: Path) -> None:
    shutil.copytree(photo_archive, tmp_path / "archive")
    row = Archive.open(str(tmp_path / "archive")).row("grey.png")
    path = tmp_path / "archive/shards" / row.shard
    data = bytearray(path.read_bytes())
    data[row.offset + 40] ^= 4
    path.write_bytes(data)
    result = verify(str(tmp_path / "archive"), sources)
    assert result.exit_code == 4 and kept(result) == {"grey.png": "damaged in the archive"}


def test_an_empty_archive_holds_nothing(sources: Path, tmp_path: Path) -> None:
    Archive.create(str(tmp_path / "empty"))
    result = verify(str(tmp_path / "empty"), sources)
    assert result.exit_code == 1 and result.keep_counts == {"not in the archive": 6}


def test_only_the_chosen_pictures_are_looked_at(photo_archive: str, sources: Path) -> None:
    change(sources)
    add(sources)
    opened = Archive.open(photo_archive)
    result = verify_archive(opened, ["grey.png", "alpha.png"], source=str(sources))
    assert kept(result) == {"grey.png": "changed"} and result.exit_code == 3
    assert verify_archive(opened, ["alpha.png"], source=str(sources)).exit_code == 0


def test_a_second_file_of_the_same_key_is_another_file(photo_archive: str, sources: Path, tmp_path: Path) -> None:
    (tmp_path / "more/photos").mkdir(parents=True)
    (tmp_path / "more/photos/budgie.jpg").write_bytes(b"another bird")
    result = verify_archive(Archive.open(photo_archive), source=[str(sources), str(tmp_path / "more")])
    assert kept(result) == {"photos/budgie (2).jpg": "not in the archive"}


def test_files_of_the_archive_are_no_sources(photo_archive: str, sources: Path) -> None:
    shutil.copytree(photo_archive, sources, dirs_exist_ok=True)
    assert kept(verify(str(sources), sources)) == {}
    (sources / "jobs/photo.jpg").write_bytes(b"theirs")
    assert kept(verify(str(sources), sources)) == {"jobs/photo.jpg": "not in the archive"}


def test_the_same_on_s3(
    photo_archive: str, photo_files: dict[str, bytes], s3_url: str, s3_options: dict[str, Any]
) -> None:
    store = open_store(s3_url, s3_options)
    for key, data in photo_files.items():
        store.put(key, data + b"!" * (key == "grey.png"))
    result = verify_archive(Archive.open(photo_archive), source=s3_url, source_options=s3_options)
    assert kept(result) == {"grey.png": "changed", "notes/credits.csv": "only skipped"}


def test_names_are_bounded_and_counts_are_not(photo_archive: str, sources: Path) -> None:
    for number in range(MAX_KEPT + 5):
        (sources / f"new-{number:05d}.txt").write_bytes(b"")
    result = verify_archive(Archive.open(photo_archive), source=str(sources))
    assert len(result.keep) == MAX_KEPT and result.keep_counts == {"not in the archive": MAX_KEPT + 5}
    assert [one.key for one in result.keep] == sorted(one.key for one in result.keep)
    done = CliRunner().invoke(build_app(), ["verify", photo_archive, "--source", str(sources)])
    assert f"and keep {MAX_KEPT - 15:,} more" in done.stderr
