"""Directories of tags, as TIFF files and EXIF have them: where their values lie, before anybody reads them.

Pillow copies the value of every tag. Many tags that all point to the same megabytes would make gigabytes of a
small file, so what the tags claim together is bounded here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from lichen.errors import DamagedPicture, UndecodablePicture, UnsupportedPicture

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_UNSIGNED = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_SLACK = 1 << 20
"""What tags may claim beyond twice the file: real ones share a few bytes, or are broken."""

EXIF_IFD, GPS_IFD, INTEROP_IFD = 34665, 34853, 40965


@dataclass(frozen=True, slots=True)
class Entry:
    """One tag; ``begin`` and ``size`` tell where its value is, ``outside`` that it is not in the entry itself."""

    kind: int
    count: int
    begin: int
    size: int
    outside: bool


class Directories:
    """The tags of a TIFF structure. Raises ``UndecodablePicture`` where there is none."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._order = {b"II": "<", b"MM": ">"}.get(data[:2], "")
        if not self._order or len(data) < 8:
            raise UndecodablePicture("there is no TIFF header")
        self.big = self._number(2, 2) == 43
        self.header = 16 if self.big else 8
        self._claimed = 0

    @property
    def first(self) -> int:
        """The offset of the first directory."""
        return self._number(8, 8) if self.big else self._number(4, 4)

    def read(self, offset: int) -> tuple[dict[int, Entry], int, int]:
        """The tags of the directory at ``offset``, the offset of its end, and that of the next one.

        Tags of unknown types are left out, as by Pillow; of equal tags the last one counts. Raises
        ``UnsupportedPicture`` when the values that were read so far are longer than any file could need.
        """
        count_size, entry_size, inline = (8, 20, 8) if self.big else (2, 12, 4)
        begin = offset + count_size
        count = self._number(offset, count_size)
        end = begin + count * entry_size
        if end > len(self._data):
            raise DamagedPicture("the TIFF is truncated: its directory leads out of the file")
        tags: dict[int, Entry] = {}
        for position in range(begin, end, entry_size):
            tag, kind = self._number(position, 2), self._number(position + 2, 2)
            values = self._number(position + 4, inline)
            if kind not in _SIZES:
                continue
            size, place = values * _SIZES[kind], position + 4 + inline
            outside = size > inline
            if outside:
                place = self._number(place, inline)
                self._claimed += min(size, max(0, len(self._data) - place))
            tags[tag] = Entry(kind, values, place, size, outside)
        if self._claimed > 2 * len(self._data) + _SLACK:
            raise UnsupportedPicture("tags that claim more bytes than there are")
        after = end + inline
        return tags, after, self._number(end, inline) if after <= len(self._data) else 0

    def numbers(self, entry: Entry) -> tuple[int, ...]:
        """The values of a tag of unsigned numbers. Raises ``UndecodablePicture`` for others, or if they are cut."""
        form = _UNSIGNED.get(entry.kind)
        if form is None or entry.begin + entry.size > len(self._data):
            raise UndecodablePicture("a TIFF tag has values of another type than numbers, or they are cut")
        return struct.unpack_from(f"{self._order}{entry.count}{form}", self._data, entry.begin)

    def _number(self, offset: int, size: int) -> int:
        if offset + size > len(self._data):
            raise DamagedPicture("the TIFF is truncated: its directory leads out of the file")
        return int.from_bytes(self._data[offset : offset + size], "little" if self._order == "<" else "big")


def check_exif(exif: bytes) -> None:
    """Raise ``UnsupportedPicture`` for EXIF that would grow beyond measure when it is parsed.

    EXIF that is merely broken is nobody's harm: it is kept as it is.
    """
    try:
        for _ in _walk(Directories(exif)):
            pass
    except UndecodablePicture:
        return


def _walk(directories: Directories) -> Iterator[dict[int, Entry]]:
    """The first directory and those of its tags that Pillow follows."""
    seen: set[int] = set()
    waiting = [directories.first]
    while waiting:
        offset = waiting.pop()
        if offset in seen:
            continue
        seen.add(offset)
        tags, _, _ = directories.read(offset)
        yield tags
        for tag in (EXIF_IFD, GPS_IFD, INTEROP_IFD):
            if tag in tags and tags[tag].count == 1:
                waiting += directories.numbers(tags[tag])
