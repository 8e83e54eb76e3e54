"""The codec protocol: what every learned and classical codec offers to the pipeline; and the scale of quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from lichen.defaults import EFFORT
from lichen.errors import UsageError

Pixels: TypeAlias = NDArray[np.uint8]
"""An RGB picture: ``(height, width, 3)`` uint8."""

MIN_QUALITY, MAX_QUALITY = 1.0, 100.0
STEPS_OF_QUALITY = 8
"""Steps of the learned codecs between two whole qualities."""
QUALITY_CODES = int(MAX_QUALITY - MIN_QUALITY) * STEPS_OF_QUALITY + 1
"""Qualities that a learned codec tells apart: 793."""
MIN_EFFORT, MAX_EFFORT = 1, 9
BATCH_PIXELS = 1 << 19
"""Pixels that are worked on at once where a codec has no wish of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """One compressed picture. ``symbols`` is the 16-byte digest of the coded integers."""

    bitstream: bytes
    symbols: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """One decoded picture with the digest of the integers that were decoded, equal to the encoder's."""

    pixels: Pixels
    symbols: bytes


@runtime_checkable
class Codec(Protocol):
    """A trained (or classical) codec with its entropy coder.

    Both methods take lists of pictures of mixed sizes, from 1x1 up, and are safe to call from several threads at once.
    Codecs of other packages may leave out the four properties in ``DEFAULTS``.
    """

    @property
    def name(self) -> str: ...

    @property
    def digest(self) -> str:
        """SHA-256 of what decoding depends on and of nothing else: 64 hexadecimal digits."""
        ...

    @property
    def lossless(self) -> bool:
        """Whether all pixels come back as they were, at any quality."""
        ...

    @property
    def quality_step(self) -> float:
        """Distance of two qualities that give other pictures."""
        ...

    @property
    def batch_pixels(self) -> int:
        """Pixels of the pictures that are best given to it at once."""
        ...

    @property
    def runs_on(self) -> str | None:
        """The kind of device that its networks compute on (``cpu``, ``cuda``); None for a codec without networks."""
        ...

    def encode(
        self, images: Sequence[Pixels], quality: float | Sequence[float], *, effort: int = EFFORT
    ) -> list[Encoded]:
        """Compress pictures at quality 1 to 100 (continuous; one for all, or one each).

        ``effort`` 1 to 9 is the encoder's time alone; codecs may have fewer levels, or one.
        """
        ...

    def decode(self, bitstreams: Sequence[bytes]) -> list[Decoded]:
        """Decode bitstreams. Raises ``CorruptBitstream`` or ``CodecMismatch``; never crashes or hangs."""
        ...

    def decoder_files(self) -> Mapping[str, bytes]:
        """What an archive must carry to decode: file extension (``json``, ``safetensors``) to content."""
        ...


DEFAULTS: Mapping[str, object] = {
    "lossless": False,
    "quality_step": 1 / STEPS_OF_QUALITY,
    "batch_pixels": BATCH_PIXELS,
    "runs_on": None,
}
"""What a codec is taken to be that does not say."""


def quality_code(quality: float) -> int:
    """The integer that stands for a quality from 1 to 100 in bitstreams: 0 to 792."""
    return min(max(round((quality - MIN_QUALITY) * STEPS_OF_QUALITY), 0), QUALITY_CODES - 1)


def code_quality(code: int) -> float:
    """The quality that a code stands for."""
    return MIN_QUALITY + code / STEPS_OF_QUALITY


def check_effort(effort: int) -> int:
    """``effort``, if it is 1 to 9. Raises ``UsageError``."""
    if not MIN_EFFORT <= effort <= MAX_EFFORT:
        raise UsageError(f"effort {effort} is not between {MIN_EFFORT} and {MAX_EFFORT}")
    return effort


def check_qualities(quality: float | Sequence[float], pictures: int) -> list[float]:
    """One quality for each picture. Raises ``UsageError`` for another number of them, or one that is not 1 to 100."""
    qualities = [quality] * pictures if isinstance(quality, int | float) else list(quality)
    if len(qualities) != pictures:
        raise UsageError(f"{len(qualities)} qualities for {pictures} pictures")
    for value in qualities:
        if not MIN_QUALITY <= value <= MAX_QUALITY:  # refuses NaN, too
            raise UsageError(f"quality {value} is not between {MIN_QUALITY:.0f} and {MAX_QUALITY:.0f}")
    return qualities


def symbol_digest(*arrays: NDArray[np.generic] | bytes) -> bytes:
    """Digest coded integers: 16-byte BLAKE2b over the little-endian bytes of each array, in order."""
    digest = blake2b(digest_size=16)
    for array in arrays:
        digest.update(array if isinstance(array, bytes) else np.ascontiguousarray(array).tobytes())
    return digest.digest()
