"""The search for a picture's quality, on made-up codecs that only get better with it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.errors import UsageError
from lichen.pipeline.measures.quality import Quality
from lichen.pipeline.target import TOLERANCE, Floors, Search, Target, shortfall


class Curve:
    """A picture that gets better and larger with the quality, in steps like those of real codecs."""

    def __init__(self, low: float, slope: float, bend: float, smallest: float, growth: float, step: float) -> None:
        self.low, self.slope, self.bend = low, slope, bend
        self.smallest, self.growth, self.step = smallest, growth, step

    def at(self, quality: float) -> tuple[Quality, float]:
        q = math.floor(quality / self.step) * self.step
        psnr = self.low + self.slope * q + self.bend * (q / 100) ** 2
        return Quality(psnr=psnr, block_psnr=psnr - 4, ms_ssim=1 - 10 ** (-psnr / 20)), self.smallest * math.exp(
            self.growth * q
        )


curves = st.builds(
    Curve,
    low=st.floats(15, 40),
    slope=st.floats(0.02, 0.3),
    bend=st.floats(0, 10),
    smallest=st.floats(0.01, 2),
    growth=st.floats(0.01, 0.06),
    step=st.sampled_from([1 / 8, 1.0]),
)


def run(
    target: Target, curve: Curve, limit: float = math.inf, start: float | None = None
) -> tuple[Search, float | None]:
    """The search, and the quality that it kept."""
    search, kept = Search(target, start), None
    while not search.done:
        assert 1 <= search.quality <= 100
        tried = search.quality
        measured, bpp = curve.at(tried)
        if bpp >= limit:
            search.refuse()
        else:
            search.accept(measured, bpp)
        if search.kept:
            kept = tried
        assert search.trials <= 40
    return search, kept if search.found else None


@given(curves, st.floats(1, 100))
def test_a_fixed_quality_rises_to_the_floors_and_no_further(curve: Curve, quality: float) -> None:
    search, kept = run(Target(quality=quality), curve)
    if kept is None:
        assert not Floors().met(curve.at(100)[0])
    else:
        assert Floors().met(curve.at(kept)[0])
        if search.trials > 1:
            assert not Floors().met(curve.at(max(1, kept - 15))[0])


@given(curves, st.floats(20, 60), st.floats(1, 100))
def test_the_lowest_quality_that_is_good_enough(curve: Curve, psnr: float, start: float) -> None:
    floors = Floors(psnr=psnr, block_psnr=0)
    _, kept = run(Target(floors=floors, lowest=True), curve, start=start)
    if kept is None:
        assert curve.at(100)[0].psnr < psnr
        return
    measured = curve.at(kept)[0]
    assert measured.psnr >= psnr
    close = shortfall(floors, measured) >= -TOLERANCE
    assert close or kept <= 1.125 or curve.at(kept - max(0.375, curve.step))[0].psnr < psnr


@given(curves, st.floats(0.005, 8), st.floats(1, 100))
def test_the_highest_quality_that_fits(curve: Curve, bpp: float, start: float) -> None:
    _, kept = run(Target(floors=Floors(psnr=0, block_psnr=0), bpp=bpp), curve, start=start)
    assert kept is not None
    got = curve.at(kept)[1]
    assert got <= bpp or kept == 1
    above = curve.at(kept + max(0.375, curve.step))[1]
    assert kept >= 99.6 or above > bpp or got >= bpp * math.exp(-1.01 * TOLERANCE * 0.024)


@given(curves, st.floats(0.005, 8), st.one_of(st.just(math.inf), st.floats(0.01, 4)))
def test_floors_come_before_bits(curve: Curve, bpp: float, limit: float) -> None:
    _, kept = run(Target(quality=60, bpp=bpp), curve, limit)
    if kept is None:
        worth = [q / 8 for q in range(8, 801) if curve.at(q / 8)[1] < limit]
        assert not worth or not Floors().met(curve.at(max(worth) - max(0.25, curve.step))[0]) or max(worth) < 2
    else:
        assert Floors().met(curve.at(kept)[0])
        if curve.at(kept)[1] > bpp and kept > 1:  # no more bits than the floors need
            close = shortfall(Floors(), curve.at(kept)[0]) >= -TOLERANCE
            assert close or not Floors().met(curve.at(max(1, kept - max(0.375, curve.step)))[0])


@given(curves, st.floats(20, 60), st.floats(0.01, 4))
def test_what_gets_larger_than_the_source_is_not_kept(curve: Curve, psnr: float, limit: float) -> None:
    _, kept = run(Target(floors=Floors(psnr=psnr, block_psnr=0), lowest=True), curve, limit)
    if kept is not None:
        assert curve.at(kept)[1] < limit
        assert curve.at(kept)[0].psnr >= psnr


def test_few_trials_on_an_ordinary_picture() -> None:
    curve = Curve(low=27, slope=0.12, bend=-1, smallest=0.15, growth=0.026, step=1 / 8)
    for psnr in (30, 33, 36):
        assert run(Target(floors=Floors(psnr=psnr, block_psnr=0), lowest=True), curve)[0].trials <= 4
    for bpp in (0.3, 0.6, 1.2):
        assert run(Target(floors=Floors(psnr=0, block_psnr=0), bpp=bpp), curve)[0].trials <= 4


def test_more_effort_goes_on_where_less_ended() -> None:
    curve = Curve(low=27, slope=0.12, bend=-1, smallest=0.15, growth=0.026, step=1 / 8)
    better = Curve(low=27.3, slope=0.12, bend=-1, smallest=0.152, growth=0.026, step=1 / 8)
    for target in (Target(floors=Floors(psnr=36, block_psnr=0), lowest=True), Target(bpp=0.16), Target(bpp=0.8)):
        first, kept = run(target, curve)
        assert kept is not None
        search, found = first.again(kept), None
        while not search.done:
            tried = search.quality
            search.accept(*better.at(tried))
            found = tried if search.kept else found
        assert search.found
        assert found is not None
        assert search.trials <= 3
        assert better.at(found)[0].psnr >= target.floors.psnr


def test_ms_ssim_of_pictures_that_have_none_is_never_met() -> None:
    floors = Floors(psnr=0, block_psnr=0, ms_ssim=0.9)
    search = Search(Target(quality=50, floors=floors, lowest=True))
    while not search.done:
        search.accept(Quality(psnr=40, block_psnr=40, ms_ssim=None), 1.0)
    assert not search.found


def test_contradictions_are_refused() -> None:
    with pytest.raises(UsageError):
        Target(lowest=True, bpp=1.0)
    with pytest.raises(UsageError):
        Target(bpp=0.0)


@given(st.floats(0.1, 60), st.floats(1e-3, 100))
def test_searches_begin_within_the_qualities_there_are(psnr: float, bpp: float) -> None:
    targets = Target(floors=Floors(psnr=psnr), lowest=True), Target(bpp=bpp), Target(floors=Floors(psnr=0), lowest=True)
    assert all(1 <= target.start <= 100 for target in targets)
