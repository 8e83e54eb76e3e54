"""Reading and decoding many pictures where a damaged one must not take its neighbours with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

from lichen.models.codec import Decoded
from lichen.models.errors import ArchiveError, LichenError, UsageError
from lichen.pipeline.archive.decoding import check_shape, windows
from lichen.pipeline.archive.index import Placement
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.side import Side, unpack_side

P = TypeVar("P", bound=Placement)
_Bytes: TypeAlias = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked(Generic[P]):
    """One picture as it came out of the archive.

    ``payload`` passed its checksum, or is empty where ``error`` says what is wrong. ``decoded`` is None for a
    stored original (and where there is an error); it has the size that the index says.
    """

    place: P
    payload: bytes = b""
    side: Side = field(default_factory=Side)
    decoded: Decoded | None = None
    error: LichenError | None = None


def unpack(archive: Archive, places: Sequence[P]) -> Iterator[list[Unpacked[P]]]:
    """Read and decode pictures, window by window in their order.

    While the caller is busy with a window, the next one is decoded and the one after that is read. Raises
    ``UsageError`` for a device or precision that this machine does not have; whatever is wrong with a picture is in
    its ``error``.
    """
    with ThreadPoolExecutor(1, "lichen-decode") as decoder, ThreadPoolExecutor(1, "lichen-read") as reader:
        ahead: deque[Future[list[Unpacked[P]]]] = deque()
        start = 0
        for window in windows(places):
            rows = places[start : start + len(window)]
            start += len(window)
            pieces = reader.submit(_read, archive, rows)
            ahead.append(decoder.submit(_decode_when_read, archive, rows, pieces))
            if len(ahead) > 1:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _decode_when_read(
    archive: Archive, places: Sequence[P], pieces: Future[list[_Bytes | LichenError]]
) -> list[Unpacked[P]]:
    return _decode(archive, places, pieces.result())


def _read(archive: Archive, places: Sequence[Placement]) -> list[_Bytes | LichenError]:
    """Payload and side data of each, or what is wrong with it."""
    try:
        return list(archive.payloads(places))
    except ArchiveError as error:
        if len(places) == 1:
            return [error]
    return [one for place in places for one in _read(archive, [place])]


def _decode(archive: Archive, places: Sequence[P], pieces: Sequence[_Bytes | LichenError]) -> list[Unpacked[P]]:
    found: list[Unpacked[P]] = [Unpacked(place=place) for place in places]
    batches: dict[str, list[int]] = {}
    for number, (place, piece) in enumerate(zip(places, pieces, strict=True)):
        if isinstance(piece, LichenError):
            found[number] = Unpacked(place=place, error=piece)
        elif place.status == "stored" or place.codec is None:
            found[number] = Unpacked(place=place, payload=piece[0])
        else:
            batches.setdefault(place.codec, []).append(number)
    for digest, numbers in batches.items():
        raw = [piece for number in numbers if not isinstance(piece := pieces[number], LichenError)]
        outcomes = _decode_batch(archive, digest, [payload for payload, _ in raw])
        for number, (payload, side), outcome in zip(numbers, raw, outcomes, strict=True):
            found[number] = _checked(places[number], payload, side, outcome)
    return found


def _checked(place: P, payload: bytes, side: bytes, outcome: Decoded | LichenError) -> Unpacked[P]:
    if isinstance(outcome, LichenError):
        return Unpacked(place=place, error=outcome)
    try:
        check_shape(place, outcome.pixels)
        return Unpacked(place=place, payload=payload, side=unpack_side(side), decoded=outcome)
    except ArchiveError as error:
        return Unpacked(place=place, error=error)


def _decode_batch(archive: Archive, digest: str, bitstreams: Sequence[bytes]) -> list[Decoded | LichenError]:
    try:
        codec = archive.codec(digest)
    except UsageError:  # the request is wrong (a device that is not there), not the archive
        raise
    except LichenError as error:
        return [error] * len(bitstreams)
    try:
        return list(codec.decode(bitstreams))
    except LichenError as error:
        if len(bitstreams) == 1:
            return [error]
    return [one for bitstream in bitstreams for one in _decode_batch(archive, digest, [bitstream])]
