"""Where exported files go: never through a link inside the folder, never under a name that shows as another."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import threading
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lichen.pipeline.export as export_module
from lichen.errors import UsageError
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.export import Destination, ExportResult, export
from lichen.pipeline.names import is_hidden
from lichen.pipeline.select import select

BROKEN = b"\xff\xd8\xff no picture"
HIDDEN = (
    "\x00\n\x1b\x7f\x80\x85\x9b\x9f\u061c\u200b\u200d\u200e\u200f\u2028\u2029\u202a\u202e\u2066\u2069\ufeff\u00ad\u3164"
)
HIDDEN += "\U000e0041\u2800"


def export_all(url: str, folder: Path, *, overwrite: bool = False) -> ExportResult:
    archive = Archive.open(url)
    return export(archive, select(archive, ()), folder, overwrite=overwrite)


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- links ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("target", ["beside", "missing", "file", "loop", "inside"])
def test_folders_that_are_links_are_not_written_through(
    write_archive: Callable[..., str], tmp_path: Path, target: str, overwrite: bool
) -> None:
    url = write_archive(tmp_path / "archive", {"a/b/c.jpg": BROKEN, "a/d.jpg": BROKEN, "e.jpg": BROKEN})
    out, beside = tmp_path / "out", tmp_path / "beside"
    (out / "other").mkdir(parents=True)
    beside.mkdir()
    (beside / "d.jpg").write_bytes(b"theirs")
    (tmp_path / "file").write_bytes(b"theirs")
    places = {"beside": beside, "missing": tmp_path / "missing", "file": tmp_path / "file", "loop": out / "a"}
    (out / "a").symlink_to(places.get(target, out / "other"))
    result = export_all(url, out, overwrite=overwrite)
    assert result.written == 1
    assert sorted(problem.key for problem in result.problems) == ["a/b/c.jpg", "a/d.jpg"]
    assert all("symbolic link" in problem.message for problem in result.problems)
    assert files_below(beside) == {"d.jpg": b"theirs"}
    assert (tmp_path / "file").read_bytes() == b"theirs"
    assert not (tmp_path / "missing").exists()
    assert os.listdir(out / "other") == []
    assert sorted(os.listdir(out)) == ["a", "e.jpg", "other"]


def test_links_to_files_are_replaced_or_left_but_not_followed(
    write_archive: Callable[..., str], tmp_path: Path
) -> None:
    url = write_archive(tmp_path / "archive", {"a.jpg": BROKEN, "b.jpg": BROKEN})
    out, secret = tmp_path / "out", tmp_path / "secret"
    out.mkdir()
    secret.write_bytes(b"keep")
    (out / "a.jpg").symlink_to(secret)
    (out / "b.jpg").symlink_to(tmp_path / "nowhere")  # exists, though it leads nowhere
    result = export_all(url, out)
    assert result.written == 0 and all("exists already" in problem.message for problem in result.problems)
    assert not (tmp_path / "nowhere").exists()
    assert export_all(url, out, overwrite=True).written == 2
    assert not (out / "a.jpg").is_symlink() and not (out / "b.jpg").is_symlink()
    assert secret.read_bytes() == b"keep" and not (tmp_path / "nowhere").exists()


def test_the_folder_itself_may_be_a_link(write_archive: Callable[..., str], tmp_path: Path) -> None:
    url = write_archive(tmp_path / "archive", {"a/b.jpg": BROKEN})
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    assert export_all(url, tmp_path / "out").written == 1
    assert files_below(tmp_path / "disk") == {"a/b.jpg": BROKEN}


def test_a_folder_that_becomes_a_link_meanwhile(tmp_path: Path) -> None:
    """Someone swaps the folder for a link at the worst moment: when it was looked at, before the file is opened."""
    out, beside = tmp_path / "out", tmp_path / "beside"
    (out / "a").mkdir(parents=True)
    beside.mkdir()
    swapped: list[str] = []

    def swap(event: str, arguments: tuple[object, ...]) -> None:
        name = str(arguments[0]) if event == "open" else ""
        if name.endswith((".partial", "b.jpg")) and not swapped:
            swapped.append(name)
            os.rename(out / "a", tmp_path / "moved")
            (out / "a").symlink_to(beside)

    sys.addaudithook(swap)  # stays, and does nothing any more
    with contextlib.suppress(UsageError):
        Destination(out, overwrite=True).write(out / "a" / "b.jpg", BROKEN)
    assert swapped
    assert os.listdir(beside) == []
    assert files_below(tmp_path / "moved") == {"b.jpg": BROKEN}


# --- names ---------------------------------------------------------------------------------------


def test_what_nobody_sees_is_written_as_digits(write_archive: Callable[..., str], tmp_path: Path) -> None:
    keys = [f"x{character}y.jpg" for character in HIDDEN if character not in "\x00\n"]
    url = write_archive(tmp_path / "archive", dict.fromkeys(keys, BROKEN))
    out = tmp_path / "out"
    assert export_all(url, out).written == len(keys)
    names = set(os.listdir(out))
    assert {"x%C2%85y.jpg", "x%E2%80%AEy.jpg", "x%E2%80%A8y.jpg", "x%1By.jpg", "x%7Fy.jpg"} <= names
    assert not any(is_hidden(character) for name in names for character in name)


def test_names_in_all_scripts_stay_as_they_are(tmp_path: Path) -> None:
    destination = Destination(tmp_path, overwrite=False)
    for name in (
        "Ärger é.jpg",
        "写真　一.jpg",
        "صورة.jpg",
        "ภาพ.jpg",
        "चित्र.jpg",
        "🌿.jpg",
        "a b.jpg",
        "50%.jpg",
    ):
        assert destination.path(name, "original") == tmp_path / name


@given(st.text(min_size=1, max_size=40).filter(lambda text: len(text.encode("utf-8", "surrogatepass")) < 80))
def test_every_key_has_a_path_inside_and_nothing_hidden(key: str) -> None:
    folder = Path("/somewhere")
    path = Destination(folder, overwrite=False).path(key, "original")
    parts = path.relative_to(folder).parts
    assert len(parts) == key.count("/") + 1
    for part in parts:
        assert part not in ("", ".", "..") and "/" not in part
        assert not {unicodedata.category(character) for character in part} & {"Cc", "Cf", "Cs", "Zl", "Zp"}


# --- what is left out ----------------------------------------------------------------------------


def test_what_files_cannot_hold_is_counted_once_for_each_kind(
    write_archive: Callable[..., str], data_folder: Path, tmp_path: Path
) -> None:
    data = (data_folder / "samples/budgie_a6d68c32b3a3.jpg").read_bytes()
    comment, photoshop = b"\xff\xfe\0\x07hello", b"\xff\xed\0\x10Photoshop 3.0\0"
    files = {"a.jpg": data[:2] + comment + comment + data[2:], "b.jpg": data[:2] + photoshop + comment + data[2:]}
    url = write_archive(tmp_path / "archive", files | {"c.jpg": data})
    result = export_all(url, tmp_path / "png")
    assert (result.written, result.originals) == (3, 0)
    assert result.not_carried == {"IPTC and Photoshop data": 1, "comments": 2}
    archive = Archive.open(url)
    jpeg = export(archive, select(archive, ()), tmp_path / "jpeg", file_format="jpeg")
    assert (jpeg.written, jpeg.not_carried) == (3, {})
    for name in ("a.jpg", "b.jpg"):
        assert comment in (tmp_path / "jpeg" / name).read_bytes()


def test_a_folder_that_becomes_a_link_after_it_was_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, beside = tmp_path / "out", tmp_path / "beside"
    out.mkdir()
    beside.mkdir()
    honest = export_module._status

    def slow(name: str, folder: int) -> os.stat_result | None:
        found = honest(name, folder)
        if name == "a":
            (out / "a").rmdir()
            (out / "a").symlink_to(beside)
        return found

    monkeypatch.setattr(export_module, "_status", slow)
    destination = Destination(out, overwrite=False)
    with pytest.raises(UsageError, match="cannot write"):
        destination.write(destination.path("a/b.png", "png"), b"b")
    assert files_below(beside) == {}


# --- names that are taken ------------------------------------------------------------------------


def test_files_that_appear_meanwhile_are_not_replaced(tmp_path: Path) -> None:
    """Two exports at once into one folder, or a user who is quick: one file, and the other one is told."""
    destinations = [Destination(tmp_path / "out", overwrite=False) for _ in range(4)]
    for number in range(50):
        start = threading.Barrier(len(destinations))

        def write(who: int, number: int = number, start: threading.Barrier = start) -> str | None:
            path = destinations[who].path(f"{number}.png", "png")
            start.wait()
            try:
                destinations[who].write(path, f"{who}".encode())
            except UsageError as error:
                return None if "exists already" in str(error) else str(error)
            return f"{who}"

        with ThreadPoolExecutor(len(destinations)) as pool:
            winners = [who for who in pool.map(write, range(len(destinations))) if who is not None]
        assert [(tmp_path / "out" / f"{number}.png").read_text()] == winners
    assert not list((tmp_path / "out").glob(".*"))


def test_one_picture_never_replaces_another(tmp_path: Path) -> None:
    """Where a file system takes two names for one; here a second link to the file does."""
    destination = Destination(tmp_path, overwrite=True)
    (tmp_path / "b.png").write_bytes(b"theirs")
    destination.write(destination.path("a.png", "png"), b"a")
    destination.write(destination.path("b.png", "png"), b"b")
    os.link(tmp_path / "a.png", tmp_path / "A.png")
    with pytest.raises(UsageError, match="another picture"):
        destination.write(destination.path("A.png", "png"), b"A")
    assert files_below(tmp_path) == {"a.png": b"a", "A.png": b"a", "b.png": b"b"}


def test_file_systems_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    destination = Destination(tmp_path, overwrite=False)
    path = destination.path("a.png", "png")
    destination.write(path, b"a")
    with pytest.raises(UsageError, match="exists already"):
        destination.write(path, b"b")
    assert files_below(tmp_path) == {"a.png": b"a"}
