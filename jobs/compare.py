"""Several learned codecs side by side on the same pictures: rate-distortion, size, cost and speed in one table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import cast

from lichen.errors import UsageError
from lichen.jobs.evaluate import Comparison, Curve, compare, measured_curve
from lichen.models.batched import BatchedCodec
from lichen.models.codec import Codec, Pixels
from lichen.models.registry import cost


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One codec. Speeds are means over the qualities, in megapixels per second on this machine.

    ``against`` is the BD-rate by PSNR against the reference, None for the reference itself; parameters and
    multiplications per pixel are those of encoder and decoder together.
    """

    name: str
    parameters: int
    mac_per_pixel: float
    encode_mp_per_s: float
    decode_mp_per_s: float
    curve: Curve
    against: Comparison | None


def compare_codecs(
    codecs: Mapping[str, Codec],
    images: Sequence[Pixels],
    reference: str,
    *,
    qualities: Sequence[float] | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[Compared]:
    """Measure every codec, by name, at the same qualities, and compare with ``reference``.

    Raises ``UsageError`` if the reference is none of them or a codec has no network, and what ``rd_points`` raises.
    """
    if reference not in codecs:
        raise UsageError(f"the reference {reference!r} is none of {', '.join(codecs)}")
    for name, codec in codecs.items():
        if not isinstance(codec, BatchedCodec):
            raise UsageError(f"{name} has no network to compare; use --against for it")
    curves = {
        name: measured_curve(codec, images, qualities, name=name, metrics=("psnr",), progress=progress)
        for name, codec in codecs.items()
    }
    rows = []
    for name, codec in codecs.items():
        parameters, multiplications = cost(cast(BatchedCodec, codec).network.config)
        points = curves[name].points
        rows.append(
            Compared(
                name=name,
                parameters=parameters,
                mac_per_pixel=multiplications,
                encode_mp_per_s=fmean(p.encode_mp_per_s or 0 for p in points),
                decode_mp_per_s=fmean(p.decode_mp_per_s or 0 for p in points),
                curve=curves[name],
                against=None if name == reference else compare(curves[name], curves[reference], "psnr"),
            )
        )
    return rows
