"""Pictures to verified payloads: encode, decode again, compare, raise the quality or keep the original."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from time import perf_counter

import numpy as np

from lichen.models.codec import MAX_QUALITY, Codec, Decoded, Encoded, Pixels, symbol_digest
from lichen.models.errors import JobError, LichenError, VerificationFailed
from lichen.pipeline.engine.config import STAGES
from lichen.pipeline.engine.feed import Item
from lichen.pipeline.images import Picture, pack_side, unpack_side
from lichen.pipeline.quality import Floors, Quality, measure

QUALITY_STEP = 15.0
BROKEN_AFTER = 8
"""Pictures in a row on which the codec fails with errors that are not lichen's: then it is not the pictures."""

LARGER = "larger than the source"
BELOW_FLOOR = "below the quality floor at every quality"
NOT_LOOKED_AT = "its worker dies of it"

# What torch, NumPy and numba raise where memory, a device or a kernel fails on one picture.
_FAILURES = (LichenError, RuntimeError, MemoryError, ValueError, ArithmeticError, IndexError, TypeError)


class Stopwatch:
    """Seconds by stage, of one thread."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] += perf_counter() - start


@dataclass(frozen=True, slots=True, kw_only=True)
class Compressed:
    """A payload whose decoded pixels were compared with the source."""

    payload: bytes
    side: bytes
    quality: float
    measured: Quality
    symbols: bytes
    pixels: bytes
    retries: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Why the original is stored instead."""

    reason: str
    retries: int = 0


class Compressor:
    """A codec with the rules of a job. Thread-safe, as codecs are."""

    def __init__(
        self,
        codec: Codec,
        *,
        quality: float,
        floors: Floors,
        ms_ssim: float,
    ) -> None:
        self.codec = codec
        self._quality, self._floors, self._ms_ssim = quality, floors, ms_ssim
        self._failures = 0

    def compress(self, items: Sequence[Item], watch: Stopwatch) -> list[Compressed | Kept]:
        """One outcome for each picture; all items must have been opened.

        Raises ``JobError`` when the codec fails on picture after picture for reasons that are not theirs.
        """
        pictures = [_picture(item) for item in items]
        with watch.stage("write"):
            sides = [pack_side(picture) for picture in pictures]
        limits = [len(item.data) - len(side) for item, side in zip(items, sides, strict=True)]
        trips = self._round_trip([picture.pixels for picture in pictures], limits, self._quality, watch)
        outcomes: list[Compressed | Kept] = []
        for item, side, limit, trip in zip(items, sides, limits, trips, strict=True):
            outcomes.append(self._judge(item, side, limit, trip, watch))
        return outcomes

    def _judge(self, item: Item, side: bytes, limit: int, trip: _Trip, watch: Stopwatch) -> Compressed | Kept:
        """Check one round trip; repeat it at higher qualities while it is below the floors."""
        picture, quality, retries = _picture(item), self._quality, 0
        while True:
            if isinstance(trip, Kept):
                return Kept(reason=trip.reason, retries=retries)
            encoded, decoded = trip
            with watch.stage("measure"):
                wrong = _difference(picture, side, encoded, decoded)
                if wrong is not None:
                    return Kept(reason=f"verification failed: {wrong}", retries=retries)
                measured = measure(
                    picture.pixels, decoded.pixels, picture.mode, with_ms_ssim=_sampled(item.source.key, self._ms_ssim)
                )
                if self._floors.met(measured):
                    return Compressed(
                        payload=encoded.bitstream,
                        side=side,
                        quality=quality,
                        measured=measured,
                        symbols=encoded.symbols,
                        pixels=symbol_digest(decoded.pixels),
                        retries=retries,
                    )
            if quality >= MAX_QUALITY:
                return Kept(reason=BELOW_FLOOR, retries=retries)
            quality, retries = min(quality + QUALITY_STEP, MAX_QUALITY), retries + 1
            trip = self._round_trip([picture.pixels], [limit], quality, watch)[0]

    def _round_trip(
        self, images: Sequence[Pixels], limits: Sequence[int], quality: float, watch: Stopwatch
    ) -> list[_Trip]:
        """Encode and decode; ``Kept`` for bitstreams that reach their limit in bytes, and where the codec fails.

        If a batch fails, its pictures are tried one by one.
        """
        try:
            with watch.stage("encode"):
                encoded = self.codec.encode(images, quality)
            small = [n for n, one in enumerate(encoded) if len(one.bitstream) < limits[n]]
            with watch.stage("decode"):
                decoded = self.codec.decode([encoded[n].bitstream for n in small])
        except _FAILURES as error:
            if len(images) > 1:
                pairs = zip(images, limits, strict=True)
                return [self._round_trip([image], [limit], quality, watch)[0] for image, limit in pairs]
            self._note_failure(error)
            return [Kept(reason=f"codec failed: {type(error).__name__}: {_line(error)}")]
        self._failures = 0
        trips: list[_Trip] = [Kept(reason=LARGER)] * len(images)
        for n, one in zip(small, decoded, strict=True):
            trips[n] = (encoded[n], one)
        return trips

    def _note_failure(self, error: BaseException) -> None:
        if isinstance(error, LichenError):
            return
        self._failures += 1
        if self._failures >= BROKEN_AFTER:
            raise JobError(f"the codec failed on {self._failures} pictures in a row: {_line(error)}") from error


_Trip = tuple[Encoded, Decoded] | Kept


def _picture(item: Item) -> Picture:
    assert item.picture is not None
    return item.picture


def _difference(picture: Picture, side: bytes, encoded: Encoded, decoded: Decoded) -> str | None:
    """What is wrong with a decoded picture apart from its quality; None if nothing is."""
    if decoded.symbols != encoded.symbols:
        return "other symbols were decoded than encoded"
    if decoded.pixels.shape != picture.pixels.shape or decoded.pixels.dtype != np.uint8:
        return f"decoded to pixels of shape {decoded.pixels.shape}"
    if not side:
        return None
    back = unpack_side(side)
    if picture.alpha is not None and (back.alpha is None or not np.array_equal(back.alpha, picture.alpha)):
        return "another alpha plane was unpacked than packed"
    if (back.exif, back.icc, back.xmp, back.blocks) != (picture.exif, picture.icc, picture.xmp, picture.blocks):
        return "other metadata was unpacked than packed"
    return None


def check_written(written: bytes, payload: bytes, crc: int, actual: int, key: str) -> None:
    """Raise ``VerificationFailed`` unless the bytes read back are those that were decoded, with their CRC."""
    if written != payload or crc != actual:
        raise VerificationFailed(f"the spool file returned other bytes for {key!r} than were written to it")


def _sampled(key: str, share: float) -> bool:
    if share in (0, 1):
        return share == 1
    digest = blake2b(key.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") < share * 2.0**64


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200]
