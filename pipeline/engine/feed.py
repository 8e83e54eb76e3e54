"""Reading and opening pictures ahead of the codec, in order, within a bounded memory."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from time import perf_counter
from types import TracebackType
from typing import Any, Self

from lichen.errors import (
    DamagedPicture,
    LichenError,
    NotAPicture,
    PictureTimeout,
    SourceUnreadable,
    UndecodablePicture,
    UnsupportedPicture,
    UsageError,
)
from lichen.pipeline.engine.patience import Patience
from lichen.pipeline.images import MAX_PIXELS, Picture, read_picture
from lichen.pipeline.lanes import LARGE_PIXELS
from lichen.pipeline.logs import Log
from lichen.pipeline.sources import MAX_SOURCE_BYTES, Source, read_again, read_source
from lichen.pipeline.sources.base import is_local
from lichen.pipeline.sources.secrets import redact_uri

log = Log(__name__)
AHEAD_BYTES = 128 * 1024 * 1024
AHEAD_PIXELS = 1 << 25
"""Pixels that are opened ahead of the codec; the pictures being opened come on top."""

LOCAL_READERS, REMOTE_READERS = 4, 16
UNKNOWN_SIZE = 1 << 23
"""What a source of unknown size counts before it is read."""


@dataclass(slots=True, kw_only=True)
class Item:
    """One source on its way. ``failure`` says why there is no picture; neither of both: not opened yet."""

    source: Source
    data: bytes = b""
    sha256: bytes = b""
    picture: Picture | None = None
    failure: LichenError | None = None
    alone: bool = False
    """Large, or broken: to be opened by ``Feed.open_alone`` when nothing else is being worked on."""
    read_seconds: float = 0.0
    open_seconds: float = 0.0
    counted: int = 0
    """Bytes that this item counts among those that were read ahead."""

    @property
    def pixels(self) -> int:
        return 0 if self.picture is None else self.picture.pixels.shape[0] * self.picture.pixels.shape[1]


class Feed:
    """Groups of opened pictures for the lanes, in the order of the sources. A context manager.

    Reads go on in threads of their own, as far ahead as the limits allow. Whoever asks for the next group starts
    further reads, so nothing runs away while all lanes are busy.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        options: Mapping[str, Any],
        openers: int,
        group_pictures: int,
        group_pixels: int,
        patience: Patience,
        max_bytes: int = MAX_SOURCE_BYTES,
        store_only: bool = False,
    ) -> None:
        """``openers`` is how many pictures may be opened at once; the rest of the readers wait for bytes.

        ``patience`` limits the time of each read and of each decoding, ``max_bytes`` the size of a source.
        """
        self._patience, self._max_bytes = patience, max_bytes
        self._sources: Iterator[Source] = iter(sources)
        self._options = dict(options)
        self._group_pictures, self._group_pixels = group_pictures, group_pixels
        self._store_only = store_only
        local = all(is_local(source.uri) for source in sources)
        self._pool = ThreadPoolExecutor(
            max(openers, LOCAL_READERS if local else REMOTE_READERS), thread_name_prefix="lichen-read"
        )
        self._opening = threading.Semaphore(openers)
        self._ahead = max(64, 2 * group_pictures)
        self._queue: deque[Future[Item]] = deque()
        self._queued_bytes = 0
        self._open_pixels = 0
        self._lock = threading.Lock()
        self._count_lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def next_group(self) -> list[Item]:
        """The next pictures, up to the limits of a group; empty when there are no more. Thread-safe."""
        group: list[Item] = []
        pixels = size = 0
        with self._lock:
            self._fill()
            while self._queue and len(group) < self._group_pictures and pixels < self._group_pixels:
                item = self._queue[0].result()
                more = len(item.data)
                if group and (item.alone or pixels + item.pixels > self._group_pixels or size + more > AHEAD_BYTES):
                    break
                self._queue.popleft()
                with self._count_lock:
                    self._queued_bytes -= item.counted
                    self._open_pixels -= item.pixels
                self._fill()
                group.append(item)
                pixels, size = pixels + item.pixels, size + more
                if item.alone:
                    break
        return group

    def _fill(self) -> None:
        while len(self._queue) < self._ahead:
            if self._queue and (self._queued_bytes >= AHEAD_BYTES or self._open_pixels >= AHEAD_PIXELS):
                return
            source = next(self._sources, None)
            if source is None:
                return
            with self._count_lock:
                self._queued_bytes += _size(source)
            self._queue.append(self._pool.submit(self._load, source))

    def open_alone(self, item: Item) -> None:
        """Open a picture of any allowed size."""
        item.alone = False
        self._open(item, MAX_PIXELS)

    def _open(self, item: Item, max_pixels: int) -> None:
        """Decode in time; what looks damaged only after it was read again."""
        start = perf_counter()
        for sure in (False, True):
            try:
                look = partial(read_picture, item.data, name=item.source.key, max_pixels=max_pixels)
                item.picture = self._patience.call(look)
                break
            except TimeoutError:
                seconds = self._patience.seconds
                item.failure = PictureTimeout(f"did not decode within {seconds:g} s (--picture-timeout)")
                break
            except (NotAPicture, UnsupportedPicture) as error:
                item.failure = error
                break
            except UndecodablePicture as error:
                if max_pixels < MAX_PIXELS and not isinstance(error, DamagedPicture):
                    item.alone = True  # perhaps only too large for this limit
                    break
                item.failure = error
                if sure or not self._was_damaged_on_its_way(item):
                    break
                item.failure = None
        item.open_seconds += perf_counter() - start

    def _was_damaged_on_its_way(self, item: Item) -> bool:
        """Read a source again. True if other bytes came, which the item then holds."""
        try:
            data = self._read(item.source, lambda source, **how: read_again(source, item.data, **how))
        except SourceUnreadable as error:
            item.failure = error
            return False
        if data == item.data:
            return False
        item.data, item.sha256 = data, sha256(data).digest()
        log.warning("a source looked damaged and was read again: other bytes came", key=item.source.key)
        return True

    def _read(self, source: Source, read: Callable[..., bytes] = read_source) -> bytes:
        try:
            return self._patience.call(lambda: read(source, storage_options=self._options, max_bytes=self._max_bytes))
        except TimeoutError as error:
            raise SourceUnreadable(
                f"{redact_uri(source.uri)} was not read within {self._patience.seconds:g} s (--picture-timeout)"
            ) from error

    def _load(self, source: Source) -> Item:
        start = perf_counter()
        try:
            data = self._read(source)
        except (SourceUnreadable, UsageError) as error:  # UsageError: a scheme in a manifest that nobody knows
            return Item(source=source, failure=error, read_seconds=perf_counter() - start, counted=_size(source))
        item = Item(source=source, data=data, sha256=sha256(data).digest(), read_seconds=perf_counter() - start)
        item.counted = len(data)
        with self._count_lock:
            self._queued_bytes += len(data) - _size(source)
        if self._store_only:
            return item
        with self._opening:
            self._open(item, LARGE_PIXELS)
        with self._count_lock:
            self._open_pixels += item.pixels
        return item


def _size(source: Source) -> int:
    return UNKNOWN_SIZE if source.size is None else source.size
