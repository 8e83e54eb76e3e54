"""``--codec auto``: each picture gets whichever codec needs the fewest bytes for it at no lower quality.

The learned codec goes first. Of photographs it is the only one, unless they are below the floors with it. Of all else
(``look``) others are tried, each at the lowest quality of its own that is as good as what the learned one reached: by
SSIMULACRA 2 and the worst block, and by whatever the job asks for; and one without loss. The smallest is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lichen.defaults import EFFORT
from lichen.models.codec import MAX_QUALITY, Codec
from lichen.pipeline.engine.compress import LARGER, Compressed, Compressor, Kept, Stopwatch
from lichen.pipeline.engine.config import Shares
from lichen.pipeline.engine.feed import Item
from lichen.pipeline.engine.look import look_at
from lichen.pipeline.quality import Quality
from lichen.pipeline.target import Floors, Target

ENOUGH = 60.0
"""dB: as good as equal, where a rival is asked for as much."""
START = 50.0
"""Quality at which the search of a rival begins. Not higher: at 70 JPEG XL's encoder takes several times the bytes for
text that it takes at 60, for a lower quality, and a search that begins there does not get below."""
_ALL = Shares(ms_ssim=1, ssimulacra2=1)
_Outcome = Compressed | Kept


class Choice:
    """Several codecs with the rules of a job; in the place of one ``Compressor``. Thread-safe."""

    def __init__(
        self, first: Codec, rivals: Sequence[Codec], *, target: Target, shares: Shares, effort: int = EFFORT
    ) -> None:
        self._rivals, self._target, self._effort = rivals, target, effort
        self._of_photographs = Compressor(first, target=target, shares=shares, effort=effort)
        # What is larger than the source tells, too, what others have to reach.
        self._of_others = Compressor(first, target=target, shares=_ALL, effort=effort, limited=False)

    def compress(self, items: Sequence[Item], watch: Stopwatch) -> list[_Outcome]:
        """One outcome for each picture, as ``Compressor.compress`` has it."""
        with watch.stage("measure"):
            photographs = [item.picture is not None and look_at(item.picture.pixels).photograph for item in items]
        outcomes: dict[int, _Outcome] = {}
        for wanted, compressor in ((True, self._of_photographs), (False, self._of_others)):
            some = [number for number, is_one in enumerate(photographs) if is_one is wanted]
            if some:
                outcomes |= zip(some, compressor.compress([items[number] for number in some], watch), strict=True)
        for number, outcome in outcomes.items():
            lost = isinstance(outcome, Kept) and outcome.reason != LARGER
            if lost or not photographs[number]:
                outcomes[number] = self._best(items[number], outcome, watch)
        return [outcomes[number] for number in range(len(items))]

    def _best(self, item: Item, first: _Outcome, watch: Stopwatch) -> _Outcome:
        """The outcome of the learned codec, or a better one."""
        found = [first]
        for codec in self._rivals:
            target = self._lossless() if codec.lossless else self._as_good_as(first.measured)
            start = START if target.lowest and not self._target.searched else None
            rival = Compressor(codec, target=target, shares=_ALL, effort=self._effort, start=start)
            found += rival.compress([item], watch)
        retries = sum(outcome.retries for outcome in found) + len(found) - 1
        fitting = [one for one in found if isinstance(one, Compressed) and one.size < len(item.data)]
        if fitting:
            return replace(min(fitting, key=lambda one: self._order(one, item.pixels)), retries=retries)
        return Kept(reason=first.reason if isinstance(first, Kept) else LARGER, retries=retries)

    def _order(self, one: Compressed, pixels: int) -> tuple[bool, float]:
        """Fewest bytes first; within a target of bits per pixel best quality first."""
        over = self._target.bpp is not None and 8 * one.size > self._target.bpp * pixels
        if self._target.bpp is None or over:
            return over, one.size
        score = one.measured.ssimulacra2
        return over, -(one.measured.psnr if score is None else score)

    def _lossless(self) -> Target:
        return Target(quality=MAX_QUALITY, floors=replace(self._target.floors, ms_ssim=None, ssimulacra2=None))

    def _as_good_as(self, measured: Quality | None) -> Target:
        """What is asked of a rival: no less than of the learned codec, nor than it reached at a given quality."""
        if self._target.searched or measured is None:
            return self._target
        asked = self._target.floors
        score = measured.ssimulacra2
        floors = Floors(
            psnr=max(asked.psnr, min(measured.psnr, ENOUGH) if score is None else asked.psnr),
            block_psnr=max(asked.block_psnr, min(measured.block_psnr, ENOUGH)),
            ms_ssim=asked.ms_ssim,
            ssimulacra2=score if asked.ssimulacra2 is None else max(asked.ssimulacra2, score or 0.0),
        )
        return Target(quality=self._target.quality, floors=floors, lowest=True)
