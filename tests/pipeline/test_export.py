"""Pictures back into files: formats, side data, names, and keys that try to leave the folder."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lichen.errors import UsageError
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.export import Destination, ExportResult, export
from lichen.pipeline.select import select


def export_all(url: str, folder: Path, *patterns: str, **options: object) -> ExportResult:
    archive = Archive.open(url)
    return export(archive, select(archive, patterns), folder, **options)  # type: ignore[arg-type]


def files_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def png(shade: int = 0) -> bytes:
    buffer = io.BytesIO()
    pixels = (np.add.outer(np.arange(48), np.arange(64)) * 2 + shade).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=0)
    return buffer.getvalue()


def test_everything_in_its_folder_and_mode(
    photo_archive: str, photo_files: dict[str, bytes], data_folder: Path, tmp_path: Path
) -> None:
    result = export_all(photo_archive, tmp_path)
    assert (result.written, result.originals, result.left_out, result.problems) == (6, 2, 0, ())
    assert files_below(tmp_path) == {
        "photos/budgie.png",
        "photos/rotated.png",
        "grey.png",
        "alpha.png",
        "wide/deep.png",
        "wide/cut.jpg",
    }
    assert result.bytes == sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    for key in ("wide/deep.png", "wide/cut.jpg"):
        assert (tmp_path / key).read_bytes() == photo_files[key]

    with Image.open(tmp_path / "grey.png") as grey:
        assert grey.mode == "L" and grey.size == (256, 10)
    with Image.open(tmp_path / "alpha.png") as alpha, Image.open(io.BytesIO(photo_files["alpha.png"])) as source:
        assert alpha.mode == "RGBA" and np.array_equal(np.asarray(alpha)[:, :, 3], np.asarray(source)[:, :, 3])
    with (
        Image.open(tmp_path / "photos/rotated.png") as rotated,
        Image.open(io.BytesIO(photo_files["photos/rotated.jpg"])) as source,
    ):
        assert rotated.size == source.size
        assert rotated.getexif()[274] == source.getexif()[274] == 6
        difference = np.asarray(rotated).astype(int) - np.asarray(source.convert("RGB")).astype(int)
        assert 0 < np.abs(difference).mean() < 6


def test_jpeg_keeps_exif_and_refuses_to_drop_alpha(photo_archive: str, tmp_path: Path) -> None:
    result = export_all(photo_archive, tmp_path, file_format="jpeg", quality=90)
    assert [problem.key for problem in result.problems] == ["alpha.png"]
    assert "RGBA" in result.problems[0].message
    assert files_below(tmp_path) >= {"photos/budgie.jpg", "photos/rotated.jpg", "grey.jpg"}
    with Image.open(tmp_path / "photos/rotated.jpg") as rotated:
        assert rotated.format == "JPEG" and rotated.getexif()[274] == 6


def test_icc_profiles_come_back(write_archive: Callable[..., str], data_folder: Path, tmp_path: Path) -> None:
    data = (data_folder / "messy/pil_icc-after-SOF.jpg").read_bytes()
    with Image.open(io.BytesIO(data)) as source:
        profile = source.info["icc_profile"]
    url = write_archive(tmp_path / "archive", {"a.jpg": data})
    for file_format, name in (("png", "a.png"), ("jpeg", "a.jpg")):
        assert export_all(url, tmp_path, file_format=file_format).written == 1
        with Image.open(tmp_path / name) as image:
            assert image.info["icc_profile"] == profile


def test_only_originals(photo_archive: str, photo_files: dict[str, bytes], tmp_path: Path) -> None:
    result = export_all(photo_archive, tmp_path, file_format="original")
    assert (result.written, result.originals, result.left_out) == (2, 2, 4)
    assert files_below(tmp_path) == {"wide/deep.png", "wide/cut.jpg"}


def test_keys_cannot_leave_the_folder(write_archive: Callable[..., str], tmp_path: Path) -> None:
    keys = ("../up.png", "/etc/abs.png", "a/../../b.png", "..", "./c.png", "a//d.png", "e\nf\x00.png", "../../g.jpg")
    url = write_archive(tmp_path / "archive", {key: png(number) for number, key in enumerate(keys)})
    folder = tmp_path / "deep" / "out"
    before = files_below(tmp_path)
    result = export_all(url, folder)
    assert (result.written, result.problems) == (len(keys), ())
    assert files_below(tmp_path) - before == {
        "deep/out/%2E%2E/up.png",
        "deep/out/%/etc/abs.png",
        "deep/out/a/%2E%2E/%2E%2E/b.png",
        "deep/out/%2E%2E.png",
        "deep/out/%2E/c.png",
        "deep/out/a/%/d.png",
        "deep/out/e%0Af%00.png",
        "deep/out/%2E%2E/%2E%2E/g.png",
    }


def test_stored_keys_cannot_leave_the_folder_either(write_archive: Callable[..., str], tmp_path: Path) -> None:
    broken = b"\xff\xd8\xff no picture"
    url = write_archive(tmp_path / "archive", {"../evil.jpg": broken, "x/..": broken})
    before = files_below(tmp_path)
    result = export_all(url, tmp_path / "out")
    assert (result.written, result.originals) == (2, 2)
    assert files_below(tmp_path) - before == {"out/%2E%2E/evil.jpg", "out/x/%2E%2E"}


def test_a_link_in_the_way_is_replaced_and_not_followed(write_archive: Callable[..., str], tmp_path: Path) -> None:
    url = write_archive(tmp_path / "archive", {"a.png": png()})
    secret = tmp_path / "secret"
    secret.write_bytes(b"keep")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.png").symlink_to(secret)
    assert export_all(url, tmp_path / "out", overwrite=True).written == 1
    assert secret.read_bytes() == b"keep" and not (tmp_path / "out/a.png").is_symlink()


def test_equal_stems_do_not_overwrite_each_other(write_archive: Callable[..., str], tmp_path: Path) -> None:
    url = write_archive(tmp_path / "archive", {"a.jpg": png(0), "a.webp": png(40), "b/a.png": png(80)})
    assert export_all(url, tmp_path / "out").written == 3
    assert files_below(tmp_path / "out") == {"a.png", "a.webp.png", "b/a.png"}
    both = write_archive(tmp_path / "both", {"a.jpg": png(0), "a.png": png(40)})
    assert export_all(both, tmp_path / "two").written == 2
    assert files_below(tmp_path / "two") == {"a.png", "a.jpg.png"}
    with Image.open(tmp_path / "two/a.png") as image:
        assert np.asarray(image).mean() > 100  # the one whose name it is


def test_what_a_format_cannot_hold_is_a_problem_of_one_picture(
    write_archive: Callable[..., str], tmp_path: Path
) -> None:
    buffer = io.BytesIO()
    pixels = (np.add.outer(np.arange(48), np.arange(64)) * 2).astype(np.uint8)
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, xmp=b"<x>" + b"y" * 70_000)
    url = write_archive(tmp_path / "archive", {"a.webp": buffer.getvalue(), "b.png": png(40)})
    result = export_all(url, tmp_path / "out", file_format="jpeg")
    rows = {row.key: row.status for batch in select(Archive.open(url), []) for row in batch}
    assert rows["a.webp"] == "compressed"
    assert result.written == 1 and [problem.key for problem in result.problems] == ["a.webp"]


def test_files_that_exist_stay_unless_told(photo_archive: str, tmp_path: Path) -> None:
    (tmp_path / "grey.png").write_bytes(b"mine")
    result = export_all(photo_archive, tmp_path)
    assert result.written == 5 and [problem.key for problem in result.problems] == ["grey.png"]
    assert (tmp_path / "grey.png").read_bytes() == b"mine"
    assert export_all(photo_archive, tmp_path, overwrite=True).written == 6
    assert (tmp_path / "grey.png").read_bytes().startswith(b"\x89PNG")


def test_a_key_that_is_a_file_and_a_folder_is_a_problem(write_archive: Callable[..., str], tmp_path: Path) -> None:
    url = write_archive(tmp_path / "archive", {"a.png": png(), "a.png/b.png": png(50), f"{'x' * 250}/ok.png": png(90)})
    result = export_all(url, tmp_path / "out")
    assert result.written == 2 and len(result.problems) == 1
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_names_that_are_too_long_are_a_problem(write_archive: Callable[..., str], tmp_path: Path) -> None:
    url = write_archive(tmp_path / "archive", {f"{'x' * 300}.png": png(), "ok.png": png(50)})
    result = export_all(url, tmp_path / "out")
    assert result.written == 1 and "too long" in result.problems[0].message


def test_one_damaged_picture_does_not_stop_the_others(photo_archive: str, tmp_path: Path) -> None:
    url = tmp_path / "archive"
    shutil.copytree(photo_archive, url)
    row = Archive.open(str(url)).row("photos/budgie.jpg")
    path = url / "shards" / row.shard
    data = bytearray(path.read_bytes())
    data[row.offset + 100] ^= 1
    path.write_bytes(data)
    result = export_all(str(url), tmp_path / "out")
    assert result.written == 5 and [problem.key for problem in result.problems] == ["photos/budgie.jpg"]


def test_selection(photo_archive: str) -> None:
    archive = Archive.open(photo_archive)

    def keys(*patterns: str) -> list[str]:
        return [row.key for batch in select(archive, patterns) for row in batch]

    everything = ["alpha.png", "grey.png", "photos/budgie.jpg", "photos/rotated.jpg", "wide/cut.jpg", "wide/deep.png"]
    assert keys() == keys("*") == keys("*", "grey.png") == everything
    assert keys("*.png") == ["alpha.png", "grey.png", "wide/deep.png"]
    assert keys("grey.png", "alpha.png", "grey.png") == ["grey.png", "alpha.png"]
    assert keys("photos/?udgie.*", "grey.png") == ["grey.png", "photos/budgie.jpg"]
    assert keys("[ag]*.png") == ["alpha.png", "grey.png"]
    for wrong in ("GREY.png", "nothing/*"):
        with pytest.raises(UsageError, match="has no picture"):
            keys(wrong)


def test_a_key_that_looks_like_a_glob_is_itself(write_archive: Callable[..., str], tmp_path: Path) -> None:
    url = write_archive(tmp_path / "archive", {"a[1].png": png(), "a1.png": png(50)})
    archive = Archive.open(url)
    assert [row.key for batch in select(archive, ["a[1].png"]) for row in batch] == ["a[1].png"]


def test_destination_takes_a_name_once(tmp_path: Path) -> None:
    destination = Destination(tmp_path, overwrite=False)
    assert destination.path("x.JPEG", "jpeg") == tmp_path / "x.JPEG"
    assert destination.path("x.png", "jpeg") == tmp_path / "x.jpg"
    assert destination.path("x.gif", "jpeg") == tmp_path / "x.gif.jpg"
    with pytest.raises(UsageError, match=r"another picture.* another folder for --to"):
        destination.path("x.gif", "jpeg")
