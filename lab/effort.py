"""What effort buys: bits at equal PSNR, and the encoder's time, level by level."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from lichen.defaults import EFFORT
from lichen.errors import UsageError
from lichen.jobs.evaluate import Comparison, Curve, compare, rd_points
from lichen.models.codec import Codec, Pixels, check_effort


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """One level of effort: its curve, its BD-rate by PSNR against the default effort, and speeds in MP/s."""

    effort: int
    curve: Curve
    against: Comparison | None
    encode_mp_per_s: float
    decode_mp_per_s: float


def run(
    codec: Codec,
    images: Sequence[Pixels],
    efforts: Sequence[int],
    *,
    qualities: Sequence[float] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Level]:
    """Measure a codec at the default effort and at ``efforts``. Raises ``UsageError``."""
    if not efforts:
        raise UsageError("say which efforts to measure")
    levels = sorted({EFFORT, *map(check_effort, efforts)})
    curves = {
        effort: Curve(
            name=f"{codec.name}, effort {effort}",
            source="measured now",
            measured=True,
            points=tuple(rd_points(codec, images, qualities, effort=effort, progress=progress)),
        )
        for effort in levels
    }
    return [
        Level(
            effort=effort,
            curve=curve,
            against=None if effort == EFFORT else compare(curve, curves[EFFORT], "psnr"),
            encode_mp_per_s=fmean(point.encode_mp_per_s or 0 for point in curve.points),
            decode_mp_per_s=fmean(point.decode_mp_per_s or 0 for point in curve.points),
        )
        for effort, curve in curves.items()
    ]
