"""SSIMULACRA 2 of pictures of a job against the reference package, and against the one that codecs learn from."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learned_support import kodak, photograph
from PIL import Image
from ssimulacra2 import compute_ssimulacra2

from lichen.errors import UsageError
from lichen.models.perceptual import ssimulacra2 as differentiable
from lichen.pipeline.measures.ssimulacra2 import ssimulacra2

TOLERANCE = 0.01


def saved(pixels: np.ndarray, kind: str = "PNG", **settings: int) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **settings)
    return buffer


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    return np.asarray(Image.open(saved(pixels, "JPEG", quality=quality)).convert("RGB"))


def reference(one: np.ndarray, two: np.ndarray) -> float:
    return float(compute_ssimulacra2(saved(one), saved(two)))


def by_gradient(one: np.ndarray, two: np.ndarray) -> float:
    planes = [torch.from_numpy(p.transpose(2, 0, 1).copy()).double()[None] / 255 for p in (one, two)]
    return float(differentiable.score(differentiable.error(*planes)))


@pytest.mark.parametrize("quality", [5, 50, 95, 100])
@pytest.mark.parametrize("size", [(256, 320), (129, 257), (60, 45), (33, 8), (200, 131), (9, 300)])
def test_the_reference_agrees(size: tuple[int, int], quality: int) -> None:
    """Also where scales are missing, where sides are odd, and where strips of columns meet."""
    picture = np.ascontiguousarray(kodak(1)[: size[0], : size[1]])
    worse = jpeg(picture, quality)
    expected = reference(picture, worse)
    assert ssimulacra2(picture, worse) == pytest.approx(expected, abs=TOLERANCE)
    assert by_gradient(picture, worse) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("number", range(4))
def test_the_reference_agrees_on_a_hundred_pictures(number: int) -> None:
    """25 crops of each photograph: JPEG's damage, noise, blur, and another colour."""
    rng = np.random.default_rng(number)
    whole = kodak(number)
    for step in range(25):
        top, left = (int(rng.integers(side - 96)) for side in whole.shape[:2])
        picture = np.ascontiguousarray(whole[top : top + 96, left : left + 90])
        noise = rng.normal(0, step, picture.shape)
        worse = [
            jpeg(picture, 4 * step + 3),
            (picture + noise).clip(0, 255).astype(np.uint8),
            np.asarray(Image.fromarray(picture).resize((45, 48)).resize((90, 96))),
            (picture * np.array([1, 1 - step / 100, 1])).astype(np.uint8),
        ][step % 4]
        assert ssimulacra2(picture, worse) == pytest.approx(reference(picture, worse), abs=TOLERANCE)


@settings(max_examples=30, deadline=None)
@given(st.integers(8, 40), st.integers(8, 40), st.integers(0, 2**32 - 1), st.sampled_from([1, 3]))
def test_of_anything_at_all(height: int, width: int, seed: int, channels: int) -> None:
    rng = np.random.default_rng(seed)
    one, two = (rng.integers(0, 256, (height, width, channels), dtype=np.uint8) for _ in range(2))
    wide = [np.repeat(pixels, 4 - channels, axis=2) if channels == 1 else pixels for pixels in (one, two)]
    expected = by_gradient(*wide)
    assert ssimulacra2(one, two) == pytest.approx(expected, abs=TOLERANCE + 1e-4 * abs(expected))


def test_equal_pictures_and_tiny_ones() -> None:
    picture = photograph()[:64, :64]
    assert ssimulacra2(picture, picture) == 100
    changed = picture.copy()
    changed[5, 5, 0] ^= 1
    assert 99 < (ssimulacra2(picture, changed) or 0) < 100
    assert ssimulacra2(picture[:7], picture[:7]) is None
    assert ssimulacra2(picture[:, ::2], changed[:, ::2]) is not None  # not contiguous


def test_scores_fall_with_quality() -> None:
    picture = photograph()[:256, :256]
    scores = [ssimulacra2(picture, jpeg(picture, quality)) or 0.0 for quality in (90, 60, 30, 10)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 75 > 50 > scores[-1]


def test_what_cannot_be_compared_is_told() -> None:
    picture = photograph()[:64, :64]
    for other in (picture[:63], picture.astype(np.float32)):
        with pytest.raises(UsageError, match="cannot compare"):
            ssimulacra2(picture, other)
    with pytest.raises(UsageError, match="channels"):
        ssimulacra2(picture[:, :, :2], picture[:, :, :2])
