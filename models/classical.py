"""The classical codecs (JPEG, WebP, AVIF, JPEG XL) behind the same protocol as the learned ones.

Two of them lose nothing, whatever the quality: ``webp-lossless`` and ``jxl-lossless``.

A bitstream is the plain file that the format's own library writes, without metadata, so that any viewer opens
it. Settings at the default effort are those that the literature and this project's anchors use: JPEG optimised
and progressive with 4:2:0 chroma (libjpeg's default, the better rate-distortion choice at its usual rates), WebP
method 6, AVIF speed 6 with 4:4:4 chroma, JPEG XL effort 7. Two formats have two encoders: ``jpeg`` is written by
libjpeg-turbo and ``jpegli`` by the encoder of that name, ``avif`` is tuned for the eye, as Pillow does by default
(libaom's ``tune=iq``), and ``avif-psnr`` for squared error.

The formats have no checksum of their own: what is structurally broken raises ``CorruptBitstream``, but a
flipped bit inside entropy-coded data may decode to other pixels. The symbol digest, which covers the whole
bitstream, and the archive's CRC see it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import TypeVar

import numpy as np

from lichen.defaults import EFFORT
from lichen.errors import CorruptBitstream, UnsupportedPicture, UsageError
from lichen.models.classical_formats import DECODE_ERRORS, FORMATS, jxl_size, stated_size
from lichen.models.codec import BATCH_PIXELS, Decoded, Encoded, Pixels, check_effort, check_qualities, symbol_digest

__all__ = ["CLASSICAL_NAMES", "DECODE_ERRORS", "ClassicalCodec", "jxl_size", "stated_size"]

MAX_PIXELS = 1 << 27
"""Largest picture by default, in pixels: decoding it stays below 1 GB (Pillow holds 4 bytes a pixel)."""

CLASSICAL_NAMES = tuple(FORMATS)
"""The names that ``ClassicalCodec`` knows."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class ClassicalCodec:
    """One classical format as a codec.

    ``threads`` is how many pictures are worked on at once (Pillow releases the interpreter's lock); by
    default ``OMP_NUM_THREADS`` or else the cores that the process may use. Pictures of more than
    ``max_pixels``, or with a side that the format cannot hold, are refused in both directions.
    """

    def __init__(self, name: str, *, max_pixels: int = MAX_PIXELS, threads: int | None = None) -> None:
        if name not in FORMATS:
            raise UsageError(f"no classical codec {name!r}; there are {', '.join(FORMATS)}")
        if threads is not None and threads < 1:
            raise UsageError(f"threads must be at least 1, not {threads}")
        self._name = name
        self._format = FORMATS[name]
        self._max_pixels = max_pixels
        self._threads = threads or _default_threads()

    @property
    def name(self) -> str:
        """One of ``CLASSICAL_NAMES``."""
        return self._name

    @property
    def settings(self) -> str:
        """The encoder and what it is told at the default effort, in words."""
        return self._format.settings

    @property
    def lossless(self) -> bool:
        """Whether all pixels come back as they were, at any quality."""
        return self._format.lossless

    @property
    def quality_step(self) -> float:
        """A whole step, as the formats' own scales have it; qualities between give no other pictures."""
        return 1.0

    @property
    def batch_pixels(self) -> int:
        """What other codecs take as well, since pictures are worked on one by one here."""
        return BATCH_PIXELS

    @property
    def runs_on(self) -> None:
        """None, since there is no network that could run on a device."""
        return None

    @property
    def digest(self) -> str:
        """SHA-256 of the JSON of ``decoder_files``."""
        return sha256(self.decoder_files()["json"]).hexdigest()

    def encode(
        self, images: Sequence[Pixels], quality: float | Sequence[float], *, effort: int = EFFORT
    ) -> list[Encoded]:
        """Compress (height, width, 3) uint8 pictures at quality 1 to 100, rounded to the format's own scale.

        ``effort`` selects the format's own speed; JPEG has none.

        Raises ``UsageError`` for a bad quality or array and ``UnsupportedPicture`` for a picture that is too
        large for the format.
        """
        qualities = check_qualities(quality, len(images))
        level = self._format.efforts[check_effort(effort) - 1]
        return self._map(self._encode_one, [(*pair, level) for pair in zip(images, qualities, strict=True)])

    def decode(self, bitstreams: Sequence[bytes]) -> list[Decoded]:
        """Decode bitstreams; raises ``CorruptBitstream`` on what is not a whole picture of this format."""
        return self._map(self._decode_one, list(bitstreams))

    def decoder_files(self) -> Mapping[str, bytes]:
        """The format's name is all that decoding needs."""
        config = {"family": "classical", "format": 1, "name": self._name}
        return {"json": json.dumps(config, sort_keys=True, separators=(",", ":")).encode()}

    def _encode_one(self, job: tuple[Pixels, float, int]) -> Encoded:
        pixels, quality, level = job
        if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or pixels.size == 0:
            raise UsageError(f"a picture must be (height, width, 3) uint8, not {pixels.shape} {pixels.dtype}")
        height, width = pixels.shape[:2]
        if max(height, width) > self._format.max_side or height * width > self._max_pixels:
            raise UnsupportedPicture(
                f"{width}x{height} is too large for {self._name}: at most {self._format.max_side} a side "
                f"and {self._max_pixels} pixels"
            )
        bitstream = self._format.write(np.ascontiguousarray(pixels), quality, level)
        return Encoded(bitstream=bitstream, symbols=symbol_digest(bitstream))

    def _decode_one(self, bitstream: bytes) -> Decoded:
        try:
            pixels = self._format.read(bytes(bitstream), self._max_pixels)
        except DECODE_ERRORS as error:
            raise CorruptBitstream(f"not a {self._name} picture: {error}") from error
        return Decoded(pixels=pixels, symbols=symbol_digest(bytes(bitstream)))

    def _map(self, function: Callable[[_In], _Out], items: list[_In]) -> list[_Out]:
        threads = min(self._threads, len(items))
        if threads <= 1:
            return [function(item) for item in items]
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(function, items))


def _default_threads() -> int:
    declared = os.environ.get("OMP_NUM_THREADS", "")
    if declared.isdecimal() and int(declared) > 0:
        return int(declared)
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS and Windows
    return len(affinity(0)) if affinity else os.cpu_count() or 1
