"""MS-SSIM as kernels that stream through a picture row by row, so that its 4 filtered maps never leave the cache."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lichen.models.codec import Pixels
from lichen.pipeline.measures.kernels import TAPS, blur_column, blur_row, check_pair, kernel

MS_SSIM_MIN_SIDE = 161
"""Shortest side for five scales: the 11-tap window must fit into a sixteenth of the picture."""

_SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
_STRIP = 512  # columns at once: 4 maps x 11 rows x 512 floats stay in a core's second-level cache
_C1, _C2 = np.float32((0.01 * 255) ** 2), np.float32((0.03 * 255) ** 2)


def ms_ssim(a: Pixels, b: Pixels) -> float | None:
    """Multi-scale SSIM of (height, width, channels) uint8 pictures, mean over channels; None if too small.

    Wang, Simoncelli and Bovik 2003, with the conventions of the pytorch_msssim package (data range 255,
    11-tap Gaussian of sigma 1.5 without padding, 2x2 means between scales with zeros added to odd sides,
    negative terms clipped to 0), which it matches within 1e-4.
    """
    check_pair(a, b)
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


@kernel
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


@kernel
def _ssim(x: NDArray[Any], y: NDArray[Any], centre: np.float32) -> tuple[float, float]:
    """Mean SSIM and mean contrast-structure term of two planes, valid windows only.

    Samples are used less 128, which changes no variance and loses less in single precision: ``centre`` is what
    is still to be subtracted (128 of bytes, 0 of smaller scales). Four maps are enough: the means of x, y,
    x^2 + y^2 and xy, since only the sum of the variances is needed.
    """
    height, width = x.shape
    out_h, out_w = height - TAPS + 1, width - TAPS + 1
    ring = np.empty((4, TAPS, _STRIP), np.float32)
    row_x = np.empty(_STRIP + TAPS, np.float32)
    row_y = np.empty(_STRIP + TAPS, np.float32)
    squares = np.empty(_STRIP + TAPS, np.float32)
    products = np.empty(_STRIP + TAPS, np.float32)
    blurred = np.empty((4, _STRIP), np.float32)
    mean_x, mean_y, mean_squares, mean_products = blurred[0], blurred[1], blurred[2], blurred[3]
    two, middle = np.float32(2), np.float32(128)
    ssim_total, contrast_total = 0.0, 0.0
    for left in range(0, out_w, _STRIP):
        count = min(_STRIP, out_w - left)
        for row in range(height):
            for i in range(count + TAPS - 1):
                row_x[i] = np.float32(x[row, left + i]) - centre
                row_y[i] = np.float32(y[row, left + i]) - centre
            for i in range(count + TAPS - 1):
                squares[i] = row_x[i] * row_x[i] + row_y[i] * row_y[i]
                products[i] = row_x[i] * row_y[i]
            slot = row % TAPS
            blur_row(row_x, ring[0, slot], count)
            blur_row(row_y, ring[1, slot], count)
            blur_row(squares, ring[2, slot], count)
            blur_row(products, ring[3, slot], count)
            if row < TAPS - 1:
                continue
            for index in range(4):
                blur_column(ring[index], row + 1, blurred[index], count)
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
