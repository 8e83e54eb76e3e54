"""The quality measures against plain NumPy and the reference implementation of MS-SSIM."""

from __future__ import annotations

import io
import math
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from pytorch_msssim import ms_ssim as reference_ms_ssim

from lichen.errors import UsageError
from lichen.models.codec import Pixels
from lichen.pipeline.measures.ms_ssim import MS_SSIM_MIN_SIDE
from lichen.pipeline.measures.quality import (
    Quality,
    block_psnr,
    measure,
    ms_ssim,
    psnr,
    ssimulacra2,
)
from lichen.pipeline.pictures.reading import grey_plane
from lichen.pipeline.target import Floors

KODAK = sorted((Path(__file__).parents[2] / "data" / "kodak").glob("*.png"))
rng = np.random.default_rng(9)


def photo(index: int = 0) -> Pixels:
    with Image.open(KODAK[index]) as image:
        return np.array(image.convert("RGB"))


def jpeg(pixels: Pixels, quality: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    with Image.open(buffer) as image:
        return np.array(image)


def plain_psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return math.inf if error == 0 else 10 * math.log10(255**2 / error)


def plain_block_psnr(a: Pixels, b: Pixels, block: int) -> float:
    height, width = a.shape[:2]
    block_h, block_w = min(block, height), min(block, width)
    tops = {min(y, height - block_h) for y in range(0, height, block_h)}
    lefts = {min(x, width - block_w) for x in range(0, width, block_w)}
    squares = [(slice(y, y + block_h), slice(x, x + block_w)) for y in tops for x in lefts]
    return min(plain_psnr(a[square], b[square]) for square in squares)


def reference(a: Pixels, b: Pixels) -> float:
    planes = [torch.from_numpy(x.copy()).permute(2, 0, 1)[None].float() for x in (a, b)]
    return float(reference_ms_ssim(*planes, data_range=255))


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (63, 65), (64, 64), (128, 192), (129, 191), (200, 3), (300, 257)])
@pytest.mark.parametrize("block", [1, 7, 64, 100])
def test_psnr_and_worst_block(shape: tuple[int, int], block: int) -> None:
    a = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    b = np.clip(a.astype(int) + rng.integers(-9, 10, a.shape), 0, 255).astype(np.uint8)
    b[shape[0] // 2 :, shape[1] // 2 :] = 0  # one bad corner
    assert psnr(a, b) == pytest.approx(plain_psnr(a, b), abs=1e-9)
    assert block_psnr(a, b, block) == pytest.approx(plain_block_psnr(a, b, block), abs=1e-9)


def test_the_extremes() -> None:
    black, white = np.zeros((300, 300, 3), np.uint8), np.full((300, 300, 3), 255, np.uint8)
    assert psnr(black, white) == block_psnr(black, white, 4096) == 0
    assert psnr(black, black) == block_psnr(black, black) == math.inf
    assert ms_ssim(white, white) == pytest.approx(1, abs=5e-5)


def test_one_destroyed_block_shows_only_in_the_worst_block() -> None:
    a = photo()
    b = jpeg(a, 92)
    whole, worst = psnr(a, b), block_psnr(a, b)
    b[-64:, -64:] = 128
    assert psnr(a, b) < whole
    assert psnr(a, b) > 25
    assert block_psnr(a, b) == pytest.approx(plain_psnr(a[-64:, -64:], b[-64:, -64:]))
    assert block_psnr(a, b) < worst - 10
    assert not Floors().met(measure(a, b))


@pytest.mark.parametrize("crop", [(512, 512), (161, 161), (301, 163), (200, 511), (177, 350), (322, 161)])
@pytest.mark.parametrize("quality", [2, 25, 90])
def test_ms_ssim_matches_the_reference(crop: tuple[int, int], quality: int) -> None:
    for index in (0, 2):
        a = np.ascontiguousarray(photo(index)[: crop[0], : crop[1]])
        b = jpeg(a, quality)
        assert ms_ssim(a, b) == pytest.approx(reference(a, b), abs=1e-4)


def test_ms_ssim_of_unlike_pictures() -> None:
    a = photo()
    others: list[Pixels] = [np.uint8(255) - a, rng.integers(0, 256, a.shape, dtype=np.uint8), np.full_like(a, 128)]
    for b in others:
        assert ms_ssim(a, b) == pytest.approx(reference(a, b), abs=1e-4)


def test_ms_ssim_needs_five_scales() -> None:
    a = photo()
    assert ms_ssim(a[: MS_SSIM_MIN_SIDE - 1], a[: MS_SSIM_MIN_SIDE - 1]) is None
    assert ms_ssim(a[:, :MS_SSIM_MIN_SIDE], a[:, :MS_SSIM_MIN_SIDE]) is not None
    assert measure(a[:9, :9], a[:9, :9]) == Quality(psnr=math.inf, block_psnr=math.inf, ms_ssim=None, ssimulacra2=100.0)


def test_measure() -> None:
    a = photo(1)
    b = jpeg(a, 60)
    assert measure(a, b) == Quality(
        psnr=psnr(a, b), block_psnr=block_psnr(a, b), ms_ssim=ms_ssim(a, b), ssimulacra2=ssimulacra2(a, b)
    )
    bare = measure(a, b, "RGBA", with_ms_ssim=False, with_ssimulacra2=False)
    assert bare.ms_ssim is None and bare.ssimulacra2 is None
    grey_a, grey_b = (np.repeat(grey_plane(x)[:, :, None], 3, axis=2) for x in (a, b))
    for mode in ("L", "LA"):
        grey = measure(a, b, mode)
        assert grey.psnr == pytest.approx(plain_psnr(grey_a, grey_b))
        assert grey.ms_ssim == pytest.approx(reference(grey_a, grey_b), abs=1e-4)
        assert grey.ssimulacra2 == pytest.approx(ssimulacra2(grey_a, grey_b), abs=1e-3)


def test_strided_views_are_fine() -> None:
    a = photo()
    b = jpeg(a, 40)
    assert psnr(a[::-1, ::2], b[::-1, ::2]) == pytest.approx(plain_psnr(a[::-1, ::2], b[::-1, ::2]))
    flipped = ms_ssim(a[:, ::-1], b[:, ::-1])
    assert flipped == pytest.approx(reference(a[:, ::-1], b[:, ::-1]), abs=1e-4)


def test_floors() -> None:
    floors = Floors(psnr=30, block_psnr=24)
    assert floors == Floors()
    assert floors.met(Quality(psnr=30, block_psnr=24, ms_ssim=None))
    assert floors.met(Quality(psnr=math.inf, block_psnr=math.inf, ms_ssim=0.0))
    assert not floors.met(Quality(psnr=29.99, block_psnr=50, ms_ssim=1))
    assert not floors.met(Quality(psnr=50, block_psnr=23.99, ms_ssim=1))
    assert not floors.met(Quality(psnr=math.nan, block_psnr=50, ms_ssim=1))
    seen = Floors(ssimulacra2=80)
    assert [seen.met(Quality(psnr=50, block_psnr=50, ms_ssim=1, ssimulacra2=n)) for n in (None, math.nan, 79, 80)] == [
        False,
        False,
        False,
        True,
    ]


def test_bad_input() -> None:
    a = photo()
    bad: list[NDArray[np.generic]] = [a[:-1], a[:, :, 0], a.astype(np.float32), a[:0]]
    for b in bad:
        with pytest.raises(UsageError):
            measure(a, b)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        measure(a[:0], a[:0])
    with pytest.raises(UsageError):
        block_psnr(a, a, 0)


def test_kernels_release_the_lock() -> None:
    """Another thread keeps running while a picture is measured."""
    a = np.tile(photo(), (4, 4, 1))
    b = np.uint8(255) - a
    ms_ssim(a, b)
    done = threading.Event()
    ticks = 0

    def measure_it() -> None:
        ms_ssim(a, b)
        done.set()

    worker = threading.Thread(target=measure_it)
    start = time.perf_counter()
    worker.start()
    while not done.wait(0.002):
        ticks += 1
    elapsed = time.perf_counter() - start
    worker.join()
    assert ticks > elapsed / 0.002 / 20
