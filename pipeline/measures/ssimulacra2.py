"""SSIMULACRA 2.1 of a decoded picture: how much of a difference people see (Sneyers, 2023).

The measure of ``lichen.models.perceptual.ssimulacra2``, which says what it is made of, as kernels in single precision.
They stream through a picture row by row: its colours are converted on the way, and only smaller scales, a quarter of
the samples, are ever held as floating-point numbers. They agree with the reference to 0.01.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lichen.errors import UsageError
from lichen.models.codec import Pixels
from lichen.models.perceptual import constants
from lichen.pipeline.measures.kernels import TAPS, blur_column, blur_row, check_pair, kernel

_STRIP = 256  # columns at once: 12 maps x 11 rows x 256 floats stay in a core's second-level cache
_RADIUS = TAPS // 2
_CODES = np.arange(256) / 255
_LIGHT = np.where(_CODES <= 0.04045, _CODES / 12.92, ((_CODES + 0.055) / 1.055) ** 2.4).astype(np.float32)
"""Linear light of every sRGB code."""
_OPSIN = np.array(constants.OPSIN, np.float32)
_BIAS, _BIAS_ROOT = np.float32(constants.BIAS), np.float32(constants.BIAS ** (1 / 3))
_OUTSIDE = np.array([-0.42, -0.41, -0.55], np.float32)
_C2 = np.float32(constants.C2)


def ssimulacra2(reference: Pixels, distorted: Pixels) -> float | None:
    """The score, from below zero to 100, of ``(H, W, 3)`` sRGB or ``(H, W, 1)`` grey pictures of bytes.

    90 is visually lossless, at 80 no difference is noticed side by side, 70 is high and 50 medium quality. None for
    pictures of less than 8 pixels a side. Raises ``UsageError`` when the shapes or types differ.
    """
    check_pair(reference, distorted)
    if reference.shape[2] not in (1, 3):
        raise UsageError(f"SSIMULACRA 2 is of grey or RGB pictures, not of {reference.shape[2]} channels")
    count = constants.levels(min(reference.shape[:2]))
    if count == 0:
        return None
    one: NDArray[Any] = np.ascontiguousarray(reference)
    two: NDArray[Any] = np.ascontiguousarray(distorted)
    if np.array_equal(one, two):
        return 100.0
    light: NDArray[np.float32] | None = _LIGHT
    total = 0.0
    for scale in range(count):
        if scale:
            one, two = _halve(one, light), _halve(two, light)
            light = None
        total += float((_norms(one, two, light) * constants.weights(scale, count)).sum())
    return constants.score(total)


@kernel
def _halve(pixels: NDArray[Any], light: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """2x2 means of linear light; the last ones of odd sides are of what there is."""
    height, width, channels = pixels.shape
    half = np.empty(((height + 1) // 2, (width + 1) // 2, channels), np.float32)
    for row in range(half.shape[0]):
        y0, y1 = 2 * row, min(2 * row + 1, height - 1)
        for column in range(half.shape[1]):
            x0, x1 = 2 * column, min(2 * column + 1, width - 1)
            for c in range(channels):
                if light is None:
                    total = (pixels[y0, x0, c] + pixels[y0, x1, c]) + (pixels[y1, x0, c] + pixels[y1, x1, c])
                else:
                    total = (light[pixels[y0, x0, c]] + light[pixels[y0, x1, c]]) + (
                        light[pixels[y1, x0, c]] + light[pixels[y1, x1, c]]
                    )
                half[row, column, c] = np.float32(0.25) * total
    return half


@kernel
def _cube_roots(values: NDArray[np.float32], roots: NDArray[np.float32]) -> None:
    """Of positive numbers: a third of the exponent to begin with, then Halley's method, twice."""
    bits, guess = values.view(np.int32), roots.view(np.int32)
    for i in range(len(values)):
        guess[i] = bits[i] // 3 + 709921077
    two = np.float32(2)
    for _ in range(2):
        for i in range(len(values)):
            cube = roots[i] * roots[i] * roots[i]
            roots[i] *= (cube + two * values[i]) / (two * cube + values[i])


@kernel
def _xyb_row(
    source: NDArray[Any],
    first: int,
    light: NDArray[np.float32] | None,
    out: NDArray[np.float32],
    cones: NDArray[np.float32],
    roots: NDArray[np.float32],
) -> None:
    """One row's XYB from column ``first`` on.

    The reference moves the three planes to be positive (by 0.42, 0.01 and 0.55). Nothing here depends on that, and
    around zero single precision loses less; only the zeros outside of the picture must move with them.
    """
    width, channels = source.shape
    length = out.shape[1]
    for i in range(length):
        column = first + i
        if column < 0 or column >= width:
            for c in range(3):
                cones[c, i] = _BIAS
            continue
        if light is None:
            red, green, blue = source[column, 0], source[column, channels // 2], source[column, channels - 1]
        else:
            red = light[source[column, 0]]
            green = light[source[column, channels // 2]]
            blue = light[source[column, channels - 1]]
        for c in range(3):
            cones[c, i] = _OPSIN[c, 0] * red + _OPSIN[c, 1] * green + _OPSIN[c, 2] * blue + _BIAS
    for c in range(3):
        _cube_roots(cones[c], roots[c])
    half = np.float32(0.5)
    for i in range(length):
        long, medium, short = roots[0, i] - _BIAS_ROOT, roots[1, i] - _BIAS_ROOT, roots[2, i] - _BIAS_ROOT
        luminance = half * (long + medium)
        out[0, i] = half * (long - medium) * np.float32(14)
        out[1, i] = luminance - np.float32(0.4)
        out[2, i] = short - luminance
    for i in range(length):
        if first + i < 0 or first + i >= width:
            for c in range(3):
                out[c, i] = _OUTSIDE[c]


@kernel
def _norms(one: NDArray[Any], two: NDArray[Any], light: NDArray[np.float32] | None) -> NDArray[np.float64]:
    """``(3 maps, 2 norms, 3 channels)`` of one scale: similarity, edges that came, edges that went.

    Neighbourhoods end in zeros at the sides, and in mirror images above and below. Four maps are enough: the means of
    x, y, x^2 + y^2 and xy, since only the sum of the variances is needed.
    """
    height, width = one.shape[0], one.shape[1]
    sums = np.zeros((3, 2, 3), np.float64)
    ring = np.empty((3, 4, TAPS, _STRIP), np.float32)
    plain = np.empty((2, 3, TAPS, _STRIP + TAPS - 1), np.float32)
    cones = np.empty((3, _STRIP + TAPS - 1), np.float32)
    roots = np.empty_like(cones)
    squares = np.empty(_STRIP + TAPS - 1, np.float32)
    products = np.empty(_STRIP + TAPS - 1, np.float32)
    blurred = np.empty((4, _STRIP), np.float32)
    mean_x, mean_y, mean_squares, mean_products = blurred[0], blurred[1], blurred[2], blurred[3]
    unit, double = np.float32(1), np.float32(2)
    for left in range(0, width, _STRIP):
        count = min(_STRIP, width - left)
        for step in range(height + TAPS - 1):
            row = (step - _RADIUS) % (2 * height)
            row = row if row < height else 2 * height - 1 - row
            slot = step % TAPS
            _xyb_row(
                one[row],
                left - _RADIUS,
                light,
                plain[0, :, slot, : count + TAPS - 1],
                cones[:, : count + TAPS - 1],
                roots[:, : count + TAPS - 1],
            )
            _xyb_row(
                two[row],
                left - _RADIUS,
                light,
                plain[1, :, slot, : count + TAPS - 1],
                cones[:, : count + TAPS - 1],
                roots[:, : count + TAPS - 1],
            )
            for c in range(3):
                row_x, row_y = plain[0, c, slot], plain[1, c, slot]
                for i in range(count + TAPS - 1):
                    squares[i] = row_x[i] * row_x[i] + row_y[i] * row_y[i]
                    products[i] = row_x[i] * row_y[i]
                blur_row(row_x, ring[c, 0, slot], count)
                blur_row(row_y, ring[c, 1, slot], count)
                blur_row(squares, ring[c, 2, slot], count)
                blur_row(products, ring[c, 3, slot], count)
            if step < TAPS - 1:
                continue
            middle = (step - _RADIUS) % TAPS
            for c in range(3):
                for index in range(4):
                    blur_column(ring[c, index], step + 1, blurred[index], count)
                row_x, row_y = plain[0, c, middle], plain[1, c, middle]
                d1, d4, a1, a4, g1, g4 = (
                    np.float32(0),
                    np.float32(0),
                    np.float32(0),
                    np.float32(0),
                    np.float32(0),
                    np.float32(0),
                )
                for i in range(count):
                    mx, my = mean_x[i], mean_y[i]
                    apart = mx - my
                    variances = mean_squares[i] - mx * mx - my * my
                    covariance = mean_products[i] - mx * my
                    alike = (unit - apart * apart) * (double * covariance + _C2) / (variances + _C2)
                    differs = max(unit - alike, np.float32(0))
                    x, y = row_x[i + _RADIUS], row_y[i + _RADIUS]
                    edge = (unit + abs(y - my)) / (unit + abs(x - mx)) - unit
                    came, went = max(edge, np.float32(0)), max(-edge, np.float32(0))
                    d1 += differs
                    a1 += came
                    g1 += went
                    differs *= differs
                    came *= came
                    went *= went
                    d4 += differs * differs
                    a4 += came * came
                    g4 += went * went
                sums[0, 0, c] += d1
                sums[0, 1, c] += d4
                sums[1, 0, c] += a1
                sums[1, 1, c] += a4
                sums[2, 0, c] += g1
                sums[2, 1, c] += g4
    sums /= height * width
    for index in range(3):
        for c in range(3):
            sums[index, 1, c] **= 0.25
    return sums
