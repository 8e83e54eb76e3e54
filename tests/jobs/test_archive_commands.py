"""The commands that read archives, through the command line."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lichen.jobs.cli import build_app
from lichen.pipeline.archive.reader import Archive

RUN = "import sys; sys.argv[0] = 'lichen'; from lichen.jobs.cli import main; main()"


def run(*arguments: str | Path, code: int = 0) -> str:
    """Run a command in this process; returns its standard output."""
    result = CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stdout


def errors(*arguments: str | Path, code: int) -> str:
    """The same for standard error."""
    result = CliRunner().invoke(build_app(), [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result.stderr


@pytest.fixture
def damaged(photo_archive: str, tmp_path: Path) -> Path:
    """A copy with one flipped bit in the photograph."""
    folder = tmp_path / "damaged"
    shutil.copytree(photo_archive, folder)
    row = Archive.open(str(folder)).row("photos/budgie.jpg")
    path = folder / "shards" / row.shard
    data = bytearray(path.read_bytes())
    data[row.offset + row.length // 2] ^= 16
    path.write_bytes(data)
    return folder


def test_verify_in_a_process_of_its_own_exits_with_4_and_names_the_key(damaged: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RUN, "verify", str(damaged)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 4
    assert "1 FAILED" in done.stdout
    assert "photos/budgie.jpg" in done.stderr and "checksum" in done.stderr and "Traceback" not in done.stderr


def test_verify(photo_archive: str, damaged: Path) -> None:
    assert "all good" in run("verify", photo_archive)
    parsed = json.loads(run("verify", photo_archive, "--json"))
    assert parsed["ok"] and parsed["pictures"] == 6
    parsed = json.loads(run("verify", damaged, "--json", code=4))
    assert not parsed["ok"] and [failure["key"] for failure in parsed["failures"]] == ["photos/budgie.jpg"]
    run("verify", damaged, "*.png")
    run("verify", damaged, "photos/*", code=4)


def test_verify_against_sources(photo_archive: str, photo_files: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "grey.png").write_bytes(photo_files["grey.png"])
    parsed = json.loads(run("verify", photo_archive, "--source", tmp_path, "--json"))
    assert (parsed["sources_compared"], parsed["sources_missing"]) == (1, 5)
    assert "1 compared with their sources; 5 gone" in run("verify", photo_archive, "--source", tmp_path)
    run("verify", photo_archive, "--source", tmp_path / "nowhere", code=2)


def test_report(photo_archive: str) -> None:
    parsed = json.loads(run("report", photo_archive, "--json", "--worst", "2"))
    assert parsed["pictures"] == 6 and len(parsed["worst"]) == 2
    assert parsed["sizes"]["total"] == sum(
        os.path.getsize(Path(parent) / name) for parent, _, names in os.walk(photo_archive) for name in names
    )
    text = run("report", photo_archive)
    for said in ("everything counted", "without the codec's weights", "alpha.png", "gone.jpg", "notes/credits.csv"):
        assert said in text
    assert f"{100 * parsed['savings']['savings']:.1f} %" in text


def test_ls(photo_archive: str) -> None:
    assert run("ls", photo_archive, "*.png").splitlines() == ["alpha.png", "grey.png", "wide/deep.png"]
    rows = json.loads(run("ls", photo_archive, "--json"))
    assert [row["key"] for row in rows] == list(Archive.open(photo_archive))
    assert {row["status"] for row in rows} == {"compressed", "stored"} and len(rows[0]["source_sha256"]) == 64
    long = run("ls", photo_archive, "-l", "wide/deep.png", "photos/budgie.jpg").splitlines()
    assert "a PNG of 16 bits a sample" in long[1] and "1090x727" in long[2]
    run("ls", photo_archive, "no-such-picture", code=2)


def test_ls_of_an_empty_archive_is_an_empty_document(tmp_path: Path) -> None:
    Archive.create(str(tmp_path / "empty"))
    assert json.loads(run("ls", tmp_path / "empty", "--json")) == []
    assert json.loads(run("report", tmp_path / "empty", "--json"))["pictures"] == 0
    assert json.loads(run("info", tmp_path / "empty", "--json"))["snapshot"] is None
    for command in ("status", "gc"):
        run(command, tmp_path / "empty")


def test_an_archive_without_a_picture_says_so(
    photo_files: dict[str, bytes], write_archive: Callable[..., str], tmp_path: Path
) -> None:
    Archive.create(str(tmp_path / "empty"))
    write_archive(tmp_path / "words", {"notes.csv": photo_files["notes/credits.csv"]})
    for name, why in (("empty", "no job has finished yet"), ("words", "its jobs found no pictures")):
        said = f"there is nothing in {tmp_path / name}: {why}"
        for command in ("ls", "report", "info"):
            assert said in errors(command, tmp_path / name, code=0)
        assert said in errors("decode", tmp_path / name, "--to", tmp_path / "out", code=0)
        assert said in errors("verify", tmp_path / name, code=1)
        assert "all good" not in run("verify", tmp_path / name, code=1)
        assert json.loads(run("verify", tmp_path / name, "--json", code=1))["exit_code"] == 1


def test_control_characters_of_keys_do_not_reach_the_terminal(
    photo_files: dict[str, bytes], write_archive: Callable[..., str], tmp_path: Path
) -> None:
    key = "\x1b[2J[bold]evil\n.png"
    url = write_archive(tmp_path / "archive", {key: photo_files["grey.png"]})
    for command in ("ls", "report"):
        text = run(command, url)
        assert "\x1b" not in text and "\\x1b[2J[bold]evil\\n.png" in text
    assert json.loads(run("ls", url, "--json"))[0]["key"] == key


def test_info(photo_archive: str) -> None:
    parsed = json.loads(run("info", photo_archive, "--json"))
    assert parsed["pictures"] == 6 and parsed["snapshots"] == [1] and list(parsed["codecs"].values()) == ["webp"]
    assert list(parsed["jobs"].values()) == ["finished"]
    assert "6 (4 compressed, 2 stored)" in run("info", photo_archive)


def test_status(photo_archive: str) -> None:
    parsed = json.loads(run("status", photo_archive, "--json"))
    assert [job["state"] for job in parsed] == ["finished"]
    assert "finished" in run("status", photo_archive)


def test_gc(photo_archive: str, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    shutil.copytree(photo_archive, folder)
    lost = folder / "shards" / f"{Archive.open(str(folder)).info().jobs[0]}.00000-0123456789ab.bin"
    lost.write_bytes(b"an attempt that lost")
    os.utime(lost, (1, 1))
    assert lost.name in run("gc", folder, "--dry-run") and lost.exists()
    parsed = json.loads(run("gc", folder, "--json"))
    assert parsed["deleted"] and parsed["files"] == [f"shards/{lost.name}"] and not lost.exists()
    assert "all good" in run("verify", folder)


def test_decode(photo_archive: str, photo_files: dict[str, bytes], tmp_path: Path) -> None:
    said = run("decode", photo_archive, "photos/*", "wide/deep.png", "--to", tmp_path / "out")
    assert "3 pictures (1 as the original file)" in said
    assert (tmp_path / "out/photos/budgie.png").exists()
    assert (tmp_path / "out/wide/deep.png").read_bytes() == photo_files["wide/deep.png"]
    parsed = json.loads(run("decode", photo_archive, "--original", "--to", tmp_path / "originals", "--json"))
    assert (parsed["written"], parsed["left_out"], parsed["problems"]) == (2, 4, [])
    run("decode", photo_archive, "photos/*", "--to", tmp_path / "jpeg", "--format", "jpeg", "--jpeg-quality", "80")
    assert (tmp_path / "jpeg/photos/budgie.jpg").stat().st_size < 400_000


def test_decode_says_what_it_could_not_write(photo_archive: str, damaged: Path, tmp_path: Path) -> None:
    assert "alpha.png" in errors("decode", photo_archive, "--to", tmp_path / "a", "-f", "jpeg", code=1)
    assert "photos/budgie.jpg" in errors("decode", damaged, "--to", tmp_path / "b", code=1)
    run("decode", photo_archive, "grey.png", "--to", tmp_path / "c")
    assert "exists already" in errors("decode", photo_archive, "grey.png", "--to", tmp_path / "c", code=1)
    run("decode", photo_archive, "grey.png", "--to", tmp_path / "c", "--overwrite")


@pytest.mark.parametrize(
    "arguments",
    [
        ["decode", "ARCHIVE"],
        ["decode", "ARCHIVE", "--to", "OUT", "--format", "gif"],
        ["decode", "ARCHIVE", "--to", "ARCHIVE/lichen.json"],
        ["decode", "ARCHIVE", "no-such.png", "--to", "OUT"],
        ["decode", "ARCHIVE", "--to", "OUT", "--device", "abacus"],
        ["verify", "ARCHIVE", "--storage-options", "[1]"],
        ["verify", "ARCHIVE", "--storage-options", "@OUT"],
        ["report", "OUT"],
        ["ls", "OUT"],
        ["info", "ARCHIVE", "--snapshot", "7"],
        ["gc", "OUT"],
        ["gc", "ARCHIVE", "--keep-snapshots", "0"],
        ["status", "OUT"],
        ["compress", "ARCHIVE"],
        ["compress", "ARCHIVE", "OUT", "--quality", "0"],
        ["compress", "ARCHIVE", "OUT", "--local", "--address", "auto"],
        ["compress", "OUT/nothing", "OUT", "--codec", "webp", "--local"],
        ["train", "ARCHIVE", "--out", "OUT"],
        ["train", "OUT", "--out", "OUT", "--steps", "1"],
        ["train", "ARCHIVE", "--out", "OUT", "--steps", "1", "--crop", "100"],
    ],
)
def test_wrong_requests_end_with_2_and_a_line(photo_archive: str, tmp_path: Path, arguments: list[str]) -> None:
    filled = [part.replace("ARCHIVE", photo_archive).replace("OUT", str(tmp_path / "out")) for part in arguments]
    assert errors(*filled, code=2).strip()


def compress(*arguments: str | Path, code: int = 0) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(run("compress", *arguments, "--codec", "webp", "--json", code=code))
    return parsed


def test_compress_update_and_report(photo_files: dict[str, bytes], tmp_path: Path) -> None:
    source, archive = tmp_path / "source", tmp_path / "archive"
    for key, data in photo_files.items():
        (source / key).parent.mkdir(parents=True, exist_ok=True)
        (source / key).write_bytes(data)
    first = compress(source, archive, "--local")
    assert sum(first["counts"][status] for status in ("compressed", "packed", "stored")) == 6 and first["skipped_names"]
    assert set(Archive.open(str(archive))) == set(photo_files) - {"notes/credits.csv"}
    text = run("verify", archive, "--source", source, code=3)  # a text file is not in the archive
    assert "6 compared with their sources" in text and "1 source NOT in the archive" in text and "all good" not in text
    assert "keep notes/credits.csv: only skipped" in errors("verify", archive, "--source", source, code=3)

    again = compress(source, archive, "--local")
    assert again["job"] is None and again["unchanged"] == 7
    (source / "new.png").write_bytes(photo_files["grey.png"])
    text = run("compress", source, archive, "--codec", "webp", "--local")
    assert "snapshot 2" in text and "7 sources unchanged" in text
    assert "new.png" in Archive.open(str(archive))
    assert json.loads(run("report", archive, "--json"))["pictures"] == 7
    assert [job["state"] for job in json.loads(run("status", archive, "--json"))] == ["finished", "finished"]


@pytest.mark.parametrize("name", ["shards/00000.tar", "snapshots/epoch-1.pt", ".tmp/cache", "jobs/list.txt"])
def test_gc_leaves_a_data_set_that_has_folders_like_ours(
    photo_files: dict[str, bytes], tmp_path: Path, name: str
) -> None:
    """Webdataset and MosaicML layouts have ``shards/``; training jobs have ``snapshots/``."""
    theirs = tmp_path / "ds" / name
    for path, data in ((tmp_path / "ds/images/grey.png", photo_files["grey.png"]), (theirs, b"precious")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    said = errors("compress", tmp_path / "ds/images", tmp_path / "ds", "--codec", "webp", "--local", code=2)
    assert name in said and "is there already" in said and not (tmp_path / "ds/lichen.json").exists()
    theirs.rename(tmp_path / "aside")
    theirs.parent.rmdir()
    compress(tmp_path / "ds/images", tmp_path / "ds", "--local")
    theirs.parent.mkdir(exist_ok=True)
    (tmp_path / "aside").rename(theirs)
    os.utime(theirs, (1, 1))
    assert json.loads(run("gc", tmp_path / "ds", "--older-than", "0", "--keep-snapshots", "1", "--json"))["files"] == []
    assert theirs.read_bytes() == b"precious" and (tmp_path / "ds/images/grey.png").exists()
    assert "all good" in run("verify", tmp_path / "ds", "--source", tmp_path / "ds/images")


def test_compress_with_an_unreadable_source_exits_with_3(photo_files: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(photo_files["alpha.png"])
    manifest = tmp_path / "list.txt"
    manifest.write_text(f"{tmp_path}/a.png\n{tmp_path}/gone.png\n")
    arguments = ["compress", str(manifest), str(tmp_path / "archive"), "--codec", "webp", "--local"]
    result = CliRunner().invoke(build_app(), arguments)
    assert result.exit_code == 3
    assert "COULD NOT BE READ, not in the archive: 1 (" in result.stderr and "gone.png)" in result.stderr
    assert json.loads(run("report", tmp_path / "archive", "--json"))["quarantined"] == 1


def test_an_archive_on_s3(
    photo_files: dict[str, bytes], s3_url: str, s3_options: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "grey.png").write_bytes(photo_files["grey.png"])
    (tmp_path / "photo.jpg").write_bytes(photo_files["photos/budgie.jpg"])
    secrets = tmp_path / "options.json"
    secrets.write_text(json.dumps(s3_options))
    store = ["--storage-options", f"@{secrets}"]
    compress(tmp_path / "photo.jpg", tmp_path / "grey.png", s3_url, "--local", *store)
    assert run("ls", s3_url, *store).splitlines() == ["grey.png", "photo.jpg"]
    assert json.loads(run("verify", s3_url, "--json", *store))["ok"]
    report = json.loads(run("report", s3_url, "--json", *store))
    assert report["pictures"] == 2 and report["sizes"]["records"] > 0 and report["sizes"]["unneeded"] == 0
    run("decode", s3_url, "photo.jpg", "--to", tmp_path / "out", *store)
    assert (tmp_path / "out/photo.png").exists()
    assert json.loads(run("gc", s3_url, "--dry-run", "--json", *store))["files"] == []


def test_every_command_has_help() -> None:
    for name in ("compress", "decode", "verify", "report", "ls", "info", "gc", "status", "train"):
        assert "--json" in run(name, "--help")


@pytest.mark.slow
def test_compress_on_ray_as_a_person_would(data_folder: Path, tmp_path: Path) -> None:
    def lichen(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", RUN, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)

    done = lichen("compress", data_folder / "samples", tmp_path / "archive", "--codec", "webp", "--quality", "60")
    assert done.returncode == 0, done.stderr
    assert "6 compressed, 0 stored" in done.stdout and "bpp" in done.stdout
    assert "\x1b" not in done.stdout
    assert lichen("verify", tmp_path / "archive").returncode == 0
