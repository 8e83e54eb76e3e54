"""What is the user's stays, byte for byte, whatever it is called and wherever links lead."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lichen.errors import ArchiveError, CorruptArchive, StoreError, UsageError
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.gc import collect
from lichen.pipeline.archive.job import finish_job, write_progress
from lichen.pipeline.archive.lease import acquire
from lichen.pipeline.archive.marker import check_vacant, create_marker
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.snapshot_writer import write_snapshot
from lichen.pipeline.archive.store import LocalStore, Store, open_store

JOB = "20200102T030405-abcdef"
HEX = "0123456789abcdef0123456789abcdef"
LIKE_OURS = (
    f"shards/{JOB}.00000-{HEX[:12]}.bin",
    f"shards/{JOB}.00000-{HEX[:12]}.parquet",
    f"snapshots/00000001-{HEX[:12]}-00000.parquet",
    f"jobs/{JOB}/quarantine/{JOB}.00000-{HEX[:12]}.parquet",
    f"jobs/{JOB}/skipped/{JOB}.00000-{HEX[:12]}.parquet",
    f"commits/{JOB}/{JOB}.00000.json",
    f"codecs/{HEX}{HEX}.json",
)
FOREIGN = (
    "shards/00000.tar",
    "shards/index.json",
    "shards/shard.00000.mds",
    "snapshots/epoch-1.pt",
    "snapshots/00000001.JSON",
    f".tmp/{HEX}",
    f".tmp/lichen-{HEX[:-1]}",
    f".tmp/sub/lichen-{HEX}",
    f".probe/{HEX[:16]}",
    "jobs/list.txt",
    f"jobs/{JOB}/photo.jpg",
    f"jobs/{JOB}/quarantine/photo.jpg",
    f"jobs/{JOB}/plan-00000.parquet.jpg",
    f"commits/{JOB}/photo.png",
    "commits/a.png",
    f"codecs/{HEX}{HEX}.jpg",
    "codecs/video.mp4",
    f"shards/{JOB}.00000-{HEX[:12]}.bin\n",
    f"shards/{JOB}.0000٠-{HEX[:12]}.bin",
    f"commits/{JOB}/20200102T030405-000000.00000.json",
    f"jobs/{JOB}/skipped/20200102T030405-000000.00000-{HEX[:12]}.parquet",
    "lichen.json.bak",
    "photos/a.jpg",
)
"""Names in or beside the folders of an archive that lichen never gives."""


def tree(folder: Path) -> dict[str, bytes | str]:
    """Every file with its bytes and every link with its target."""
    found: dict[str, bytes | str] = {}
    for parent, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(parent, name)
            if path.is_symlink():
                found[str(path)] = os.readlink(path)
            elif path.is_file():
                found[str(path)] = path.read_bytes()
    return found


# --- names ------------------------------------------------------------------------------------------


def test_every_name_of_an_archive_is_its_own(photo_archive: str) -> None:
    store = open_store(photo_archive)
    names = [entry.path for entry in store.entries()]
    assert len(names) > 12 and all(layout.is_own(name) for name in names)
    assert [entry.path for entry in store.own_entries()] == names
    assert all(layout.is_own(name) for name in LIKE_OURS)
    assert layout.is_own(layout.temporary_path()) and layout.is_own(layout.probe_path())


@pytest.mark.parametrize("name", FOREIGN)
def test_other_names_are_not(name: str) -> None:
    assert not layout.is_own(name)


# --- making an archive ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shards/00000.tar", *LIKE_OURS, f".tmp/{HEX}", f".probe/{HEX[:16]}"])
def test_no_archive_is_made_among_files_under_its_names(place: Any, name: str) -> None:
    store = place.store()
    store.put(f"deep/{name}", b"theirs")
    create_marker(store)  # beside is no matter
    other = open_store(f"{place.url}/deep", place.options)
    with pytest.raises(UsageError, match=name.partition("/")[0]):
        check_vacant(other)
    with pytest.raises(UsageError):
        create_marker(other, exist_ok=True)
    assert [entry.path for entry in other.entries()] == [name] and other.read(name) == b"theirs"


def test_what_is_vacant(place: Any) -> None:
    store = place.store()
    store.put("photos/a.jpg", b"theirs")
    store.put(layout.temporary_path(), b"")
    store.put(layout.probe_path(), b"")
    check_vacant(store)
    create_marker(store)
    store.put("shards/00000.tar", b"came later")
    check_vacant(store)


@pytest.mark.parametrize("kind", ["file", "link", "broken link", "link inside", "pipe inside"])
@pytest.mark.parametrize("folder", layout.FOLDERS)
def test_folders_that_are_something_else(tmp_path: Path, kind: str, folder: str) -> None:
    home, outside = tmp_path / "home", tmp_path / "outside"
    home.mkdir()
    outside.mkdir()
    place = home / folder
    if kind == "file":
        place.write_bytes(b"theirs")
    elif kind.endswith("link"):
        place.symlink_to(outside if kind == "link" else tmp_path / "nowhere")
    else:
        place.mkdir()
        os.mkfifo(place / "x") if kind == "pipe inside" else (place / "x").symlink_to(outside)
    before = tree(tmp_path)
    with pytest.raises(UsageError, match=folder):
        check_vacant(open_store(str(home)))
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "content", [b"{}", b"hello", b'{"format": 1, "kind": "x"}', b"[]", b"", b'{"kind": "lichen-archive"}']
)
def test_a_file_of_the_users_with_the_name_of_the_marker(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "lichen.json").write_bytes(content)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/00000.tar").write_bytes(b"theirs")
    before = tree(tmp_path)
    store = open_store(str(tmp_path))
    for action in (
        lambda: check_vacant(store),
        lambda: create_marker(store, exist_ok=True),
        lambda: collect(store, older_than=-60, keep_snapshots=1),
        lambda: Archive.open(str(tmp_path)),
    ):
        with pytest.raises(CorruptArchive, match="lichen"):
            action()
    assert tree(tmp_path) == before


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_is_never_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "lichen.json"
    if kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    store = open_store(str(tmp_path))
    for action in (
        lambda: check_vacant(store),
        lambda: create_marker(store, exist_ok=True),
        lambda: collect(store, older_than=-60),
        lambda: Archive.open(str(tmp_path)),
        lambda: store.read_range("lichen.json", 0, 5),
    ):
        with pytest.raises(StoreError, match="not a regular file"):
            action()


# --- links ------------------------------------------------------------------------------------------


def test_nothing_is_written_through_links(tmp_path: Path, fill: Callable[..., str]) -> None:
    store = open_store(str(tmp_path / "archive"))
    create_marker(store)
    job = fill(store, {"a": b"1"})
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "progress.json").write_bytes(b"theirs")
    (tmp_path / "archive/jobs" / job / "progress.json").symlink_to(outside / "progress.json")
    write_progress(store, job, {"done": 1})  # takes the place of the link
    assert (outside / "progress.json").read_bytes() == b"theirs"
    for folder in (f"jobs/{job}", ".tmp"):
        shutil.move(tmp_path / "archive" / folder, tmp_path / "moved")
        (tmp_path / "archive" / folder).symlink_to(outside)
        before = tree(tmp_path)
        with pytest.raises(StoreError, match="symbolic link"):
            write_progress(store, job, {"done": 2})
        with pytest.raises(StoreError, match="symbolic link"):
            acquire(store, job)
        assert tree(tmp_path) == before
        (tmp_path / "archive" / folder).unlink()
        shutil.move(tmp_path / "moved", tmp_path / "archive" / folder)


def test_an_archive_whose_folders_were_moved_and_linked_can_be_read(photo_archive: str, tmp_path: Path) -> None:
    shutil.copytree(photo_archive, tmp_path / "archive")
    shutil.move(tmp_path / "archive/shards", tmp_path / "large disk")
    (tmp_path / "archive/shards").symlink_to(tmp_path / "large disk")
    archive = Archive.open(str(tmp_path / "archive"))
    assert len(list(archive.pictures(skip_undecodable=True))) == 5
    assert collect(archive.store, older_than=-60, keep_snapshots=1).garbage == ()


def test_links_stay_and_so_does_what_they_lead_to(tmp_path: Path, fill: Callable[..., str], publish: Any) -> None:
    store = open_store(str(tmp_path / "archive"))
    create_marker(store)
    job = fill(store, {"a": b"1"})
    lost = publish(store, layout.shard_id(job, 7), {"b": b"2"})  # garbage, as soon as the job is over
    finish_job(store, job, write_snapshot(store, job).number)
    path = tmp_path / "archive/shards" / lost.payload.file
    shutil.move(path, tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    (tmp_path / "archive/shards/itself").symlink_to("itself")
    assert [entry.path for entry in collect(store, older_than=-60).garbage] == [f"shards/{lost.index.file}"]
    assert path.is_symlink() and (tmp_path / "elsewhere").exists()
    with pytest.raises(StoreError, match="it stays"):
        store.delete([f"shards/{lost.payload.file}"])
    path.unlink()
    shutil.move(tmp_path / "archive/shards", tmp_path / "moved")
    (tmp_path / "archive/shards").symlink_to(tmp_path / "moved")
    shutil.move(tmp_path / "elsewhere", tmp_path / "moved" / path.name)
    assert collect(store, older_than=-60).garbage == ()
    assert (tmp_path / "moved" / path.name).exists()


# --- whatever stands there --------------------------------------------------------------------------


def sweep_after_work(store: Store, fill: Callable[..., str], publish: Any) -> None:
    """What compressing twice, losing an attempt and ``gc`` do, as far as they get among foreign files."""
    try:
        first = fill(store, {"a": b"old"}, {"b": b"stays"})
        publish(store, layout.shard_id(first, 5), {"lost": b"attempt"})
        finish_job(store, first, write_snapshot(store, first).number)
        second = fill(store, {"a": b"new"}, after=first)
        finish_job(store, second, write_snapshot(store, second).number)
    except ArchiveError:
        pass
    for keep in (None, 1):
        try:
            collect(store, older_than=-60, keep_snapshots=keep)
        except ArchiveError:
            continue


@pytest.fixture(scope="module")
def other_archive(photo_archive: str) -> dict[str, bytes]:
    """The files of another archive: names as ours, contents as ours."""
    folder = Path(photo_archive)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def foreign_trees(other: dict[str, bytes]) -> st.SearchStrategy[dict[str, bytes | None]]:
    """Paths with contents, or None for a link that leads out of the archive."""
    numbered = st.sampled_from(["00000000", "00000001", "00000002", "00000009", "99999999"])
    names = st.one_of(
        st.sampled_from([*LIKE_OURS, *FOREIGN]),
        st.sampled_from(sorted(set(other) - {"lichen.json"})),
        st.builds("snapshots/{}.json".format, numbered),
        st.builds(lambda number: f"snapshots/{number}-{HEX[:12]}-00000.parquet", numbered),
        st.builds("{}/{}".format, st.sampled_from(layout.FOLDERS), st.text("ab.-0", min_size=1, max_size=6)),
    ).filter(lambda name: not any(part in (".", "..") for part in name.split("/")))
    contents = st.one_of(st.none(), st.just(b"theirs"), st.sampled_from(sorted(other.values())))
    return st.dictionaries(names, contents, min_size=1, max_size=6)


def plant(home: Path, outside: Path, files: dict[str, bytes | None]) -> None:
    """Files where nothing is yet; links lead to a folder outside with the same names in it."""
    for name, content in files.items():
        path = home / name
        if os.path.lexists(path) or any(part.is_symlink() or part.is_file() for part in path.parents):
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.symlink_to(outside)
        else:
            path.write_bytes(content)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_foreign_byte_stays(
    data: st.DataObject,
    other_archive: dict[str, bytes],
    fill: Callable[..., str],
    publish: Any,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    files = data.draw(foreign_trees(other_archive))
    home, outside = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("outside")
    for name in LIKE_OURS:
        (outside / Path(name).name).write_bytes(b"far away")
    early = data.draw(st.booleans())
    store = open_store(str(home))
    if not early:
        create_marker(store)
    plant(home, outside, files)
    foreign = tree(home) | tree(outside)
    if early:
        taken = any(name.startswith(tuple(f"{folder}/" for folder in layout.FOLDERS)) for name in files)
        try:
            create_marker(store)
            assert not taken
        except UsageError:
            assert taken and tree(home) | tree(outside) == foreign
            return
    else:
        foreign.pop(str(home / "lichen.json"))
    sweep_after_work(store, fill, publish)
    after = tree(home) | tree(outside)
    assert {name: after.get(name) for name in foreign} == foreign
    assert {name for name in after if name.startswith(str(outside))} == {
        name for name in foreign if name.startswith(str(outside))
    }
    shutil.rmtree(home)
    shutil.rmtree(outside)


def test_every_foreign_object_stays(
    s3_url: str, s3_options: dict[str, Any], other_archive: dict[str, bytes], fill: Any, publish: Any
) -> None:
    store = open_store(s3_url, s3_options)
    create_marker(store)
    foreign = dict.fromkeys((name for name in (*LIKE_OURS, *FOREIGN) if name.isprintable()), b"theirs")
    foreign |= {name: content for name, content in other_archive.items() if name.startswith("shards/")}
    [index] = (content for name, content in other_archive.items() if name.endswith("-00000.parquet") and "snap" in name)
    foreign["snapshots/00000001-aaaaaaaaaaaa-00000.parquet"] = index
    for name, content in foreign.items():
        store.put(name, content)
    sweep_after_work(store, fill, publish)
    assert [entry.path for entry in store.entries("snapshots") if entry.path.endswith(".json")] == [
        "snapshots/00000002.json"
    ]
    for name, content in foreign.items():
        assert store.read(name) == content


def test_what_this_archive_lost_is_still_swept(store: Store, fill: Callable[..., str], publish: Any) -> None:
    """Among foreign files, and only that."""
    store.put("shards/00000.tar", b"theirs")
    sweep_after_work(store, fill, publish)
    names = [entry.path for entry in store.entries("shards")]
    assert len(names) == 5 and "shards/00000.tar" in names  # two payload files with their index parts
    assert not isinstance(store, LocalStore) or (Path(store.root) / "shards/00000.tar").read_bytes() == b"theirs"


def test_snapshots_of_another_archive_are_not_expired_here(
    store: Store, fill: Callable[..., str], photo_archive: str
) -> None:
    job = fill(store, {"a": b"1"})
    finish_job(store, job, write_snapshot(store, job).number)
    foreign = (Path(photo_archive) / "snapshots/00000001.json").read_bytes()
    theirs = foreign.replace(b'"snapshot":1', b'"snapshot":2')
    store.put("snapshots/00000002.json", theirs)
    before = [entry.path for entry in store.entries()]
    with pytest.raises(CorruptArchive, match="snapshots/00000002"):
        collect(store, older_than=-60, keep_snapshots=1)
    assert [entry.path for entry in store.entries()] == before


def test_jobs_of_another_archive_are_not_swept_here(memory: Store, fill: Callable[..., str], publish: Any) -> None:
    """Whatever was copied in: its attempts may be what is left of it."""
    theirs = open_store(f"memory://{HEX}")
    create_marker(theirs)
    fill(theirs, {"a": b"1"}, {"b": b"2"})
    job = fill(theirs, {"c": b"3"})
    publish(theirs, layout.shard_id(job, 1), {"d": b"4"})
    finish_job(theirs, job, None, "abandoned")
    copied = [entry.path for entry in theirs.entries() if entry.path != layout.MARKER]
    for path in copied:
        memory.put(path, theirs.read(path))
    own = fill(memory, {"e": b"5"})
    finish_job(memory, own, write_snapshot(memory, own).number)
    assert collect(memory, older_than=-60, keep_snapshots=1).garbage == ()
    assert {path: memory.read(path) for path in copied} == {path: theirs.read(path) for path in copied}


@pytest.mark.parametrize("of_the_job", [True, False])
def test_what_is_being_written_is_no_garbage(store: Store, fill: Callable[..., str], of_the_job: bool) -> None:
    """A large file may be half-written for as long as its driver lives, whatever age was asked for."""
    job = fill(store, {"a": b"a"})
    half = layout.temporary_path()
    store.put(half, b"half")
    with acquire(store, job if of_the_job else None):
        assert half not in {entry.path for entry in collect(store, older_than=-60).garbage}
        assert store.exists(half)
    assert half in {entry.path for entry in collect(store, older_than=-60).garbage}
    assert not store.exists(half)
