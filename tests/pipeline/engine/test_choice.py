"""``--codec auto``: the look, the choice among real codecs, and whole jobs of mixed folders."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lab.graphics import KINDS
from lichen import defaults
from lichen.errors import JobInterrupted, UsageError
from lichen.models.codec import Codec, Encoded, Pixels
from lichen.models.registry import load_codec
from lichen.pipeline.archive.codecs import codec_name
from lichen.pipeline.archive.gc import collect
from lichen.pipeline.archive.job import list_jobs, read_job
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.engine.choice import Choice
from lichen.pipeline.engine.compress import BELOW_FLOOR, LARGER, Compressed, Kept, Stopwatch
from lichen.pipeline.engine.config import JobConfig, Shares
from lichen.pipeline.engine.driver import run_job
from lichen.pipeline.engine.feed import Item
from lichen.pipeline.engine.look import look_at
from lichen.pipeline.export import export
from lichen.pipeline.images import read_picture
from lichen.pipeline.quality import measure
from lichen.pipeline.side import apply_side
from lichen.pipeline.sources import Source
from lichen.pipeline.target import Floors, Target
from lichen.pipeline.verify import verify_archive

DATA = Path(__file__).parents[2] / "data"
Make = Callable[..., JobConfig]


def photograph() -> Pixels:
    with Image.open(DATA / "kodak" / "kodim05.png") as image:
        return np.asarray(image.convert("RGB"))[100:292, 200:456]


def graphic(name: str, seed: int = 1) -> Pixels:
    pixels = KINDS[name](np.random.default_rng(seed), photograph())
    return np.ascontiguousarray(pixels[:240, :320])


def item(pixels: Pixels, *, size: int | None = None) -> Item:
    """A picture as it comes out of the feed, of a PNG file, or of one that is said to have ``size`` bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    data = buffer.getvalue() if size is None else bytes(size)
    return Item(source=Source(key="a", uri="/a", size=len(data)), data=data, picture=read_picture(buffer.getvalue()))


def choice(first: str | Codec = "webp", rivals: Sequence[str] = ("avif", "webp-lossless"), **target: Any) -> Choice:
    codec = load_codec(first) if isinstance(first, str) else first
    shares = Shares(ms_ssim=0, ssimulacra2=0)
    return Choice(codec, [load_codec(name) for name in rivals], target=Target(**target), shares=shares)


def names(outcome: Compressed | Kept) -> str:
    assert isinstance(outcome, Compressed)
    known = {load_codec(name).digest: name for name in ("webp", "avif", "jxl", "webp-lossless", "jxl-lossless")}
    return known[outcome.codec]


def decoded(outcome: Compressed | Kept) -> Pixels:
    assert isinstance(outcome, Compressed)
    pixels = load_codec(names(outcome)).decode([outcome.payload])[0].pixels
    return apply_side(pixels, outcome.side)[0]


# --- the look ---------------------------------------------------------------------------------------


def test_photographs_look_like_photographs() -> None:
    for path in sorted((DATA / "kodak").glob("*.png")) + sorted((DATA / "samples").glob("*.jpg")):
        assert look_at(read_picture(path.read_bytes()).pixels).photograph, path.name


@pytest.mark.parametrize("name", sorted(KINDS))
def test_graphics_do_not_but_for_scans(name: str) -> None:
    assert look_at(KINDS[name](np.random.default_rng(4), photograph())).photograph is (name == "scan")


def test_shades_without_flat_squares_and_tiny_pictures() -> None:
    steps = np.repeat(np.arange(256, dtype=np.uint8), 6)
    shades = np.repeat(np.add.outer(steps[:300] // 2, steps[:400] // 2)[:, :, None], 3, axis=2)
    assert not look_at(shades).photograph
    assert not look_at(np.zeros((1, 1, 3), np.uint8)).photograph


# --- the choice -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["page", "drawing", "plot-lines", "set-page"])
def test_the_smallest_that_is_no_worse(name: str) -> None:
    picture = graphic(name)
    [alone] = choice(rivals=(), quality=75.0).compress([item(picture)], Stopwatch())
    [chosen] = choice(quality=75.0).compress([item(picture)], Stopwatch())
    assert isinstance(alone, Compressed) and isinstance(chosen, Compressed)
    assert chosen.size <= alone.size
    first, best = measure(picture, decoded(alone)), measure(picture, decoded(chosen))
    assert first.ssimulacra2 is not None and best.ssimulacra2 is not None
    assert best.ssimulacra2 >= first.ssimulacra2
    assert best.block_psnr >= min(first.block_psnr, 60.0)
    assert best == chosen.measured


def test_lossless_where_it_is_smallest_and_the_first_of_equals() -> None:
    drawing = graphic("drawing")
    [chosen] = choice(quality=90.0).compress([item(drawing)], Stopwatch())
    assert names(chosen) == "webp-lossless"
    assert np.array_equal(decoded(chosen), drawing)
    assert isinstance(chosen, Compressed) and (chosen.side, chosen.quality) == (b"", 100.0)
    [same] = choice("webp-lossless", ("webp-lossless",), quality=90.0).compress([item(drawing)], Stopwatch())
    assert isinstance(same, Compressed) and same.payload == chosen.payload


def test_photographs_get_the_first_codec_alone() -> None:
    [chosen] = choice(quality=50.0).compress([item(photograph())], Stopwatch())
    assert names(chosen) == "webp"
    assert isinstance(chosen, Compressed) and chosen.retries == 0


def test_a_photograph_below_its_floors_may_reach_them_with_another() -> None:
    picture = photograph()
    floors = Floors(psnr=44.0, block_psnr=0.0)
    [alone] = choice(rivals=(), quality=80.0, floors=floors).compress([item(picture)], Stopwatch())
    assert isinstance(alone, Kept) and alone.reason == BELOW_FLOOR
    [chosen] = choice(quality=80.0, floors=floors).compress([item(picture)], Stopwatch())
    assert measure(picture, decoded(chosen)).psnr >= 44.0


def test_wishes_hold_for_whichever_codec() -> None:
    page = graphic("page")
    wish = Floors(psnr=0, block_psnr=0, ssimulacra2=60.0)
    [seen] = choice(rivals=("avif", "jxl"), floors=wish, lowest=True).compress([item(page)], Stopwatch())
    score = measure(page, decoded(seen)).ssimulacra2
    assert score is not None and 60.0 <= score < 75.0
    [small] = choice(bpp=1.5, floors=Floors(psnr=0, block_psnr=0)).compress([item(page)], Stopwatch())
    [alone] = choice(rivals=(), bpp=1.5, floors=Floors(psnr=0, block_psnr=0)).compress([item(page)], Stopwatch())
    assert isinstance(small, Compressed) and 8 * small.size <= 1.5 * page.shape[0] * page.shape[1]
    assert isinstance(alone, Compressed)
    assert measure(page, decoded(small)).psnr >= measure(page, decoded(alone)).psnr


def test_nothing_is_kept_that_is_as_large_as_its_source() -> None:
    page = graphic("page")
    [chosen] = choice(quality=75.0).compress([item(page)], Stopwatch())
    assert isinstance(chosen, Compressed)
    [kept] = choice(quality=75.0).compress([item(page, size=chosen.size)], Stopwatch())
    assert isinstance(kept, Kept) and kept.reason == LARGER
    [fits] = choice(quality=75.0).compress([item(page, size=chosen.size + 1)], Stopwatch())
    assert isinstance(fits, Compressed) and fits.payload == chosen.payload


class Broken:
    """WebP that encodes nothing."""

    lossless, quality_step, batch_pixels, runs_on = False, 1.0, 1 << 19, None

    def __init__(self) -> None:
        self._codec = load_codec("webp")
        self.name, self.digest = "broken", hashlib.sha256(b"broken").hexdigest()
        self.decode, self.decoder_files = self._codec.decode, self._codec.decoder_files

    def encode(self, images: Sequence[Pixels], quality: float | Sequence[float], *, effort: int = 3) -> list[Encoded]:
        raise RuntimeError("a kernel failed")


def test_where_the_first_fails_another_may_not() -> None:
    pictures = [item(photograph()), item(graphic("page"))]
    chosen = choice(Broken(), quality=90.0).compress(pictures, Stopwatch())
    assert {names(outcome) for outcome in chosen} <= {"avif", "webp-lossless"}


# --- jobs -------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A mixed folder: photographs, a page, a drawing, a photograph on white with alpha, a note."""
    source = tmp_path / "mixed"
    source.mkdir()
    Image.fromarray(photograph()).save(source / "photo.png")
    Image.fromarray(photograph()[::-1]).save(source / "photo.jpg", quality=97)
    for name in ("page", "drawing"):
        Image.fromarray(graphic(name)).save(source / f"{name}.png", compress_level=1)
    product = Image.fromarray(KINDS["product"](np.random.default_rng(1), photograph()))
    product.putalpha(200)
    product.save(source / "product.png")
    (source / "note.txt").write_text("nothing to see")
    return source


def _codecs(archive: Archive) -> dict[str, str | None]:
    return {row.key: codec_name(archive.store, row.codec) if row.codec else None for row in archive.rows()}


def test_a_mixed_folder_end_to_end(config: Make, folder: Path, tmp_path: Path) -> None:
    job = config(folder, codec="auto", shard_pictures=2, lanes=1)
    stop = threading.Event()
    with pytest.raises(JobInterrupted):
        run_job(job, lambda progress: stop.set() if progress.shards_done else None, stop=stop)
    assert run_job(job).resumed
    archive = Archive.open(job.archive)
    found = _codecs(archive)
    assert found.keys() == {"photo.png", "photo.jpg", "page.png", "drawing.png", "product.png"}
    assert found["photo.png"] == defaults.CODEC
    assert found["drawing.png"] == "webp-lossless"
    [frozen] = [read_job(archive.store, name) for name in list_jobs(archive.store)]
    assert frozen.config["codec"] == "auto"
    assert set(frozen.codecs) == {load_codec(name).digest for name in defaults.CHOICE}
    assert set(archive.info().codecs) == {row.codec for row in archive.rows() if row.codec}
    assert np.array_equal(np.asarray(archive["drawing.png"]), graphic("drawing"))
    product = np.asarray(archive["product.png"])
    assert (product[:16, :, :3] == 255).all()
    assert (product[:, :, 3] == 200).all()
    assert verify_archive(archive, source=str(folder)).ok

    Image.fromarray(graphic("screen")).save(folder / "screen.png", compress_level=1)
    again = run_job(job)
    assert (again.counts.compressed, again.counts.sources) == (1, 1)
    assert run_job(job).job is None
    collect(archive.store, older_than=0)
    archive = Archive.open(job.archive)
    assert verify_archive(archive, source=str(folder)).ok
    out = tmp_path / "out"
    assert export(archive, [list(archive.rows())], out).problems == ()
    for key in ("page.png", "screen.png", "photo.png"):
        with Image.open(out / key) as image, Image.open(folder / key) as source:
            assert measure(np.asarray(source), np.asarray(image)).psnr > 30


def test_an_archive_of_drawings_needs_no_weights(config: Make, tmp_path: Path) -> None:
    (tmp_path / "drawings").mkdir()
    for seed in range(2):
        Image.fromarray(graphic("drawing", seed)).save(tmp_path / "drawings" / f"{seed}.png", compress_level=1)
    job = config(tmp_path / "drawings", codec="auto")
    run_job(job)
    archive = Archive.open(job.archive)
    assert archive.info().codecs == (load_codec("webp-lossless").digest,)
    assert archive.info().codec_bytes < 100
    (Path(job.archive) / "codecs" / f"{load_codec(defaults.CODEC).digest}.safetensors").unlink()
    assert verify_archive(Archive.open(job.archive)).ok
    assert run_job(job).job is None


def test_auto_is_no_codec_of_its_own() -> None:
    with pytest.raises(UsageError, match="picture by picture"):
        load_codec("auto")
