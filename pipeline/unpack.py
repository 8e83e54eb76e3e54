"""Reading and decoding many pictures where a damaged one must not take its neighbours with it.

One thread reads ahead, window by window. Lanes take groups of pictures, as many as the codec runs together, decode
them and do with each what the caller wants done; so while one lane waits for a GPU or a disk, others decode.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Generic, TypeAlias, TypeVar

from lichen.errors import ArchiveError, LichenError, UsageError
from lichen.models.codec import Codec, Decoded
from lichen.pipeline.archive.decoding import check_shape, held, original_bytes, other_size, windows
from lichen.pipeline.archive.index import Placement
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.lanes import GROUP_PIXELS, LARGE_PIXELS, Lanes, group_pixels
from lichen.pipeline.side import Side, apply_side

AHEAD_GROUPS = 4
"""Groups for each lane that are on their way: with fewer, a slow one would leave the other lanes without work."""
AHEAD_BYTES = 128 * 1024 * 1024
"""Encoded bytes on their way; the window that is being read comes on top."""

P = TypeVar("P", bound=Placement)
T = TypeVar("T")
_Bytes: TypeAlias = tuple[bytes, bytes]
_Codecs: TypeAlias = Mapping[str, Codec | LichenError]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked(Generic[P]):
    """One picture as it came out of the archive.

    ``payload`` passed its checksum, and of a packed picture is the file that was packed; it is empty where ``error``
    says what is wrong. ``decoded`` is None for an original (and where there is an error); it has the size that the
    index says.
    """

    place: P
    payload: bytes = b""
    side: Side = field(default_factory=Side)
    decoded: Decoded | None = None
    error: LichenError | None = None


def unpack(
    archive: Archive, places: Sequence[P], work: Callable[[Unpacked[P]], T], *, lanes: int | None = None
) -> Iterator[list[T]]:
    """Read and decode pictures, and call ``work`` with each in the lane that decoded it.

    Yields what ``work`` returned, in the order of ``places``, some pictures at a time. Decoded pixels are only in the
    lanes, and a large picture is decoded and worked on while the other lanes wait. ``lanes`` is by default one for
    each core, or what suits a GPU, but no more than there are groups of pictures: a single one has all cores.

    Raises ``UsageError`` for a device or precision that this machine does not have, and whatever ``work`` raises;
    what is wrong with a picture is in its ``error``.
    """
    cut = list(windows(places))
    with ThreadPoolExecutor(1, "lichen-read") as reader:
        reads = (reader.submit(_read, archive, window) for window in cut)
        ahead = deque(islice(reads, 1))  # on its way while the codecs load
        codecs = _load_codecs(archive, places)
        plan = [(window, list(_groups(window, codecs))) for window in cut]
        count = sum(len(groups) for _, groups in plan)
        loaded = [codec for codec in codecs.values() if not isinstance(codec, LichenError)]
        with Lanes(loaded, count=lanes, groups=count) as crew, crew.pool() as pool:

            def run(rows: Sequence[P], read: Future[list[_Bytes | LichenError]], at: slice) -> list[T]:
                pieces = read.result()[at]
                with crew.turn(alone=any(_pixels(place) > LARGE_PIXELS for place in rows)):
                    return [work(item) for item in _decode(codecs, rows, pieces)]

            waiting: deque[tuple[int, Future[list[T]]]] = deque()
            size = 0
            try:
                for window, groups in plan:
                    ahead.extend(islice(reads, 1))
                    read = ahead.popleft()
                    for at in groups:
                        rows = window[at]
                        waiting.append((_size(rows), pool.submit(run, rows, read, at)))
                        size += _size(rows)
                        while len(waiting) > AHEAD_GROUPS * crew.count or (size > AHEAD_BYTES and len(waiting) > 1):
                            less, done = waiting.popleft()
                            size -= less
                            yield done.result()
                while waiting:
                    yield waiting.popleft()[1].result()
            finally:
                for _, future in waiting:
                    future.cancel()


def _digest(place: Placement) -> str | None:
    """The codec that decodes a picture; None for an original."""
    return None if place.is_original else place.codec


def _pixels(place: Placement) -> int:
    """That decoding makes; none of an original that is stored, and coefficients of a JPEG that was packed."""
    if _digest(place) is None and place.packing != "jxl-jpeg":
        return 0
    return (place.width or 0) * (place.height or 0)


def _size(places: Sequence[Placement]) -> int:
    return sum(held(place) for place in places)


def _load_codecs(archive: Archive, places: Sequence[Placement]) -> _Codecs:
    """The codecs of all pictures, or what is wrong with them."""
    codecs: dict[str, Codec | LichenError] = {}
    for digest in dict.fromkeys(digest for place in places if (digest := _digest(place)) is not None):
        try:
            codecs[digest] = archive.codec(digest)
        except UsageError:  # the request is wrong (a device that is not there), not the archive
            raise
        except LichenError as error:
            codecs[digest] = error
    return codecs


def _groups(window: Sequence[Placement], codecs: _Codecs) -> Iterator[slice]:
    """Cut a window into what a lane takes at once. A byte of an original counts as much as a decoded pixel."""
    start = taken = 0
    for number, place in enumerate(window):
        codec = codecs.get(_digest(place) or "")
        most = GROUP_PIXELS if codec is None or isinstance(codec, LichenError) else group_pixels(codec)
        more = _pixels(place) or held(place)
        if number > start and taken + more > most:
            yield slice(start, number)
            start, taken = number, 0
        taken += more
    if window:
        yield slice(start, len(window))


def _read(archive: Archive, places: Sequence[Placement]) -> list[_Bytes | LichenError]:
    """Payload and side data of each picture, or what is wrong with it."""
    try:
        return list(archive.payloads(places))
    except ArchiveError as error:
        if len(places) == 1:
            return [error]
    return [one for place in places for one in _read(archive, [place])]


def _decode(codecs: _Codecs, places: Sequence[P], pieces: Sequence[_Bytes | LichenError]) -> list[Unpacked[P]]:
    found: list[Unpacked[P]] = [Unpacked(place=place) for place in places]
    batches: dict[str, list[int]] = {}
    for number, (place, piece) in enumerate(zip(places, pieces, strict=True)):
        digest = _digest(place)
        if isinstance(piece, LichenError):
            found[number] = Unpacked(place=place, error=piece)
        elif digest is None:
            found[number] = _original(place, piece[0])
        elif (wrong := other_size(place, piece[0])) is not None:
            found[number] = Unpacked(place=place, error=wrong)
        else:
            batches.setdefault(digest, []).append(number)
    for digest, numbers in batches.items():
        raw = [piece for number in numbers if not isinstance(piece := pieces[number], LichenError)]
        outcomes = _decode_batch(codecs[digest], [payload for payload, _ in raw])
        for number, (payload, side), outcome in zip(numbers, raw, outcomes, strict=True):
            found[number] = _checked(places[number], payload, side, outcome)
    return found


def _original(place: P, payload: bytes) -> Unpacked[P]:
    try:
        return Unpacked(place=place, payload=original_bytes(place, payload))
    except ArchiveError as error:
        return Unpacked(place=place, error=error)


def _checked(place: P, payload: bytes, side: bytes, outcome: Decoded | LichenError) -> Unpacked[P]:
    if isinstance(outcome, LichenError):
        return Unpacked(place=place, error=outcome)
    try:
        check_shape(place, outcome.pixels)
        pixels, beside = apply_side(outcome.pixels, side)
        return Unpacked(place=place, payload=payload, side=beside, decoded=replace(outcome, pixels=pixels))
    except ArchiveError as error:
        return Unpacked(place=place, error=error)


def _decode_batch(codec: Codec | LichenError, bitstreams: Sequence[bytes]) -> list[Decoded | LichenError]:
    if isinstance(codec, LichenError):
        return [codec] * len(bitstreams)
    try:
        return list(codec.decode(bitstreams))
    except LichenError as error:
        if len(bitstreams) == 1:
            return [error]
    return [one for bitstream in bitstreams for one in _decode_batch(codec, [bitstream])]
