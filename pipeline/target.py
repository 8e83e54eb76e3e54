"""Which quality a picture gets: the one that was asked for, or one that is searched for trial by trial.

Planning only: a ``Search`` says which quality to try next and is told how the trial went. Between trials it
interpolates (regula falsi, with bisection once that has stalled twice), so three or four find a quality to within half
a unit, about 0.05 dB or one per cent of the bits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from lichen import defaults
from lichen.errors import UsageError
from lichen.models.codec import MAX_QUALITY, MIN_QUALITY, STEPS_OF_QUALITY

if TYPE_CHECKING:
    from lichen.pipeline.quality import Quality

QUALITY_STEP = 15.0
"""By how much a fixed quality rises while a picture is below its floors."""
TOLERANCE = 0.5
"""Units of quality that a search may stay on the safe side of what was asked."""
SMALLEST = 1 / STEPS_OF_QUALITY
HEADWAY = 3.0
"""Units of quality that effort gains at equal PSNR, about."""
_DECIBELS = 0.1
"""PSNR gained by a unit of quality, about; the same for MS-SSIM in decibels."""
_SCORE = 0.5
"""SSIMULACRA 2 gained by a unit of quality, about."""
_LOG_BITS = 0.024
"""Relative change of the bits by a unit of quality, about."""
_LEAP = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Floors:
    """What a compressed picture must reach, PSNRs in decibels; below, its quality rises or its original is stored.

    Good photographic quality is 38 to 40 dB; 30 dB over a picture is where artefacts become obvious, and 24
    dB in one 64x64 block means that something there was destroyed rather than smoothed.
    """

    psnr: float = defaults.PSNR_FLOOR
    block_psnr: float = defaults.BLOCK_PSNR_FLOOR
    ms_ssim: float | None = None
    """0 to 1; pictures that are too small for it never reach it."""
    ssimulacra2: float | None = None
    """At most 100: 90 is visually lossless, at 80 no difference is noticed side by side."""

    def met(self, quality: Quality) -> bool:
        """Whether all floors are reached (a NaN never is)."""
        similar = _reached(self.ms_ssim, quality.ms_ssim) and _reached(self.ssimulacra2, quality.ssimulacra2)
        return similar and quality.psnr >= self.psnr and quality.block_psnr >= self.block_psnr


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a job asks of every picture.

    ``quality`` as it is, raised while a picture is below ``floors``; or instead with ``lowest`` the lowest quality that
    meets the floors, with ``bpp`` the highest whose payload has at most that many bits per pixel. The floors come
    first: bits rise above ``bpp`` where they have to.
    """

    quality: float = defaults.QUALITY
    floors: Floors = field(default_factory=Floors)
    lowest: bool = False
    bpp: float | None = None

    def __post_init__(self) -> None:
        if self.lowest and self.bpp is not None:
            raise UsageError("ask for a least quality or for bits per pixel, not for both")
        if self.bpp is not None and not self.bpp > 0:
            raise UsageError(f"bits per pixel must be above 0, not {self.bpp}")

    @property
    def start(self) -> float:
        """Where to begin: searches where an ordinary photograph would end with the default codec."""
        if self.bpp is not None:
            return _clamped(50 + math.log(self.bpp / 0.65) / _LOG_BITS)
        if self.lowest and self.floors.psnr > 0:
            return _clamped(50 + (self.floors.psnr - 33.5) / _DECIBELS)
        return 50 if self.lowest else self.quality

    @property
    def searched(self) -> bool:
        """Whether pictures get qualities of their own."""
        return self.lowest or self.bpp is not None


class Search:
    """The quality of one picture. ``quality`` is the next to try, until ``done``.

    After ``accept`` has told of a trial, ``kept`` says whether that one is the best so far; ``found`` whether any is.
    """

    def __init__(self, target: Target, start: float | None = None, *, step: float = SMALLEST) -> None:
        """``step`` is that of the codec's quality: between its multiples there is nothing to try."""
        self._step = step
        self.quality = self._clamped(target.start if start is None else start)
        self.done = self.kept = self.found = False
        self.trials = 0
        self._target = target
        self._best = math.nan
        """How far the best trial falls short of the floors."""
        self._begin("fit" if target.bpp is not None else "lowest" if target.lowest else "rise")

    def _begin(self, way: Literal["rise", "lowest", "fit"]) -> None:
        self._way = way
        self._low: tuple[float, float] | None = None
        self._high: tuple[float, float] | None = None
        self._run = 0
        """Trials in a row that pointed up (positive) or down."""
        self._width = math.inf
        self._stalls = 0
        """Interpolations that left more than half of the bracket."""

    def again(self, quality: float) -> Search:
        """Search again with more effort, from the quality at which this search ended: a little less is then enough."""
        search = Search(self._target, quality - HEADWAY if self._way == "lowest" else quality, step=self._step)
        search._begin(self._way)
        return search

    def accept(self, measured: Quality, bpp: float) -> None:
        """The trial gave a picture of this quality and this many bits per pixel."""
        self.trials += 1
        short = shortfall(self._target.floors, measured)
        if self._way == "rise":
            self.kept = self.found = short <= 0
            self.done = self.kept or self.quality >= MAX_QUALITY
            self.quality = self._clamped(self.quality if self.done else self.quality + QUALITY_STEP)
        elif self._way == "lowest":
            self.kept = short <= 0
            self.found |= self.kept
            close = self.kept and (short >= -TOLERANCE or self.quality <= MIN_QUALITY)
            self.done = close or (short > 0 and self.quality >= MAX_QUALITY) or not self._narrow(short, TOLERANCE / 2)
        else:
            self._fit(math.log((self._target.bpp or math.inf) / bpp) / _LOG_BITS, short)

    def refuse(self) -> None:
        """The trial gave as many bytes as the source has: only lower qualities can help."""
        self.trials += 1
        self.kept = False
        possible = self._way != "rise" and self.quality > MIN_QUALITY
        self.done = not possible or not self._narrow(-_LEAP / 2, 0.0)
        if self.done and self._best > 0:  # what fits is below the floors, and what is better does not pay
            self.found = False

    def _fit(self, room: float, short: float) -> None:
        """Towards the highest quality that leaves room; if that is below the floors, up to them."""
        self.kept = room >= 0 or self.quality <= MIN_QUALITY
        self.found |= self.kept
        if self.kept:
            self._best = short
        close = self.kept and (room <= TOLERANCE or self.quality >= MAX_QUALITY)
        hopeless = not self.kept and short > 0  # lower qualities are worse still
        if not hopeless and not close and self._narrow(room, -TOLERANCE / 2):
            return
        if not hopeless and self._best <= 0:
            self.done = True
            return
        self.kept = self.found = False
        self._begin("lowest")
        if self.quality >= MAX_QUALITY or not self._narrow(max(short, self._step), TOLERANCE / 2):
            self.done = True

    def _narrow(self, way: float, aim: float) -> bool:
        """Choose the next quality, ``way`` units from here, and ``aim`` further to land on the safe side.

        Returns whether there is one: not where the bracket is as small as it gets.
        """
        side = 1 if way > 0 else -1
        if side > 0:
            self._low = (self.quality, way + aim)
        else:
            self._high = (self.quality, way + aim)
        self._run = self._run + side if self._run * side > 0 else side
        low, high = self._low, self._high
        if low is None or high is None:
            leap = min(max(abs(way + aim), self._step) * 2 ** max(0, abs(self._run) - 2), _LEAP)
            self.quality = self._clamped(self.quality + side * leap)
            return True
        width = high[0] - low[0]
        if width < 2 * self._step:
            return False
        self._stalls += math.isfinite(self._width) and width > self._width / 2
        self._width = width
        span = low[1] - high[1]
        share = low[1] / span if span > 0 and self._stalls < 2 else 0.5
        guess = low[0] + (high[0] - low[0]) * min(max(share, 0.0), 1.0)
        self.quality = self._clamped(min(max(guess, low[0] + self._step), high[0] - self._step))
        return True

    def _clamped(self, quality: float) -> float:
        return _clamped(quality, self._step)


def shortfall(floors: Floors, measured: Quality) -> float:
    """Units of quality, about, by which a picture falls short of its floors; negative where it exceeds them."""
    worst = max(floors.psnr - measured.psnr, floors.block_psnr - measured.block_psnr)
    if floors.ms_ssim is not None:
        got = math.nan if measured.ms_ssim is None else measured.ms_ssim
        worst = max(worst, _in_decibels(floors.ms_ssim) - _in_decibels(got))
    if floors.ssimulacra2 is not None:
        score = math.nan if measured.ssimulacra2 is None else measured.ssimulacra2
        worst = max(worst, (floors.ssimulacra2 - score) / _SCORE * _DECIBELS)
    if math.isnan(worst) or not floors.met(measured):
        return _LEAP if math.isnan(worst) else max(worst / _DECIBELS, SMALLEST)
    return max(min(worst / _DECIBELS, 0.0), -MAX_QUALITY)


def _reached(wanted: float | None, got: float | None) -> bool:
    return wanted is None or (got is not None and got >= wanted)


def _in_decibels(ms_ssim: float) -> float:
    return -10 * math.log10(max(1 - ms_ssim, 1e-12))


def _clamped(quality: float, step: float = SMALLEST) -> float:
    steps = round(min(max(quality, MIN_QUALITY), MAX_QUALITY) / step)
    return steps * step
