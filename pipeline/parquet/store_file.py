"""An object of a store as a Python file, for libraries that want one (pyarrow)."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

from lichen.pipeline.ranges import plan_ranges

GAP = 8 * 1024


class Refused(OSError):
    """A read that a file refuses (``StoreFile.refusing``)."""


class StoreFile(io.RawIOBase):
    """A read-only file of ``size`` bytes over ``read_range(offset, length)``; counts requests and bytes."""

    def __init__(self, read_range: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._read_range, self._size, self._position = read_range, size, 0
        self.requests = 0
        self.bytes_read = 0
        self._kept: list[tuple[int, bytes]] = []
        self.refusing = False
        """Whether reads raise ``Refused``."""

    def fetch(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of (offset, length) ranges, neighbours read together. They answer reads until the next call."""
        for offset, length in ranges:
            if offset < 0 or length < 0 or offset + length > self._size:
                raise ValueError(f"{length} bytes at {offset} are not all in the file")
        self._kept = []
        found = [b""] * len(ranges)
        for request in plan_ranges(ranges, GAP):
            data = self._load(request.start, request.length)
            self._kept.append((request.start, data))
            for part in request.parts:
                found[part.number] = data[part.start : part.start + part.length]
        return found

    def _load(self, offset: int, length: int) -> bytes:
        self.requests += 1
        self.bytes_read += length
        return self._read_range(offset, length)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._position)
        length = left if size is None or size < 0 else min(size, left)
        if length == 0:
            return b""
        if self.refusing:
            raise Refused("not now")
        start = self._position
        self._position += length
        for begin, kept in self._kept:
            if begin <= start and start + length <= begin + len(kept):
                return kept[start - begin : start - begin + length]
        return self._load(start, length)

    def readall(self) -> bytes:
        return self.read()
