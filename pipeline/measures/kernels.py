"""What the kernels of several measures share: how they are compiled, and the Gaussian window."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from lichen.errors import UsageError
from lichen.models.codec import Pixels

TAPS = 11
_F = TypeVar("_F", bound=Callable[..., Any])
if TYPE_CHECKING:

    def kernel(function: _F) -> _F:
        """Compiles a function; calls release the interpreter's lock and use one core."""
        ...

else:
    kernel = njit(nogil=True, cache=True, fastmath=True)

_GAUSS = [math.exp(-((i - 5) ** 2) / (2 * 1.5**2)) for i in range(TAPS)]
_W0, _W1, _W2, _W3, _W4, _W5 = (np.float32(value / sum(_GAUSS)) for value in _GAUSS[:6])


def check_pair(a: Pixels, b: Pixels) -> None:
    """Raises ``UsageError`` unless both are (height, width, channels) uint8 pictures of one shape."""
    if a.shape != b.shape or a.ndim != 3 or a.size == 0:
        raise UsageError(f"cannot compare pictures of shapes {a.shape} and {b.shape}")
    if a.dtype != np.uint8 or b.dtype != np.uint8:
        raise UsageError(f"cannot compare pictures of types {a.dtype} and {b.dtype}")


@kernel
def blur_row(source: NDArray[np.float32], target: NDArray[np.float32], count: int) -> None:
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


@kernel
def blur_column(ring: NDArray[np.float32], first: int, target: NDArray[np.float32], count: int) -> None:
    """Blur down the 11 rows of a ring buffer whose oldest row is ``first``, with the kernel of ``blur_row``."""
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
