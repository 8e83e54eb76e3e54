"""The report, against sums made by hand from the archive's rows and files."""

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.report import Report, make_report
from lichen.pipeline.tally import spread


@pytest.fixture(scope="module")
def report(photo_archive: str) -> Report:
    return make_report(Archive.open(photo_archive))


def folder_bytes(folder: str) -> int:
    return sum(os.path.getsize(Path(parent) / name) for parent, _, names in os.walk(folder) for name in names)


def test_every_byte_of_the_folder_is_counted(report: Report, photo_archive: str) -> None:
    assert report.sizes.total + report.sizes.unneeded == folder_bytes(photo_archive)
    assert report.sizes.dead == report.sizes.unneeded == 0
    rows = list(Archive.open(photo_archive).rows())
    assert report.sizes.payloads == sum(row.length for row in rows)
    assert report.sizes.side_data == sum(row.side_length or 0 for row in rows) > 0
    assert report.sizes.weights == folder_bytes(f"{photo_archive}/codecs") > 0


def test_savings_bpp_and_the_size_that_repays_the_weights(report: Report, photo_files: dict[str, bytes]) -> None:
    before = sum(len(data) for key, data in photo_files.items() if key != "notes/credits.csv")
    saved, weights = report.savings, report.sizes.weights
    assert saved.source_bytes == before and saved.archive_bytes == report.sizes.total
    assert saved.savings == pytest.approx(1 - report.sizes.total / before)
    assert saved.savings_without_weights == pytest.approx(1 - (report.sizes.total - weights) / before)
    # At that size, what is saved pays for the weights.
    assert saved.repaid_after_bytes is not None and saved.savings_without_weights is not None
    assert saved.repaid_after_bytes * saved.savings_without_weights == pytest.approx(weights, rel=0.02)
    assert saved.repaid_after_pictures == 1

    unknown = len(photo_files["wide/deep.png"]) + len(photo_files["wide/cut.jpg"])
    assert report.unknown_size == 2
    assert saved.bpp_before == pytest.approx(8 * (before - unknown) / report.pixels)
    assert saved.bpp_after == pytest.approx(8 * (report.sizes.total - unknown) / report.pixels)


def test_groups_add_up_and_are_right(report: Report, photo_files: dict[str, bytes]) -> None:
    assert (report.pictures, report.compressed, report.stored) == (6, 4, 2)
    for groups in (report.by_status, report.by_format):
        assert sum(group.pictures for group in groups) == 6
        assert sum(group.source_bytes for group in groups) == report.savings.source_bytes
        assert sum(group.bytes for group in groups) == report.sizes.payloads + report.sizes.side_data
    formats = {group.name: group for group in report.by_format}
    assert formats["JPEG"].source_bytes == sum(
        len(photo_files[key]) for key in ("photos/budgie.jpg", "photos/rotated.jpg")
    )
    assert formats["unknown"].pictures == 2 and formats["unknown"].psnr is None and formats["unknown"].savings == 0
    assert [group.name for group in report.by_size] == ["under 0.1 MP", "0.1 to 1 MP"]
    assert [(group.name, group.pictures) for group in report.by_quality] == [("75", 4)]
    assert [(codec.name, codec.pictures) for codec in report.codecs] == [("webp", 4)]


def test_quality_and_the_worst(report: Report, photo_archive: str) -> None:
    rows = [row for row in Archive.open(photo_archive).rows() if row.psnr is not None]
    lowest = sorted(rows, key=lambda row: row.psnr or 0)
    assert [one.key for one in report.worst] == [row.key for row in lowest]
    assert report.worst[0].block_psnr == pytest.approx(lowest[0].block_psnr)
    assert report.psnr.count == 4 and report.psnr.minimum == pytest.approx(lowest[0].psnr)
    assert report.psnr.mean == pytest.approx(np.mean([row.psnr for row in rows if row.psnr is not None]))
    assert report.psnr.percentiles["p50"] == pytest.approx(lowest[1].psnr)
    assert report.ms_ssim.count == sum(row.ms_ssim is not None for row in rows) == 1
    assert [one.key for one in make_report(Archive.open(photo_archive), worst=1).worst] == [lowest[0].key]


def test_percentiles_are_values_that_occur_and_exact_pictures_are_counted() -> None:
    found = spread([np.array([40, math.inf, 30], np.float32), np.array([20, 50], np.float32)])
    assert (found.count, found.exact, found.minimum, found.mean) == (5, 1, 20, 35)
    assert found.percentiles == {"p1": 20, "p5": 20, "p25": 30, "p50": 40, "p75": 50, "p95": None}
    assert spread([]).percentiles["p50"] is None


def test_reasons_and_names(report: Report) -> None:
    stored = {reason.reason: reason.keys for reason in report.stored_reasons}
    assert stored["a PNG of 16 bits a sample"] == ("wide/deep.png",)
    assert sum(reason.count for reason in report.stored_reasons) == 2
    assert report.quarantined == 1
    assert report.quarantine_reasons[0].reason == "SourceUnreadable: no such file"
    assert report.quarantine_reasons[0].keys == ("gone.jpg",)
    assert report.skipped == 1 and report.skip_reasons[0].keys == ("notes/credits.csv",)


def test_json_holds_the_derived_numbers(report: Report) -> None:
    parsed = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert parsed["sizes"]["total"] == report.sizes.total
    assert parsed["by_status"][0]["savings"] == pytest.approx(report.by_status[0].savings)
    assert parsed["psnr"]["percentiles"]["p50"] == report.psnr.percentiles["p50"]


def test_a_second_job_replaces_rejects_and_leaves_dead_bytes(
    photo_archive: str, photo_files: dict[str, bytes], write_archive: Callable[..., str], tmp_path: Path
) -> None:
    url = str(tmp_path / "archive")
    shutil.copytree(photo_archive, url)
    again = {"gone.jpg": photo_files["photos/budgie.jpg"], "photos/rotated.jpg": photo_files["grey.png"]}
    write_archive(url, again, quality=50.0)
    report = make_report(Archive.open(url))
    assert report.quarantined == 0 and report.skipped == 1
    assert report.pictures == 7 and [group.name for group in report.by_quality] == ["50", "75"]
    assert report.sizes.dead > 0 and report.sizes.unneeded > 0
    assert report.sizes.total + report.sizes.unneeded == folder_bytes(url)


def test_keys_are_bounded(photo_files: dict[str, bytes], write_archive: Callable[..., str], tmp_path: Path) -> None:
    deep = photo_files["wide/deep.png"]
    many = {f"{number:03d}.png": deep for number in range(30)} | {"notes.txt": b"words"}
    url = write_archive(tmp_path / "archive", many, unreadable={f"x{number:03d}": "gone" for number in range(30)})
    report = make_report(Archive.open(url), named=3)
    assert [(one.count, one.keys) for one in report.stored_reasons] == [(30, ("000.png", "001.png", "002.png"))]
    assert report.quarantined == 30 and report.quarantine_reasons[0].keys == ("x000", "x001", "x002")
    assert report.savings.bpp_before is None and report.psnr.count == 0


def test_an_empty_archive_has_a_report(tmp_path: Path) -> None:
    report = make_report(Archive.create(str(tmp_path / "archive")))
    assert report.pictures == 0 and report.savings.savings is None and report.snapshot is None
    json.dumps(report.to_json(), allow_nan=False)


def test_files_of_the_users_in_the_same_folder_are_not_counted(photo_archive: str, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    shutil.copytree(photo_archive, folder)
    before = make_report(Archive.open(str(folder))).sizes
    for name in ("photos/a.jpg", "shards/00000.tar", "jobs/notes.txt", "snapshots/epoch-1.pt", "codecs/video.mp4"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(bytes(100_000))
    assert make_report(Archive.open(str(folder))).sizes == before
