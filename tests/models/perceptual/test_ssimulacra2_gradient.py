"""SSIMULACRA 2 and the mix of measures as something to learn from."""

from __future__ import annotations

import pytest
import torch
from learned_support import photograph

from lichen.errors import InvalidCodec
from lichen.models.perceptual.distortion import MS_SSIM_UNIT, SSIMULACRA2_UNIT, Mix
from lichen.models.perceptual.ssimulacra2 import error, score


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
    squared, structure, seen = (
        Mix(ms_ssim=a, ssimulacra2=b).distortion(worse, picture) for a, b in ((0, 0), (1, 0), (0, 1))
    )
    assert squared.item() == pytest.approx(255**2 * mse.item())
    assert seen.item() == pytest.approx(SSIMULACRA2_UNIT * error(picture, worse).item(), rel=1e-5)
    assert 0 < structure.item() < MS_SSIM_UNIT
    mixed = Mix(ms_ssim=0.25, ssimulacra2=0.5).distortion(worse, picture)
    assert mixed.item() == pytest.approx((squared / 4 + structure / 4 + seen / 2).item(), rel=1e-5)


def test_small_pictures_have_no_structure_to_compare() -> None:
    picture, worse = torch.rand(2, 1, 3, 64, 96)
    squared = Mix(ms_ssim=0.6).distortion(worse, picture)
    assert squared.item() == pytest.approx(Mix().distortion(worse, picture).item())


@pytest.mark.parametrize(
    "objective",
    [7, {"psnr": 1}, {"ms_ssim": "much"}, {"ms_ssim": True}, {"ms_ssim": -0.1}, {"ms_ssim": 0.7, "ssimulacra2": 0.7}],
)
def test_objectives_that_make_no_sense_are_refused(objective: object) -> None:
    with pytest.raises(InvalidCodec, match=r"objective|constructor argument"):
        Mix.from_card({"objective": objective})


def test_an_objective_survives_the_card() -> None:
    mix = Mix(ms_ssim=0.25, ssimulacra2=0.5)
    assert Mix.from_card({"objective": mix.to_card()}) == mix and mix.perceptual
    assert Mix.from_card({}) == Mix() and not Mix().perceptual
