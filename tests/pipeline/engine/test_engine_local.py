"""Whole jobs in this process: every source ends as it should, and jobs resume and update."""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from lichen.errors import (
    JobError,
    LeaseHeld,
    LeaseLost,
    TooManyFailures,
    UsageError,
)
from lichen.pipeline.archive.job import list_jobs, read_done
from lichen.pipeline.archive.lease import Lease, acquire
from lichen.pipeline.archive.marker import create_marker
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.rejects import Quarantined, read_table
from lichen.pipeline.archive.store import MemoryStore, open_store
from lichen.pipeline.engine.compress import BELOW_FLOOR, LARGER
from lichen.pipeline.engine.config import JobConfig
from lichen.pipeline.engine.driver import run_job
from lichen.pipeline.measures.quality import psnr
from lichen.pipeline.pictures.reading import read_picture

DATA = Path(__file__).parents[2] / "data"

Make = Callable[..., JobConfig]
Pictures = Callable[..., Path]
Contents = Callable[[str], dict[str, tuple[Any, ...]]]


# --- what becomes of a source ---------------------------------------------------------------------


def test_messy_files_are_compressed_stored_or_skipped(config: Make) -> None:
    job = config(DATA / "messy", shard_pictures=20, quality=75.0)
    summary = run_job(job)
    names = {path.name for path in (DATA / "messy").iterdir()}
    archive = Archive.open(job.archive)
    rows = {row.key: row for row in archive.rows()}
    assert rows.keys() | set(summary.skipped_names) == names
    assert summary.skipped_names == ("README.md",)
    assert summary.counts.sources == len(names)
    assert summary.exit_code == 0
    compressed = [row for row in rows.values() if row.status == "compressed"]
    assert len(compressed) >= 15
    for row in compressed:
        data = (DATA / "messy" / row.key).read_bytes()
        picture = read_picture(data, name=row.key)
        image = archive[row.key]
        assert (image.mode, image.size) == (picture.mode, picture.pixels.shape[1::-1]), row.key
        assert image.getexif().get(0x0112, 1) == _orientation(DATA / "messy" / row.key), row.key
        decoded = np.asarray(image.convert("RGB")) if image.mode in ("L", "RGB") else _opaque(image)
        assert psnr(picture.pixels, decoded) >= 30, row.key
        if picture.alpha is not None:
            assert np.array_equal(np.asarray(image.getchannel("A")), picture.alpha), row.key
        assert row.length + (row.side_length or 0) < row.source_bytes
    for row in rows.values():
        if row.is_original:
            assert row.reason
            assert archive.original(row.key) == (DATA / "messy" / row.key).read_bytes()


def _orientation(path: Path) -> int:
    """As Pillow sees it in the original, after loading (TIFF is then upright already)."""
    with Image.open(path) as image:
        image.load()
        with contextlib.suppress(SyntaxError):  # one of these files has garbage for EXIF
            return int(image.getexif().get(0x0112, 1))
    return 1


def _opaque(image: Image.Image) -> np.ndarray[Any, Any]:
    bands = [np.asarray(image.getchannel(band)) for band in image.getbands() if band != "A"]
    return np.stack(bands * 3 if len(bands) == 1 else bands, axis=2)


def test_floors_raise_the_quality_and_at_last_store_the_original(config: Make, pictures: Pictures) -> None:
    source = pictures(3)
    plain = config(source, quality=10, psnr_floor=0, block_psnr_floor=0)
    run_job(plain)
    base = {row.key: row.psnr for row in Archive.open(plain.archive).rows()}
    floor = max(value for value in base.values() if value is not None) + 1
    raised = config(source, plain.archive + "-raised", quality=10, psnr_floor=floor, block_psnr_floor=0)
    summary = run_job(raised)
    assert summary.counts.retries >= 3
    for row in Archive.open(raised.archive).rows():
        assert row.status == "compressed"
        assert row.quality is not None and row.quality > 10
        assert row.psnr is not None and row.psnr >= floor
    hopeless = config(source, plain.archive + "-stored", quality=10, psnr_floor=99)
    run_job(hopeless)
    assert [row.reason for row in Archive.open(hopeless.archive).rows()] == [BELOW_FLOOR] * 3


def test_the_lowest_quality_that_reaches_a_psnr(config: Make, pictures: Pictures) -> None:
    job = config(pictures(4), min_psnr=34.0, block_psnr_floor=0)
    summary = run_job(job)
    rows = list(Archive.open(job.archive).rows())
    assert all(row.status == "compressed" and row.psnr is not None and row.psnr >= 34 for row in rows)
    assert min(row.psnr or 0 for row in rows) < 35
    assert len({row.quality for row in rows}) > 1
    assert all(row.ms_ssim is None for row in rows)  # they are too small for it
    assert summary.counts.retries >= 4


def test_pictures_too_small_for_ms_ssim_are_stored_where_it_is_asked_for(config: Make, pictures: Pictures) -> None:
    """SSIMULACRA 2 they have."""
    job = config(pictures(2), min_ms_ssim=0.9)
    run_job(job)
    assert [row.reason for row in Archive.open(job.archive).rows()] == [BELOW_FLOOR] * 2


def test_the_lowest_quality_that_looks_good_enough(config: Make, pictures: Pictures) -> None:
    job = config(pictures(4), min_ssimulacra2=60.0, block_psnr_floor=0, psnr_floor=0)
    run_job(job)
    rows = list(Archive.open(job.archive).rows())
    scores = [row.ssimulacra2 or 0 for row in rows]
    assert all(row.status == "compressed" for row in rows) and min(scores) >= 60 and min(scores) < 64
    assert len({row.quality for row in rows}) > 1


@pytest.mark.parametrize("wish", [{"min_psnr": 50.0}, {"min_psnr": 20.0}, {"target_bpp": 30.0}, {"target_bpp": 0.01}])
def test_wishes_beyond_what_qualities_give(config: Make, pictures: Pictures, wish: dict[str, float]) -> None:
    job = config(pictures(2), psnr_floor=0, block_psnr_floor=0, **wish)
    assert run_job(job).counts.sources == 2
    for row in Archive.open(job.archive).rows():
        assert row.is_original or (row.psnr or 0) >= wish.get("min_psnr", 0)


def test_bits_per_pixel(config: Make, pictures: Pictures) -> None:
    job = config(pictures(4), target_bpp=1.5, psnr_floor=0, block_psnr_floor=0)
    run_job(job)
    rows = list(Archive.open(job.archive).rows())
    assert all(row.status == "compressed" and row.bpp is not None and row.bpp <= 1.5 for row in rows)
    assert max(row.bpp or 0 for row in rows) > 1.3
    with pytest.raises(UsageError, match="not for both"):
        config("x", target_bpp=1.0, min_psnr=30.0)


def test_effort_saves_bytes(config: Make, pictures: Pictures, tmp_path: Path) -> None:
    source = pictures(3)
    jobs = [config(source, f"{tmp_path}/effort-{effort}", codec="jxl", effort=effort, quality=60) for effort in (1, 7)]
    sizes = [run_job(job).counts.payload_bytes for job in jobs]
    assert sizes[0] != sizes[1]
    with pytest.raises(UsageError, match="effort"):
        config(source, effort=10)


def test_what_does_not_shrink_is_kept(config: Make, pictures: Pictures, tmp_path: Path) -> None:
    source = pictures(2)
    Image.open(source / "000.png").save(source / "000.jpg", quality=15)
    job = config(source, quality=95, shard_pictures=10)
    summary = run_job(job)
    row = Archive.open(job.archive).row("000.jpg")
    assert (row.status, row.reason, row.width, row.mode) == ("packed", LARGER, 96, "RGB")
    assert (summary.counts.compressed, summary.counts.packed, summary.counts.stored) == (2, 1, 0)
    assert summary.counts.payload_bytes < summary.counts.source_bytes


def test_unreadable_sources_are_quarantined_and_tried_again(config: Make, pictures: Pictures, tmp_path: Path) -> None:
    source = pictures(2)
    manifest = tmp_path / "list.txt"
    manifest.write_text("pictures/000.png\npictures/none.png\nweird://x/y.png\npictures/001.png\n")
    job = config(manifest)
    summary = run_job(job)
    assert summary.counts.quarantined == 2
    assert set(summary.quarantined_names) == {"pictures/none.png", "x/y.png"}
    assert summary.exit_code == 3
    assert set(Archive.open(job.archive)) == {"pictures/000.png", "pictures/001.png"}
    store = open_store(job.archive)
    tables = [entry.path for entry in store.entries("jobs") if "/quarantine/" in entry.path]
    rows = [row for path in tables for row in read_table(store, path, Quarantined).to_pylist()]
    assert {row["key"]: row["error"] for row in rows}["pictures/none.png"] == "SourceUnreadable"
    shutil.copy(source / "000.png", source / "none.png")
    again = run_job(job)
    assert again.counts.compressed == 1
    assert "pictures/none.png" in Archive.open(job.archive)


def test_what_is_no_picture_is_skipped_or_stored(config: Make, pictures: Pictures) -> None:
    source = pictures(1)
    (source / "notes.txt").write_text("nothing to see")
    (source / "empty.bin").write_bytes(b"")
    job = config(source)
    summary = run_job(job)
    assert set(summary.skipped_names) == {"notes.txt", "empty.bin"}
    assert run_job(job).job is None  # skipped files are not new
    stored = config(source, job.archive + "-all", store_others=True)
    assert run_job(stored).counts.stored == 2
    archive = Archive.open(stored.archive)
    assert archive.original("notes.txt") == b"nothing to see"
    assert archive.original("empty.bin") == b""


@pytest.mark.parametrize(("codec", "reason"), [("test-fails", "codec failed"), ("test-lies", "verification failed")])
def test_a_codec_that_fails_on_one_picture(
    config: Make, pictures: Pictures, plugin: str, codec: str, reason: str
) -> None:
    source = pictures(5, hurtful=(2,))
    job = config(source, codec=codec, shard_pictures=5)
    summary = run_job(job)
    assert (summary.counts.compressed, summary.counts.stored) == (4, 1)
    archive = Archive.open(job.archive)
    row = archive.row("002.png")
    assert row.reason is not None and row.reason.startswith(reason)
    assert archive.original("002.png") == (source / "002.png").read_bytes()


def test_a_codec_that_always_fails_stops_the_job(config: Make, pictures: Pictures, plugin: str) -> None:
    source = pictures(12, hurtful=tuple(range(12)))
    with pytest.raises(TooManyFailures, match="a kernel failed"):
        run_job(config(source, codec="test-fails", shard_pictures=12))


def test_large_pictures_go_alone(config: Make, pictures: Pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lichen.pipeline.engine.feed.LARGE_PIXELS", 90 * 80)
    source = pictures(9, hurtful=(1, 4, 5))  # those are the small ones here
    job = config(source, shard_pictures=9)
    assert run_job(job).counts.compressed == 9


def test_archive_in_memory(config: Make, pictures: Pictures) -> None:
    job = config(pictures(3), f"memory://{uuid.uuid4().hex}")
    assert run_job(job).counts.compressed == 3
    assert len(Archive.open(job.archive)) == 3


def test_from_a_bucket_into_a_bucket(
    config: Make, pictures: Pictures, s3_url: str, s3_options: dict[str, Any], contents: Contents
) -> None:
    source = pictures(5)
    local = config(source)
    run_job(local)
    file_system = fsspec.filesystem("s3", **s3_options)
    file_system.put(str(source) + "/", f"{s3_url}/pictures/", recursive=True)
    job = config(f"{s3_url}/pictures", f"{s3_url}/archive", source_options=s3_options, archive_options=s3_options)
    assert run_job(job).counts.compressed == 5
    archive = Archive.open(job.archive, s3_options)
    assert {row.key: row.symbols_digest for row in archive.rows()} == {
        key: values[5] for key, values in contents(local.archive).items()
    }
    assert run_job(job).job is None  # sizes and ETags are as they were


def test_the_driver_commits_where_creates_are_not_atomic(
    config: Make, pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    def probe(store: MemoryStore) -> bool:
        store.conditional = False
        return False

    monkeypatch.setattr(MemoryStore, "probe", probe)
    job = config(pictures(6), f"memory://{uuid.uuid4().hex}")
    assert run_job(job).counts.compressed == 6
    assert len(Archive.open(job.archive)) == 6
    with acquire(open_store(job.archive), None), pytest.raises(LeaseHeld):  # one driver for the whole archive
        run_job(job)

    def lost(_lease: Lease, *, renewing: bool = False) -> None:
        if not renewing:
            raise LeaseLost("another driver took over")

    monkeypatch.setattr(Lease, "check", lost)
    with pytest.raises(LeaseLost):
        run_job(config(pictures(2, name="more"), job.archive, on_collision="replace"))


def test_commits_that_went_elsewhere_are_no_commits(
    config: Make, pictures: Pictures, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is not shared: on the worker's machine another archive lies under the same name."""
    from lichen.pipeline.engine import worker

    elsewhere = str(tmp_path / "elsewhere")
    job = config(pictures(4))
    with monkeypatch.context() as patch:
        patch.setattr(worker, "open_store", lambda _url, *rest, **named: open_store(elsewhere, *rest, **named))
        with pytest.raises(UsageError, match="all nodes share"):
            run_job(job)
        create_marker(open_store(elsewhere))
        with pytest.raises(JobError, match="one and the same archive"):
            run_job(job)
    (name,) = list_jobs(open_store(job.archive))
    assert read_done(open_store(job.archive), name) is None
    assert Archive.open(job.archive).snapshot is None
    assert run_job(job).counts.compressed == 4
    assert len(Archive.open(job.archive)) == 4


@pytest.mark.parametrize("name", ["ms_ssim", "ssimulacra2"])
def test_costly_measures_are_sampled(config: Make, name: str) -> None:
    some = config(DATA / "samples", store_plain=True, **{name: 0.5})
    run_job(some)
    rows = list(Archive.open(some.archive).rows())
    assert 0 < sum(getattr(row, name) is not None for row in rows) < len(rows)
    assert all(row.ms_ssim is not None or row.ssimulacra2 is not None for row in rows)  # the other one of all
