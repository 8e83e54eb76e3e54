"""What ``--codec auto`` is worth on a mixed set: against each codec alone and the best choice in hindsight.

All at equal quality: what the learned codec reaches at the asked quality is the least for the others, by SSIMULACRA 2
and the worst block. Hindsight tries every codec on every picture, photographs too, and finds the lowest quality of each
by bisection over all of its whole steps; ``auto`` looks first, and searches with fewer trials.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from time import perf_counter
from typing import TYPE_CHECKING

from PIL import Image

from lichen import defaults
from lichen.errors import UsageError
from lichen.models.codec import MAX_QUALITY, MIN_QUALITY, Codec, Pixels
from lichen.models.registry import load_codec
from lichen.pipeline.engine.choice import Choice
from lichen.pipeline.engine.compress import Compressed, Compressor, Stopwatch
from lichen.pipeline.engine.config import Shares
from lichen.pipeline.engine.feed import Item
from lichen.pipeline.engine.flatness import FlatMaps
from lichen.pipeline.engine.look import look_at
from lichen.pipeline.images import read_picture
from lichen.pipeline.quality import Quality, measure
from lichen.pipeline.sources import Source
from lichen.pipeline.target import Target

if TYPE_CHECKING:
    from rich.table import Table

_ALL = Shares(ms_ssim=0, ssimulacra2=1)
_EXACT = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One picture. ``bytes`` are those of each codec alone, flat maps included; None where it cannot be as good."""

    name: str
    photograph: bool
    """Whether the look takes it for a photograph."""
    bytes: Mapping[str, int | None]
    auto: int
    codec: str
    """The codec that ``auto`` chose."""
    score: float
    """SSIMULACRA 2 of the learned codec, and of the choice."""
    auto_score: float
    block_psnr: float
    auto_block_psnr: float
    seconds: float
    """Encoding, decoding and measuring with the learned codec alone, and with ``auto``."""
    auto_seconds: float

    @property
    def kind(self) -> str:
        return self.name.rpartition("-")[0]

    @property
    def hindsight(self) -> int:
        """Bytes of the smallest of all codecs that are as good."""
        return min(size for size in self.bytes.values() if size is not None)

    @property
    def best(self) -> str:
        """The codec with the fewest bytes among those that are as good."""
        return min((size, name) for name, size in self.bytes.items() if size is not None)[1]


def run(
    pictures: Mapping[str, Pixels],
    *,
    quality: float = defaults.QUALITY,
    names: Sequence[str] = defaults.CHOICE,
    progress: Callable[[int], None] | None = None,
) -> list[Row]:
    """Measure every picture; the first of ``names`` is the measure of the others. Raises ``UsageError``."""
    if not pictures or len(names) < 2:
        raise UsageError("a choice needs pictures and at least two codecs")
    first, *rivals = map(load_codec, names)
    target = Target(quality=quality)
    alone = Compressor(first, target=target, shares=_ALL, limited=False)
    auto = Choice(first, rivals, target=target, shares=_ALL)
    rows = []
    for name, pixels in pictures.items():
        rows.append(_row(name, pixels, alone, auto, [first, *rivals]))
        if progress is not None:
            progress(1)
    return rows


def _row(name: str, pixels: Pixels, alone: Compressor, auto: Choice, codecs: Sequence[Codec]) -> Row:
    first, *rivals = codecs
    item = _item(name, pixels)
    start = perf_counter()
    [usual] = alone.compress([item], Stopwatch())
    middle = perf_counter()
    [chosen] = auto.compress([item], Stopwatch())
    end = perf_counter()
    if not isinstance(usual, Compressed) or not isinstance(chosen, Compressed):
        raise UsageError(f"{name} does not reach the quality floors, or does not shrink; take another quality")
    maps = FlatMaps(pixels)
    sizes: dict[str, int | None] = {first.name: usual.size}
    for rival in rivals:
        sizes[rival.name] = _least(rival, pixels, maps, usual.measured)
    return Row(
        name=name,
        photograph=look_at(pixels).photograph,
        bytes=sizes,
        auto=chosen.size,
        codec=next(codec.name for codec in codecs if codec.digest == chosen.codec),
        score=usual.measured.ssimulacra2 or 0.0,
        auto_score=chosen.measured.ssimulacra2 or 0.0,
        block_psnr=usual.measured.block_psnr,
        auto_block_psnr=chosen.measured.block_psnr,
        seconds=middle - start,
        auto_seconds=end - middle,
    )


def _item(name: str, pixels: Pixels) -> Item:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "BMP")  # so large that whatever is chosen is smaller
    data = buffer.getvalue()
    return Item(source=Source(key=name, uri=name, size=len(data)), data=data, picture=read_picture(data))


def _least(codec: Codec, pixels: Pixels, maps: FlatMaps, bar: Quality) -> int | None:
    """Bytes at the lowest whole quality that is no worse than ``bar``; None if there is none."""
    if codec.lossless:
        return len(codec.encode([pixels], MAX_QUALITY)[0].bitstream)
    low, high, best = int(MIN_QUALITY), int(MAX_QUALITY), None
    while low <= high:
        middle = (low + high) // 2
        payload = codec.encode([pixels], float(middle))[0].bitstream
        side, painted = maps.side(b"", len(payload), codec.decode([payload])[0].pixels)
        got = measure(pixels, painted, with_ms_ssim=False)
        if (got.ssimulacra2 or 0) >= (bar.ssimulacra2 or 0) and got.block_psnr >= min(bar.block_psnr, _EXACT):
            best, high = len(payload) + len(side), middle - 1
        else:
            low = middle + 1
    return best


def show(rows: Sequence[Row]) -> list[Table]:
    """Tables of bytes by kind, and of what the look and the choice cost."""
    from lichen.jobs import console

    names = list(rows[0].bytes)
    bytes_ = console.table("Bytes at equal quality", ("kind", "pictures", *names, "auto", "hindsight", "", "chosen"))
    kinds = {row.kind: [one for one in rows if one.kind == row.kind] for row in rows}
    for kind, some in [*kinds.items(), ("all", list(rows))]:
        alone = [_alone(some, name) for name in names]
        auto, hindsight = sum(row.auto for row in some), sum(row.hindsight for row in some)
        chosen = ", ".join(dict.fromkeys(row.codec for row in some)) if kind != "all" else ""
        cells = f"{auto:,}", f"{hindsight:,}", f"{100 * (auto / hindsight - 1):+.1f} %", chosen
        bytes_.add_row(kind, str(len(some)), *alone, *cells)
    head = ("kind", "photographs by the look", "SSIMULACRA 2", "auto", "worst block dB", "auto", "seconds", "auto")
    quality = console.table("Quality and time", head)
    for kind, some in [*kinds.items(), ("all", list(rows))]:
        score, auto_score = (fmean(values) for values in zip(*((r.score, r.auto_score) for r in some), strict=True))
        block, auto_block = min(r.block_psnr for r in some), min(r.auto_block_psnr for r in some)
        seconds, auto_seconds = sum(r.seconds for r in some), sum(r.auto_seconds for r in some)
        numbers = score, auto_score, block, auto_block, seconds, auto_seconds
        quality.add_row(kind, str(sum(r.photograph for r in some)), *(f"{number:.1f}" for number in numbers))
    return [bytes_, quality]


def _alone(rows: Sequence[Row], name: str) -> str:
    """Bytes of one codec; where it cannot be as good those of the largest, and in brackets how often."""
    sizes = [row.bytes[name] for row in rows]
    worst = [max(size for size in row.bytes.values() if size is not None) for row in rows]
    total = sum(size or most for size, most in zip(sizes, worst, strict=True))
    missing = sum(size is None for size in sizes)
    return f"{total:,}" + (f" ({missing})" if missing else "")
