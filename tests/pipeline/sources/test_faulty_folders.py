"""Folders with entries that cannot be looked at: each is named, and stops no other."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
from sources_support import content, keys

from lichen.errors import SourceUnreadable
from lichen.pipeline.sources import Source, list_sources, read_source


def listed(url: str) -> tuple[list[str], dict[str, Source]]:
    """Keys of good sources, and faulty ones by key. Reading those raises their fault."""
    sources = list(list_sources(url))
    assert [source.key for source in sources] == sorted(source.key for source in sources)
    bad = {source.key: source for source in sources if source.fault is not None}
    for source in bad.values():
        with pytest.raises(SourceUnreadable) as caught:
            read_source(source)
        assert str(caught.value) == source.fault
    return [source.key for source in sources if source.fault is None], bad


def test_links_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(b"B")
    (tmp_path / "z").mkdir()
    (tmp_path / "z" / "y.jpg").write_bytes(b"Y")
    for name, target in {
        "a-self": "a-self",
        "ping.jpg": "pong.jpg",
        "pong.jpg": "ping.jpg",
        "through-a-file.jpg": "b.jpg/x",
        "gone.jpg": "nowhere",
        "long.jpg": "x" * 300,
    }.items():
        (tmp_path / name).symlink_to(target)
    good, bad = listed(str(tmp_path))
    assert good == ["b.jpg", "z/y.jpg"]
    assert set(bad) == {"a-self", "ping.jpg", "pong.jpg", "through-a-file.jpg", "gone.jpg", "long.jpg"}
    assert all(key in str(source.fault) for key, source in bad.items())
    assert "Too many levels" in str(bad["a-self"].fault) and "Not a directory" in str(bad["through-a-file.jpg"].fault)


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Three folders with a picture in each."""
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jpg").write_bytes(b"X")
    return tmp_path


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_folders_without_permission(three: Path) -> None:
    (three / "b").chmod(0)
    (three / "c").chmod(0o400)  # its names can be read, and nothing else
    good, bad = listed(str(three))
    for name in "bc":
        (three / name).chmod(0o700)
    assert good == ["a/x.jpg"] and set(bad) == {"b/", "c/x.jpg"}


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "Input/output error")])
def test_folders_that_cannot_be_read(three: Path, monkeypatch: pytest.MonkeyPatch, error: OSError) -> None:
    """As root sees them: the fault is injected for one folder."""
    fail_scandir(monkeypatch, three / "b", error)
    good, bad = listed(str(three))
    assert good == ["a/x.jpg", "c/x.jpg"] and set(bad) == {"b/"}
    assert error.strerror in str(bad["b/"].fault)
    fail_scandir(monkeypatch, three, error)
    with pytest.raises(SourceUnreadable, match="cannot list"):
        keys(str(three))


def fail_scandir(monkeypatch: pytest.MonkeyPatch, folder: Path, error: OSError) -> None:
    real: Callable[..., Any] = os.scandir

    def scandir(path: str) -> Any:
        if str(path) == str(folder):
            raise error
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)


def test_what_vanishes_or_changes_during_the_listing(three: Path) -> None:
    """The listing is lazy: after the first key its folder is known, and then the others are changed."""
    (three / "d.jpg").write_bytes(b"D")
    (three / "e.jpg").write_bytes(b"E")
    sources = list_sources(str(three))
    assert next(sources).key == "a/x.jpg"
    shutil.rmtree(three / "b")
    (three / "d.jpg").unlink()
    (three / "d.jpg").mkdir()
    (three / "e.jpg").unlink()
    rest = list(sources)
    assert [source.key for source in rest] == ["b/", "c/x.jpg", "d.jpg", "e.jpg"]
    assert [source.fault is None for source in rest] == [False, True, False, False]
    assert "is a folder" in str(rest[2].fault)


def test_a_folder_in_the_place_of_a_listed_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"A")
    [source] = list_sources(str(tmp_path))
    path.unlink()
    path.mkdir()
    with pytest.raises(SourceUnreadable, match="is a folder"):
        read_source(source)


def make_deep(top: Path, names: list[str]) -> None:
    """Folders in each other, beyond the length that a path may have."""
    descriptor = os.open(top, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=descriptor)
        below = os.open(name, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(descriptor)


def test_trees_deeper_than_python_recurses(tmp_path: Path) -> None:
    make_deep(tmp_path, ["d"] * 1100)
    deep = "/".join("d" * 1100) + "/deep.jpg"
    (tmp_path / deep).write_bytes(b"deep")
    try:
        assert keys(str(tmp_path)) == [deep]
    finally:
        subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)  # Python recurses to remove it


def test_paths_that_are_too_long(tmp_path: Path) -> None:
    (tmp_path / "z.jpg").touch()
    make_deep(tmp_path, ["d" * 200] * 25)
    good, bad = listed(str(tmp_path))
    assert good == ["z.jpg"]
    assert len(bad) == 1 and "too long" in str(next(iter(bad.values())).fault)


def test_a_folder_of_a_store_that_cannot_be_listed(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a/x.jpg", "b/x.jpg", "c.jpg"):
        memory.pipe_file(f"/root/{name}", content(name))
    real = type(memory).ls

    def ls(self: Any, path: str, **options: Any) -> Any:
        if path.endswith("/b"):
            raise PermissionError(path)
        return real(self, path, **options)

    monkeypatch.setattr(type(memory), "ls", ls)
    good, bad = listed("memory://root")
    assert good == ["a/x.jpg", "c.jpg"] and set(bad) == {"b/"}


def test_names_of_any_characters(tmp_path: Path) -> None:
    names = [
        "new\nline.jpg",
        "tab\t.jpg",
        "a::b.jpg",
        "q?x=1#y.jpg",
        "100%25.jpg",
        "s3:/x.jpg",
        "-r.jpg",
        " .jpg",
        "\\.jpg",
    ]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content(name))
    found = {source.key: read_source(source) for source in list_sources(str(tmp_path))}
    assert found == {name: content(name) for name in names}
