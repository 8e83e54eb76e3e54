"""SSIMULACRA2: the reference's numbers, and a gradient to learn from."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from learned_support import kodak, photograph
from PIL import Image
from ssimulacra2 import compute_ssimulacra2

from lichen.jobs.training.distortion import MS_SSIM_UNIT, SSIMULACRA2_UNIT, distortion
from lichen.pipeline.ssimulacra2 import error, score, ssimulacra2


def saved(pixels: np.ndarray, kind: str = "PNG", **settings: int) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **settings)
    return buffer


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    return np.asarray(Image.open(saved(pixels, "JPEG", quality=quality)).convert("RGB"))


@pytest.mark.parametrize("quality", [5, 50, 95])
@pytest.mark.parametrize("size", [(256, 320), (129, 257), (60, 45), (33, 8), (200, 131)])
def test_the_reference_agrees(size: tuple[int, int], quality: int) -> None:
    """Also where scales are missing, and where sides are odd."""
    picture = np.ascontiguousarray(kodak(1)[: size[0], : size[1]])
    worse = jpeg(picture, quality)
    assert ssimulacra2(picture, worse) == pytest.approx(compute_ssimulacra2(saved(picture), saved(worse)), abs=1e-6)


def test_equal_pictures_and_tiny_ones() -> None:
    picture = photograph()[:64, :64]
    assert ssimulacra2(picture, picture) == pytest.approx(100)
    assert ssimulacra2(picture[:7], picture[:7]) is None


def test_scores_fall_with_quality() -> None:
    picture = photograph()[:256, :256]
    scores = [ssimulacra2(picture, jpeg(picture, quality)) or 0.0 for quality in (90, 60, 30, 10)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 75 > 50 > scores[-1]


def test_what_differs_has_a_gradient_everywhere() -> None:
    torch.manual_seed(1)
    picture = torch.rand(2, 3, 72, 64)
    for noise in (0.0, 0.05, 2.0):  # the last one leaves the range of colours
        changed = (picture + noise * torch.randn_like(picture)).requires_grad_()
        errors = error(picture, changed)
        errors.sum().backward()
        assert changed.grad is not None and changed.grad.isfinite().all()
        assert errors.shape == (2,) and (errors > 0.1).all() == (noise > 0)
    assert score(torch.tensor([1.0, 9.0])).tolist() == pytest.approx([83.57, 37.54], abs=0.01)


def test_shares_of_the_distortion_add_up() -> None:
    picture = torch.from_numpy(photograph()[:192, :192].copy()).permute(2, 0, 1)[None].float() / 255
    worse = (picture + 0.05 * torch.randn_like(picture)).clamp(0, 1)
    mse = (picture - worse).square().mean(dim=(1, 2, 3))
    squared, structure, seen = (distortion(worse, picture, mse, *shares) for shares in ((0, 0), (1, 0), (0, 1)))
    assert squared.item() == pytest.approx(255**2 * mse.item())
    assert seen.item() == pytest.approx(SSIMULACRA2_UNIT * error(picture, worse).item(), rel=1e-5)
    assert 0 < structure.item() < MS_SSIM_UNIT
    mixed = distortion(worse, picture, mse, 0.25, 0.5)
    assert mixed.item() == pytest.approx((squared / 4 + structure / 4 + seen / 2).item(), rel=1e-5)
