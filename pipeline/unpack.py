"""Reading and decoding many pictures where a damaged one must not take its neighbours with it.

One thread reads ahead, window by window. Lanes take groups of pictures, as many as the codec runs together, decode
them and do with each what the caller wants done; so while one lane waits for a GPU or a disk, others decode.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from lichen.errors import ArchiveError, LichenError
from lichen.pipeline.archive.decoding import Codecs, Pieces, Unpacked, codec_of, decode_all, held, load_codecs, windows
from lichen.pipeline.archive.index import Placement
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.lanes import Lanes, group_pixels
from lichen.pipeline.pictures.limits import LARGE_PIXELS

AHEAD_GROUPS = 4
"""Groups for each lane that are on their way: with fewer, a slow one would leave the other lanes without work."""
AHEAD_BYTES = 128 * 1024 * 1024
"""Encoded bytes on their way; the window that is being read comes on top."""

P = TypeVar("P", bound=Placement)
T = TypeVar("T")


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
        codecs = load_codecs(archive.codec, places)
        plan = [(window, list(_groups(window, codecs))) for window in cut]
        count = sum(len(groups) for _, groups in plan)
        loaded = [codec for codec in codecs.values() if not isinstance(codec, LichenError)]
        with Lanes(loaded, count=lanes, groups=count) as crew, crew.pool() as pool:

            def run(rows: Sequence[P], read: Future[list[Pieces | LichenError]], at: slice) -> list[T]:
                pieces = read.result()[at]
                with crew.turn(alone=any(_pixels(place) > LARGE_PIXELS for place in rows)):
                    return [work(item) for item in decode_all(codecs, rows, pieces)]

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


def _pixels(place: Placement) -> int:
    """Pixels that decoding makes; none of an original that is stored, and coefficients of a JPEG that was packed."""
    if codec_of(place) is None and place.packing != "jxl-jpeg":
        return 0
    return (place.width or 0) * (place.height or 0)


def _size(places: Sequence[Placement]) -> int:
    return sum(held(place) for place in places)


def _groups(window: Sequence[Placement], codecs: Codecs) -> Iterator[slice]:
    """Cut a window into what a lane takes at once. A byte of an original counts as much as a decoded pixel."""
    start = taken = 0
    for number, place in enumerate(window):
        codec = codecs.get(codec_of(place) or "")
        most = group_pixels(None if isinstance(codec, LichenError) else codec)
        more = _pixels(place) or held(place)
        if number > start and taken + more > most:
            yield slice(start, number)
            start, taken = number, 0
        taken += more
    if window:
        yield slice(start, len(window))


def _read(archive: Archive, places: Sequence[Placement]) -> list[Pieces | LichenError]:
    """Payload and side data of each picture, or what is wrong with it."""
    try:
        return list(archive.payloads(places))
    except ArchiveError as error:
        if len(places) == 1:
            return [error]
    return [one for place in places for one in _read(archive, [place])]
