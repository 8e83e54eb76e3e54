"""How close a decoded picture is to its source: PSNR, the worst block's PSNR, MS-SSIM and SSIMULACRA 2.

All are kernels that release the interpreter's lock and use one core per call, because they run on the pictures of a
job. Both PSNRs come from one pass over the bytes; the other two are in ``lichen.pipeline.measures``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lichen.errors import UsageError
from lichen.models.codec import Pixels
from lichen.pipeline.measures.kernels import check_pair, kernel
from lichen.pipeline.measures.ms_ssim import ms_ssim
from lichen.pipeline.measures.ssimulacra2 import ssimulacra2
from lichen.pipeline.pictures.reading import grey_plane

BLOCK = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """PSNRs in decibels (infinite for equal pictures); MS-SSIM and SSIMULACRA 2, None where small or not measured."""

    psnr: float
    block_psnr: float
    ms_ssim: float | None
    ssimulacra2: float | None = None


def measure(
    a: Pixels, b: Pixels, mode: str = "RGB", *, with_ms_ssim: bool = True, with_ssimulacra2: bool = True
) -> Quality:
    """Compare two (height, width, 3) uint8 pictures; for modes L and LA, as grey planes.

    Alpha is lossless and not counted. What is left out, because it costs, is None. Raises ``UsageError`` when the
    shapes differ.
    """
    check_pair(a, b)
    if mode in ("L", "LA"):
        a, b = (grey_plane(pixels)[:, :, None] for pixels in (a, b))
    whole, worst = _squared_errors(np.ascontiguousarray(a), np.ascontiguousarray(b), BLOCK)
    return Quality(
        psnr=_decibels(whole),
        block_psnr=_decibels(worst),
        ms_ssim=ms_ssim(a, b) if with_ms_ssim else None,
        ssimulacra2=ssimulacra2(a, b) if with_ssimulacra2 else None,
    )


def psnr(a: Pixels, b: Pixels) -> float:
    """Peak signal-to-noise ratio over all samples, in dB; infinite for equal pictures."""
    check_pair(a, b)
    return _decibels(_squared_errors(np.ascontiguousarray(a), np.ascontiguousarray(b), BLOCK)[0])


def block_psnr(a: Pixels, b: Pixels, block: int = BLOCK) -> float:
    """PSNR of the worst ``block`` x ``block`` square, in dB.

    Blocks lie on a grid from the top left; the last ones of a row or column are moved inwards so that they
    are whole and no sliver decides. A picture smaller than a block is one block.
    """
    check_pair(a, b)
    if not 1 <= block <= 4096:
        raise UsageError(f"block must be 1 to 4096, not {block}")
    return _decibels(_squared_errors(np.ascontiguousarray(a), np.ascontiguousarray(b), block)[1])


def _decibels(mean_squared_error: float) -> float:
    return math.inf if mean_squared_error == 0 else 10 * math.log10(255**2 / mean_squared_error)


@kernel
def _squared_errors(a: NDArray[np.uint8], b: NDArray[np.uint8], block: int) -> tuple[float, float]:
    """Mean squared error of the whole picture and of its worst block.

    Blocks that were moved inwards overlap their neighbours: rows and columns that they share count once in
    the whole.
    """
    height, width, channels = a.shape
    flat_a = a.reshape(height, width * channels)
    flat_b = b.reshape(height, width * channels)
    block_h, block_w = min(block, height), min(block, width)
    total, worst = np.int64(0), np.int64(0)
    for top in range(0, height, block_h):
        start_y = min(top, height - block_h)
        for left in range(0, width, block_w):
            start_x = min(left, width - block_w)
            block_sum = np.int64(0)
            for row in range(start_y, start_y + block_h):
                row_a = flat_a[row, start_x * channels : (start_x + block_w) * channels]
                row_b = flat_b[row, start_x * channels : (start_x + block_w) * channels]
                new = (left - start_x) * channels
                seen_sum, row_sum = np.int32(0), np.int32(0)
                for i in range(new):
                    difference = np.int32(row_a[i]) - np.int32(row_b[i])
                    seen_sum += difference * difference
                for i in range(new, block_w * channels):
                    difference = np.int32(row_a[i]) - np.int32(row_b[i])
                    row_sum += difference * difference
                block_sum += seen_sum + row_sum
                if row >= top:
                    total += row_sum
            worst = max(worst, block_sum)
    return float(total / (height * width * channels)), float(worst / (block_h * block_w * channels))
