"""How large the pages of a Parquet column really are, from their headers: what a footer states is only a claim.

A page header is a struct of Thrift's compact protocol. Sizes in it are true as far as memory goes, since readers refuse
a page that decompresses to anything else. Two encodings give back more than a page holds: a dictionary, of which every
row may name the longest entry, and DELTA_BYTE_ARRAY, where a row repeats the beginning of the row before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

DATA, DICTIONARY, DATA_V2 = 0, 2, 3
DELTA_LENGTHS, DELTA_STRINGS = 6, 7
_MAX_DEPTH = 4
_BLOCK = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """One page: what its header says, and its bytes as they are in the file."""

    kind: int
    size: int
    """Bytes when decompressed."""
    encoding: int
    values: int
    levels: int
    """Bytes of levels in front of the values, which are not compressed (second version of data pages)."""
    compressed: bool
    body: bytes

    @property
    def expands(self) -> bool:
        """Whether a single row may need as many bytes as the whole page."""
        return self.kind == DICTIONARY or self.encoding == DELTA_STRINGS


def read_pages(chunk: bytes) -> Iterator[Page]:
    """The pages of a column chunk. Raises ``ValueError`` or ``IndexError`` for what is none."""
    position = 0
    while position < len(chunk):
        reader = _Compact(chunk, position)
        header = reader.struct()
        kind, size, length = (_integer(header, number) for number in (1, 2, 3))
        told = header.get({DATA: 5, DICTIONARY: 7, DATA_V2: 8}.get(kind, 0))
        told = told if isinstance(told, dict) else {}
        position = reader.position + length
        if position > len(chunk):
            raise ValueError("a page ends behind its column")
        second = kind == DATA_V2
        yield Page(
            kind=kind,
            size=size,
            encoding=_integer(told, 4 if second else 2),
            values=_integer(told, 1),
            levels=_integer(told, 5) + _integer(told, 6) if second else 0,
            compressed=bool(told.get(7, True)),
            body=chunk[reader.position : position],
        )


def check_lengths(page: Page, codec: str, rows: int, *, nullable: bool) -> None:
    """Raise ``ValueError`` if a page of delta-encoded strings states more lengths than it can have values.

    Readers make room for all of them before they read a row.
    """
    if page.kind == DICTIONARY or page.encoding not in (DELTA_LENGTHS, DELTA_STRINGS):
        return
    levels, body = page.body[: page.levels], page.body[page.levels :]
    if codec != "UNCOMPRESSED" and page.compressed:
        size = page.size - len(levels)
        body = pa.decompress(body, size, codec=codec.lower(), asbytes=True) if size else b""
    start = 0
    if page.kind == DATA and nullable:
        start = 4 + int.from_bytes(body[:4], "little")
    reader = _Compact(body, start)
    for _ in range(2 if page.encoding == DELTA_STRINGS else 1):
        if _skip_numbers(reader) > min(rows, page.values):
            raise ValueError("a page states more values than there are rows")


def _skip_numbers(reader: _Compact) -> int:
    """Pass over a series of DELTA_BINARY_PACKED; how many numbers it states."""
    block, parts, count = reader.varint(), reader.varint(), reader.varint()
    reader.varint()  # the first number
    if not 0 < parts <= _BLOCK or block % (32 * parts) or not 0 < block <= 1 << 20:
        raise ValueError("an absurd block of numbers")
    left = count - 1
    while left > 0:
        reader.varint()  # the least difference
        widths = [reader.byte() for _ in range(parts)]
        for width in widths:
            if left > 0:
                reader.position += width * (block // parts) // 8
                left -= block // parts
        if reader.position > len(reader.data):
            raise ValueError("a series of numbers ends behind its page")
    return count


def _integer(fields: dict[int, object], number: int) -> int:
    value = fields.get(number, 0)
    if not isinstance(value, int) or value < 0:
        raise ValueError("a page header with an absurd number")
    return int(value)


class _Compact:
    """Thrift's compact protocol, as far as page headers need it."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data, self.position = data, position

    def byte(self) -> int:
        self.position += 1
        return self.data[self.position - 1]

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise ValueError("an endless number")

    def struct(self, depth: int = 0) -> dict[int, object]:
        """Fields by number: integers, booleans and structs as such, other values as None."""
        if depth > _MAX_DEPTH:
            raise ValueError("a page header of structs in structs")
        fields: dict[int, object] = {}
        number = 0
        while head := self.byte():
            delta, kind = head >> 4, head & 15
            number = number + delta if delta else _zigzag(self.varint())
            fields[number] = self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> object:
        match kind:
            case 1 | 2:
                return kind == 1
            case 3:
                return self.byte()
            case 4 | 5 | 6:
                return _zigzag(self.varint())
            case 7:
                self.position += 8
            case 8:
                length = self.varint()
                self.position += length
            case 12:
                return self.struct(depth + 1)
            case _:
                raise ValueError("a page header with a field of unknown type")
        return None


def _zigzag(value: int) -> int:
    return (value >> 1) ^ -(value & 1)
