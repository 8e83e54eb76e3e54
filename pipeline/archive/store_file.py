"""An object of a store as a Python file, for libraries that want one (pyarrow)."""

from __future__ import annotations

import io
from collections.abc import Callable


class StoreFile(io.RawIOBase):
    """A read-only file of ``size`` bytes over ``read_range(offset, length)``; counts requests and bytes."""

    def __init__(self, read_range: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._read_range, self._size, self._position = read_range, size, 0
        self.requests = 0
        self.bytes_read = 0

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
        data = self._read_range(self._position, length)
        self._position += length
        self.requests += 1
        self.bytes_read += length
        return data

    def readall(self) -> bytes:
        return self.read()
