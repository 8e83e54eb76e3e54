"""Where the newest snapshot is lost, its pictures are not taken for garbage, nor the older one for the archive."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lichen.jobs.cli import build_app
from lichen.models.errors import CorruptArchive
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.gc import collect
from lichen.pipeline.archive.job import finish_job
from lichen.pipeline.archive.marker import read_marker
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.snapshot import lost_snapshot, read_snapshot, write_snapshot
from lichen.pipeline.archive.store import Store
from lichen.pipeline.engine.config import JobConfig
from lichen.pipeline.engine.driver import run_job
from lichen.pipeline.verify import verify_archive

Fill = Callable[..., str]


def three_jobs(store: Store, fill: Fill) -> None:
    for name in ("a", "b", "c"):
        job = fill(store, {name: name.encode()})
        finish_job(store, job, write_snapshot(store, job).number)


def paths(store: Store) -> list[str]:
    return [entry.path for entry in store.entries()]


@pytest.mark.parametrize("lost", [(3,), (2, 3), (1, 2, 3)])
def test_nothing_is_swept_while_the_newest_snapshot_is_lost(store: Store, fill: Fill, lost: tuple[int, ...]) -> None:
    three_jobs(store, fill)
    copies = {layout.snapshot_path(number): store.read(layout.snapshot_path(number)) for number in lost}
    store.delete(copies)
    before = paths(store)
    assert lost_snapshot(store) == layout.snapshot_path(3)
    for keep in (None, 1):
        with pytest.raises(CorruptArchive, match=r"00000003\.json is missing"):
            collect(store, older_than=-1, keep_snapshots=keep)
    assert paths(store) == before
    for path, data in copies.items():
        store.create(path, data)
    assert lost_snapshot(store) is None and collect(store, older_than=-1).garbage == ()


def test_older_snapshots_may_go(store: Store, fill: Fill) -> None:
    three_jobs(store, fill)
    store.delete([layout.snapshot_path(2)])
    assert lost_snapshot(store) is None
    collect(store, older_than=-1, keep_snapshots=1)
    newest = Archive(store, read_marker(store), read_snapshot(store, 3))
    assert {key: newest.original(key) for key in newest} == {"a": b"a", "b": b"b", "c": b"c"}


def test_verify_names_it(memory: Store, fill: Fill) -> None:
    three_jobs(memory, fill)
    opened = Archive(memory, read_marker(memory), read_snapshot(memory, 3))
    assert verify_archive(opened).ok
    older = Archive(memory, read_marker(memory), read_snapshot(memory, 1))
    assert verify_archive(older).ok  # asked for, while the newest one is there
    memory.delete([layout.snapshot_path(3)])
    for number in (2, None):
        found = None if number is None else read_snapshot(memory, number)
        result = verify_archive(Archive(memory, read_marker(memory), found))
        if number is None:
            memory.delete([layout.snapshot_path(one) for one in (1, 2)])
            result = verify_archive(Archive(memory, read_marker(memory), None))
        assert [failure.file for failure in result.failures] == [layout.snapshot_path(3)]
        assert result.exit_code == 4


def test_commands_refuse_to_go_on_without_it(photo_archive: str, photo_files: dict[str, bytes], tmp_path: Path) -> None:
    folder, sources = tmp_path / "archive", tmp_path / "sources"
    for key, data in photo_files.items():
        (sources / key).parent.mkdir(parents=True, exist_ok=True)
        (sources / key).write_bytes(data)
    config = JobConfig(source=str(sources), archive=str(folder), codec="jpeg", executor="local")
    run_job(config)
    snapshot = next(folder.glob("snapshots/*.json"))
    shutil.move(snapshot, tmp_path / "copy")
    files = sorted(folder.rglob("*"))
    with pytest.raises(CorruptArchive, match="put it back"):
        run_job(config)
    assert not list(folder.glob("snapshots/*.json")) and set(files) <= set(folder.rglob("*"))
    for command, code in (("verify", 4), ("gc", 1)):
        done = CliRunner().invoke(build_app(), [command, str(folder)])
        assert done.exit_code == code and snapshot.name in done.stderr
    assert snapshot.name in CliRunner().invoke(build_app(), ["ls", str(folder)]).stderr
    shutil.move(tmp_path / "copy", snapshot)
    assert run_job(config).job is None
