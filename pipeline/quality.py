"""How close a decoded picture is to its source: PSNR, the worst block's PSNR, and MS-SSIM.

All three are numba kernels that release the interpreter's lock and use one core per call, because they run on
every picture of a job: the two PSNRs come from one pass over the bytes, and MS-SSIM streams through
the picture row by row, so that its 4 filtered maps never leave the cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lichen.models.codec import Pixels
from lichen.models.errors import UsageError
from lichen.pipeline.images import grey_plane

BLOCK = 64
MS_SSIM_MIN_SIDE = 161
"""Shortest side for five scales: the 11-tap window must fit into a sixteenth of the picture."""

_F = TypeVar("_F", bound=Callable[..., Any])
if TYPE_CHECKING:

    def _kernel(function: _F) -> _F: ...

else:
    _kernel = njit(nogil=True, cache=True, fastmath=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """PSNRs in decibels (infinite for equal pictures) and MS-SSIM, which is None for small pictures."""

    psnr: float
    block_psnr: float
    ms_ssim: float | None


def measure(a: Pixels, b: Pixels, mode: str = "RGB", *, with_ms_ssim: bool = True) -> Quality:
    """Compare two (height, width, 3) uint8 pictures; for modes L and LA, as grey planes.

    Alpha is lossless and not counted. ``with_ms_ssim=False`` leaves out the costly part (``ms_ssim`` is then
    None). Raises ``UsageError`` when the shapes differ.
    """
    _check(a, b)
    if mode in ("L", "LA"):
        a, b = grey_plane(a)[:, :, None], grey_plane(b)[:, :, None]
    whole, worst = _squared_errors(np.ascontiguousarray(a), np.ascontiguousarray(b), BLOCK)
    return Quality(psnr=_decibels(whole), block_psnr=_decibels(worst), ms_ssim=ms_ssim(a, b) if with_ms_ssim else None)


def psnr(a: Pixels, b: Pixels) -> float:
    """Peak signal-to-noise ratio over all samples, in dB; infinite for equal pictures."""
    _check(a, b)
    return _decibels(_squared_errors(np.ascontiguousarray(a), np.ascontiguousarray(b), BLOCK)[0])


def block_psnr(a: Pixels, b: Pixels, block: int = BLOCK) -> float:
    """PSNR of the worst ``block`` x ``block`` square, in dB.

    Blocks lie on a grid from the top left; the last ones of a row or column are moved inwards so that they
    are whole and no sliver decides. A picture smaller than a block is one block.
    """
    _check(a, b)
    if not 1 <= block <= 4096:
        raise UsageError(f"block must be 1 to 4096, not {block}")
    return _decibels(_squared_errors(np.ascontiguousarray(a), np.ascontiguousarray(b), block)[1])


def ms_ssim(a: Pixels, b: Pixels) -> float | None:
    """Multi-scale SSIM of (height, width, channels) uint8 pictures, mean over channels; None if too small.

    Wang, Simoncelli and Bovik 2003, with the conventions of the pytorch_msssim package (data range 255,
    11-tap Gaussian of sigma 1.5 without padding, 2x2 means between scales with zeros added to odd sides,
    negative terms clipped to 0), which it matches within 1e-4.
    """
    _check(a, b)
    if min(a.shape[:2]) < MS_SSIM_MIN_SIDE:
        return None
    total = 0.0
    for channel in range(a.shape[2]):
        x: NDArray[Any] = a[:, :, channel]
        y: NDArray[Any] = b[:, :, channel]
        product = 1.0
        for scale, weight in enumerate(_SCALE_WEIGHTS):
            centre = np.float32(128 if scale == 0 else 0)
            similarity, contrast = _ssim(x, y, centre)
            last = scale == len(_SCALE_WEIGHTS) - 1
            product *= max(similarity if last else contrast, 0.0) ** weight
            if not last:
                x, y = _halve(x, centre), _halve(y, centre)
        total += product
    return total / a.shape[2]


def _check(a: Pixels, b: Pixels) -> None:
    if a.shape != b.shape or a.ndim != 3 or a.size == 0:
        raise UsageError(f"cannot compare pictures of shapes {a.shape} and {b.shape}")
    if a.dtype != np.uint8 or b.dtype != np.uint8:
        raise UsageError(f"cannot compare pictures of types {a.dtype} and {b.dtype}")


def _decibels(mean_squared_error: float) -> float:
    return math.inf if mean_squared_error == 0 else 10 * math.log10(255**2 / mean_squared_error)


@_kernel
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


# --- MS-SSIM -------------------------------------------------------------------------------------

_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_TAPS = 11
_STRIP = 512  # columns at once: 4 maps x 11 rows x 512 floats stay in a core's second-level cache
_C1, _C2 = np.float32((0.01 * 255) ** 2), np.float32((0.03 * 255) ** 2)
_GAUSS = [math.exp(-((i - 5) ** 2) / (2 * 1.5**2)) for i in range(_TAPS)]
_W0, _W1, _W2, _W3, _W4, _W5 = (np.float32(value / sum(_GAUSS)) for value in _GAUSS[:6])


@_kernel
def _halve(plane: NDArray[Any], centre: np.float32) -> NDArray[np.float32]:
    """2x2 means less ``centre``; an odd side gets a border of zeros (-128 here) on both ends, as in PyTorch."""
    height, width = plane.shape
    pad_y, pad_x = height % 2, width % 2
    half = np.empty(((height + 2 * pad_y) // 2, (width + 2 * pad_x) // 2), np.float32)
    for row in range(half.shape[0]):
        y0, y1 = 2 * row - pad_y, 2 * row + 1 - pad_y
        if y0 >= 0 and y1 < height and pad_x == 0:
            upper, lower, out = plane[y0], plane[y1], half[row]
            for column in range(half.shape[1]):
                i = 2 * column
                above = np.float32(upper[i]) + np.float32(upper[i + 1])
                below = np.float32(lower[i]) + np.float32(lower[i + 1])
                out[column] = np.float32(0.25) * (above + below) - centre
            continue
        for column in range(half.shape[1]):
            total = np.float32(0)
            for y in (y0, y1):
                for x in (2 * column - pad_x, 2 * column + 1 - pad_x):
                    inside = 0 <= y < height and 0 <= x < width
                    total += np.float32(plane[y, x]) - centre if inside else np.float32(-128)
            half[row, column] = np.float32(0.25) * total
    return half


@_kernel
def _blur_row(source: NDArray[np.float32], target: NDArray[np.float32], count: int) -> None:
    """``target[i] = sum of source[i .. i + 10]`` with Gaussian weights, for ``count`` samples."""
    for i in range(count):
        target[i] = (
            _W0 * (source[i] + source[i + 10])
            + _W1 * (source[i + 1] + source[i + 9])
            + _W2 * (source[i + 2] + source[i + 8])
            + _W3 * (source[i + 3] + source[i + 7])
            + _W4 * (source[i + 4] + source[i + 6])
            + _W5 * source[i + 5]
        )


@_kernel
def _blur_column(ring: NDArray[np.float32], first: int, target: NDArray[np.float32], count: int) -> None:
    """The same down the 11 rows of a ring buffer whose oldest row is ``first``."""
    r0, r1, r2 = ring[first % 11], ring[(first + 1) % 11], ring[(first + 2) % 11]
    r3, r4, r5 = ring[(first + 3) % 11], ring[(first + 4) % 11], ring[(first + 5) % 11]
    r6, r7, r8 = ring[(first + 6) % 11], ring[(first + 7) % 11], ring[(first + 8) % 11]
    r9, r10 = ring[(first + 9) % 11], ring[(first + 10) % 11]
    for i in range(count):
        target[i] = (
            _W0 * (r0[i] + r10[i])
            + _W1 * (r1[i] + r9[i])
            + _W2 * (r2[i] + r8[i])
            + _W3 * (r3[i] + r7[i])
            + _W4 * (r4[i] + r6[i])
            + _W5 * r5[i]
        )


@_kernel
def _ssim(x: NDArray[Any], y: NDArray[Any], centre: np.float32) -> tuple[float, float]:
    """Mean SSIM and mean contrast-structure term of two planes, valid windows only.

    Samples are used less 128, which changes no variance and loses less in single precision: ``centre`` is what
    is still to be subtracted (128 of bytes, 0 of smaller scales). Four maps are enough: the means of x, y,
    x^2 + y^2 and xy, since only the sum of the variances is needed.
    """
    height, width = x.shape
    out_h, out_w = height - _TAPS + 1, width - _TAPS + 1
    ring = np.empty((4, _TAPS, _STRIP), np.float32)
    row_x = np.empty(_STRIP + _TAPS, np.float32)
    row_y = np.empty(_STRIP + _TAPS, np.float32)
    squares = np.empty(_STRIP + _TAPS, np.float32)
    products = np.empty(_STRIP + _TAPS, np.float32)
    blurred = np.empty((4, _STRIP), np.float32)
    mean_x, mean_y, mean_squares, mean_products = blurred[0], blurred[1], blurred[2], blurred[3]
    two, middle = np.float32(2), np.float32(128)
    ssim_total, contrast_total = 0.0, 0.0
    for left in range(0, out_w, _STRIP):
        count = min(_STRIP, out_w - left)
        for row in range(height):
            for i in range(count + _TAPS - 1):
                row_x[i] = np.float32(x[row, left + i]) - centre
                row_y[i] = np.float32(y[row, left + i]) - centre
            for i in range(count + _TAPS - 1):
                squares[i] = row_x[i] * row_x[i] + row_y[i] * row_y[i]
                products[i] = row_x[i] * row_y[i]
            slot = row % _TAPS
            _blur_row(row_x, ring[0, slot], count)
            _blur_row(row_y, ring[1, slot], count)
            _blur_row(squares, ring[2, slot], count)
            _blur_row(products, ring[3, slot], count)
            if row < _TAPS - 1:
                continue
            for index in range(4):
                _blur_column(ring[index], row + 1, blurred[index], count)
            ssim_sum, contrast_sum = np.float32(0), np.float32(0)
            for i in range(count):
                mx, my = mean_x[i], mean_y[i]
                variances = mean_squares[i] - mx * mx - my * my
                covariance = mean_products[i] - mx * my
                contrast = (two * covariance + _C2) / (variances + _C2)
                mx += middle
                my += middle
                luminance = (two * mx * my + _C1) / (mx * mx + my * my + _C1)
                contrast_sum += contrast
                ssim_sum += contrast * luminance
            ssim_total += float(ssim_sum)
            contrast_total += float(contrast_sum)
    area = out_h * out_w
    return ssim_total / area, contrast_total / area
