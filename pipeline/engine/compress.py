"""Pictures to verified payloads: encode, decode again, compare, try another quality or keep the original."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from time import perf_counter

import numpy as np

from lichen.defaults import EFFORT
from lichen.errors import JobError, LichenError, VerificationFailed
from lichen.models.codec import Codec, Decoded, Encoded, Pixels, symbol_digest
from lichen.pipeline.engine.config import Shares
from lichen.pipeline.engine.feed import Item
from lichen.pipeline.engine.flatness import FlatMaps
from lichen.pipeline.engine.messages import STAGES
from lichen.pipeline.images import Picture, pack_side
from lichen.pipeline.quality import Quality, measure
from lichen.pipeline.side import apply_side
from lichen.pipeline.target import Search, Target

BROKEN_AFTER = 8
"""Pictures in a row on which the codec fails with errors that are not lichen's: then it is not the pictures."""

LARGER = "larger than the source"
BELOW_FLOOR = "below the quality floor at every quality"
NOT_LOOKED_AT = "its worker dies of it"
LOSSLESS = "to be kept without loss"
SMALLER = "smaller without loss than compressed"

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

    codec: str
    """Digest of the codec."""
    payload: bytes
    side: bytes
    quality: float
    measured: Quality
    symbols: bytes
    pixels: bytes
    retries: int

    @property
    def size(self) -> int:
        """Bytes in the archive."""
        return len(self.payload) + len(self.side)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Why the original is kept instead, packed or stored."""

    reason: str
    retries: int = 0
    measured: Quality | None = None
    """What was measured of the first trial, if it came so far."""


class Compressor:
    """A codec with the rules of a job. Thread-safe, as codecs are."""

    def __init__(
        self,
        codec: Codec,
        *,
        target: Target,
        shares: Shares,
        effort: int = EFFORT,
        start: float | None = None,
        limited: bool = True,
    ) -> None:
        """``start`` is where searches begin, if not where the target says; what is not ``limited`` may be larger
        than its source."""
        self.codec = codec
        self._target, self._shares, self._effort = target, shares, effort
        self._start, self._limited = start, limited
        self._step = codec.quality_step
        self._failures = 0

    def compress(self, items: Sequence[Item], watch: Stopwatch) -> list[Compressed | Kept]:
        """One outcome for each picture; all items must have been opened.

        Raises ``JobError`` when the codec fails on picture after picture for reasons that are not theirs.
        """
        with watch.stage("write"):
            cases = [self._case(item) for item in items]
        if self._target.searched and self._effort > EFFORT:
            self._search(cases, EFFORT, watch)  # nearly there at a fraction of the time
            for case in cases:
                case.begin_again()
        self._search(cases, self._effort, watch)
        return [self._outcome(case, watch) for case in cases]

    def _case(self, item: Item) -> _Case:
        side = pack_side(_picture(item))
        room = len(item.data) - len(side) if self._limited else sys.maxsize
        return _Case(item, side, room, Search(self._target, self._start, step=self._step))

    def _search(self, cases: Sequence[_Case], effort: int, watch: Stopwatch) -> None:
        """Trials of all pictures that need one, together, until none does."""
        while pending := [case for case in cases if case.reason is None and not case.search.done]:
            for case, trip in zip(pending, self._round_trip(pending, effort, watch), strict=True):
                with watch.stage("measure"):
                    self._judge(case, trip)

    def _judge(self, case: _Case, trip: _Trip) -> None:
        """Check one round trip, and keep it if it is the best so far."""
        search = case.search
        if isinstance(trip, str):
            case.reason = trip
            return
        if trip is None:
            search.refuse()
            case.last = LARGER
            return
        encoded, decoded = trip
        side, wrong = case.side, _difference(_picture(case.item), encoded, decoded)
        if wrong is None:
            side, pixels = case.maps.side(case.side, len(encoded.bitstream), decoded.pixels)
            wrong = _other_side(_picture(case.item), side, decoded, pixels)
        if wrong is not None:
            case.reason = f"verification failed: {wrong}"
            return
        tried, size = search.quality, len(encoded.bitstream) + len(side)
        if size >= case.limit + len(case.side):
            search.refuse()
            case.last = LARGER
            return
        measured = self._measured(case, pixels, last=not self._target.searched)
        case.measured = case.measured or measured
        search.accept(measured, 8 * size / case.item.pixels)
        case.last = BELOW_FLOOR
        if search.kept:
            case.best = _Trial(quality=tried, encoded=encoded, side=side, pixels=pixels, measured=measured)

    def _measured(self, case: _Case, pixels: Pixels, *, last: bool) -> Quality:
        """How good a trial is: by what the search needs, and in the last trial also by what is to be recorded."""
        picture, key, floors = _picture(case.item), case.item.source.key, self._target.floors
        return measure(
            picture.pixels,
            pixels,
            picture.mode,
            with_ms_ssim=floors.ms_ssim is not None or (last and _sampled(key, self._shares.ms_ssim)),
            with_ssimulacra2=floors.ssimulacra2 is not None or (last and _sampled(key, self._shares.ssimulacra2)),
        )

    def _outcome(self, case: _Case, watch: Stopwatch) -> Compressed | Kept:
        retries = case.earlier + case.search.trials - 1
        if case.reason is not None:
            return Kept(reason=case.reason, retries=max(0, retries), measured=case.measured)
        best = case.best
        if best is None or not case.search.found:
            return Kept(reason=case.last, retries=retries, measured=case.measured)
        measured = best.measured
        with watch.stage("measure"):
            if self._target.searched:
                measured = self._measured(case, best.pixels, last=True)
            return Compressed(
                codec=self.codec.digest,
                payload=best.encoded.bitstream,
                side=best.side,
                quality=best.quality,
                measured=measured,
                symbols=best.encoded.symbols,
                pixels=symbol_digest(best.pixels),
                retries=retries,
            )

    def _round_trip(self, cases: Sequence[_Case], effort: int, watch: Stopwatch) -> list[_Trip]:
        """Encode and decode; None for bitstreams as large as the source, a reason where the codec fails.

        If a batch fails, its pictures are tried one by one.
        """
        images = [_picture(case.item).pixels for case in cases]
        try:
            with watch.stage("encode"):
                encoded = self.codec.encode(images, [case.search.quality for case in cases], effort=effort)
            small = [n for n, one in enumerate(encoded) if len(one.bitstream) < cases[n].limit]
            with watch.stage("decode"):
                decoded = self.codec.decode([encoded[n].bitstream for n in small])
        except _FAILURES as error:
            if len(cases) > 1:
                return [self._round_trip([case], effort, watch)[0] for case in cases]
            self._note_failure(error)
            return [f"codec failed: {type(error).__name__}: {_line(error)}"]
        self._failures = 0
        trips: list[_Trip] = [None] * len(cases)
        for n, one in zip(small, decoded, strict=True):
            trips[n] = (encoded[n], one)
        return trips

    def _note_failure(self, error: BaseException) -> None:
        if isinstance(error, LichenError):
            return
        self._failures += 1
        if self._failures >= BROKEN_AFTER:
            raise JobError(f"the codec failed on {self._failures} pictures in a row: {_line(error)}") from error


_Trip = tuple[Encoded, Decoded] | str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trial:
    quality: float
    encoded: Encoded
    side: bytes
    pixels: Pixels
    """The pixels as they will come out of the archive: with flat regions painted."""
    measured: Quality


class _Case:
    """A picture on its way: its search, the best trial so far, and why it has to be stored if it has."""

    def __init__(self, item: Item, side: bytes, limit: int, search: Search) -> None:
        self.item, self.side, self.limit, self.search = item, side, limit, search
        self.maps = FlatMaps(_picture(item).pixels)
        self.best: _Trial | None = None
        self.measured: Quality | None = None
        self.reason: str | None = None
        self.last = BELOW_FLOOR
        """The reason if the search ends without a trial to keep."""
        self.earlier = 0

    @property
    def quality(self) -> float:
        """The quality of the best trial, or else of the last."""
        return self.search.quality if self.best is None else self.best.quality

    def begin_again(self) -> None:
        """Begin another search, from where the last one ended."""
        self.earlier += self.search.trials
        self.search, self.best = self.search.again(self.quality), None


def _picture(item: Item) -> Picture:
    assert item.picture is not None
    return item.picture


def _difference(picture: Picture, encoded: Encoded, decoded: Decoded) -> str | None:
    """What is wrong with a decoded picture apart from its quality; None if nothing is."""
    if decoded.symbols != encoded.symbols:
        return "other symbols were decoded than encoded"
    if decoded.pixels.shape != picture.pixels.shape or decoded.pixels.dtype != np.uint8:
        return f"decoded to pixels of shape {decoded.pixels.shape}"
    return None


def _other_side(picture: Picture, side: bytes, decoded: Decoded, painted: Pixels) -> str | None:
    """What is wrong with packed side data; None if nothing is."""
    pixels, back = apply_side(decoded.pixels, side)
    if not np.array_equal(pixels, painted):
        return "other flat regions were painted than packed"
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
