"""Range asymmetric numeral systems: integer symbols to bytes and back, with frozen tables.

The method is J. Duda's rANS ("Asymmetric numeral systems", arXiv:1311.2540, 2013); several states take turns,
as F. Giesen published ("Interleaved entropy coders", arXiv:1402.3392, 2014). The stream is specified byte by
byte in ``docs/bitstream.md``; in short:

- A state is an integer of [2^20, 2^36). Frequencies have 16 bits, so every symbol moves at most one 16-bit
  word, and the state keeps at least 4 bits above them: the loss against the ideal code length is some
  0.01 %. A double holds a state exactly, so the encoder divides by multiplying with a stored reciprocal.
- Short streams have one state, longer ones two or four: each costs 2.5 bytes, and makes the decoder faster.
- A value outside of its table is announced by the table's escape symbol; its distance follows as plain bits.

Safe for hostile bytes: the loops' length depends on the number of symbols only, every word is read within a
padded buffer, every table entry through a validated table, and a stream must be used up exactly and leave the
states where encoding began. Both directions release the GIL, and both are pure functions of their arguments.

An index chooses the table of each symbol, here one of 64 Gaussian densities from narrow to wide. What is improbable
there costs more bytes, and what the table does not have is escaped:

    >>> import numpy as np
    >>> from lichen.models.entropy.tables import gaussian_tables
    >>> tables = gaussian_tables()
    >>> indexes = np.array([[0, 20], [40, 63]], dtype=np.uint8)
    >>> symbols = np.array([[0, -1], [5, -70_000]], dtype=np.int32)
    >>> data = encode(symbols, indexes, tables)
    >>> decode(data, indexes, tables).tolist()
    [[0, -1], [5, -70000]]
    >>> len(encode(np.zeros_like(symbols), indexes, tables)) < len(data)
    True

Bytes that are not those of the encoder never crash, and are found out where they do not fit:

    >>> decode(data[:-2], indexes, tables)
    Traceback (most recent call last):
        ...
    lichen.errors.CorruptBitstream: entropy-coded section: an escaped value is malformed or does not fit into 32 bits
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from lichen.errors import CorruptBitstream, InvalidCodec
from lichen.models.entropy.loops import (
    BAD_ESCAPE,
    BAD_STATE,
    BLOCK,
    EXHAUSTED,
    STATE_0,
    STATE_BITS,
    decode_words,
    encode_words,
    list_coded,
)
from lichen.models.entropy.tables import CoderTables

MAX_SYMBOLS: Final = (1 << 31) - 1
TWO_STATES_FROM: Final = 1 << 14
"""Coded symbols from which on a stream has two states, and below which one."""
FOUR_STATES_FROM: Final = 1 << 17

_PADDING: Final = 32  # words behind the stream that may be read; an escaped symbol moves 13 at most
_MAX_ESCAPE_WORDS: Final = 3  # 11 groups of 4 bits hold every distance between integers of 32 bits

_REASONS = {
    EXHAUSTED: "the stream ends early",
    BAD_STATE: "a state is out of range",
    BAD_ESCAPE: "an escaped value is malformed or does not fit into 32 bits",
}


def encode(
    symbols: NDArray[np.int32], indexes: NDArray[np.uint8], tables: CoderTables, *, single: bool = False
) -> bytes:
    """Code ``symbols`` with the tables that ``indexes`` select; both of one shape, taken in C order.

    Symbols with an index below ``tables.skip_index`` are left out (they decode as zero); nothing is left if
    that is all of them: the result is empty. ``single`` makes a stream of one state, for a ``Reader``. Raises
    ``InvalidCodec`` if an index has no table.
    """
    if symbols.dtype != np.int32 or symbols.shape != indexes.shape:
        raise ValueError(f"symbols must be int32{list(indexes.shape)}, not {symbols.dtype}{list(symbols.shape)}")
    positions = _positions(indexes, tables)
    lookup = tables.lookup
    states = np.full(min(1, positions.size) if single else _states(positions.size), STATE_0)
    # Room for the worst case; the system provides only those pages that are written to.
    words = np.empty(positions.size * (1 + _MAX_ESCAPE_WORDS) + 4, dtype=np.uint16)
    begin = encode_words(
        np.ascontiguousarray(symbols).reshape(-1),
        np.ascontiguousarray(indexes).reshape(-1),
        positions,
        lookup.encoding,
        lookup.starts,
        lookup.inverses,
        states,
        words,
    )
    return _pack_states(states) + words[begin:].astype("<u2", copy=False).tobytes()


def decode(data: bytes | bytearray | memoryview, indexes: NDArray[np.uint8], tables: CoderTables) -> NDArray[np.int32]:
    """Decode one stream: int32 of the shape of ``indexes``, zero where nothing was coded.

    Raises ``CorruptBitstream`` if ``data`` is no stream of that many symbols, as far as can be told (a
    checksum tells the rest), and ``InvalidCodec`` if an index has no table.
    """
    positions = _positions(indexes, tables)
    states, words = _unpack(bytes(data), _states(positions.size))
    symbols, at = _decode_part(words, 0, states, indexes, positions, tables)
    _check(at, words, states)
    return symbols


class Reader:
    """A stream that was encoded with ``single``, decoded part by part: the next part's indexes may depend on the last.

    Raises ``CorruptBitstream`` if ``data`` is no such stream, as far as can be told.
    """

    def __init__(self, data: bytes, tables: CoderTables) -> None:
        self._tables = tables
        self._states: NDArray[np.uint64] = np.full(1, STATE_0)
        self._words: NDArray[np.uint16] = np.zeros(_PADDING, np.uint16)
        if data:
            self._states, self._words = _unpack(data, 1)
        self._at = 0
        self._idle = bool(data)
        """Whether there is a stream, but nothing was coded yet."""

    def read(self, indexes: NDArray[np.uint8]) -> NDArray[np.int32]:
        """The next symbols: int32 of the shape of ``indexes``, zero where nothing was coded.

        Raises ``CorruptBitstream``, and ``InvalidCodec`` if an index has no table.
        """
        positions = _positions(indexes, self._tables)
        self._idle = self._idle and not positions.size
        symbols, self._at = _decode_part(self._words, self._at, self._states, indexes, positions, self._tables)
        if self._at < 0:
            _check(self._at, self._words, self._states)
        return symbols

    def finish(self) -> None:
        """Raise ``CorruptBitstream`` unless the stream is used up."""
        if self._idle:
            raise CorruptBitstream("a stream of no symbols is empty, and this one is not")
        _check(self._at, self._words, self._states)


def _decode_part(
    words: NDArray[np.uint16],
    begin: int,
    states: NDArray[np.uint64],
    indexes: NDArray[np.uint8],
    positions: NDArray[np.uint32],
    tables: CoderTables,
) -> tuple[NDArray[np.int32], int]:
    """Symbols of the shape of ``indexes`` from the word ``begin`` on, and the word after them or what is wrong."""
    symbols = np.zeros(indexes.shape, dtype=np.int32)
    lookup = tables.lookup
    at = decode_words(
        words,
        words.size - _PADDING,
        begin,
        np.ascontiguousarray(indexes).reshape(-1),
        positions,
        lookup.encoding,
        lookup.decoding,
        lookup.buckets,
        lookup.entries,
        states,
        symbols.reshape(-1),
    )
    return symbols, at


def _check(at: int, words: NDArray[np.uint16], states: NDArray[np.uint64]) -> None:
    """Raise ``CorruptBitstream`` unless decoding ended at the end of the words, in the states where encoding began."""
    if at < 0:
        raise CorruptBitstream(f"entropy-coded section: {_REASONS[-at]}")
    if at != words.size - _PADDING or (states != STATE_0).any():
        raise CorruptBitstream("entropy-coded section: the stream does not end where its symbols do")


def _states(coded: int) -> int:
    """How many states take turns in a stream of so many coded symbols; part of the format."""
    if coded >= FOUR_STATES_FROM:
        return 4
    if coded >= TWO_STATES_FROM:
        return 2
    return 1 if coded else 0


def _positions(indexes: NDArray[np.uint8], tables: CoderTables) -> NDArray[np.uint32]:
    """Places of the symbols that are coded, ascending."""
    if indexes.dtype != np.uint8 or indexes.size > MAX_SYMBOLS:
        raise ValueError(f"indexes must be at most {MAX_SYMBOLS} uint8, not {indexes.size} {indexes.dtype}")
    positions = np.empty(indexes.size + BLOCK, dtype=np.uint32)
    outcome = list_coded(np.ascontiguousarray(indexes).reshape(-1), tables.skip_index, positions)
    count, largest = outcome >> 8, outcome & 0xFF
    if largest >= tables.count:
        raise InvalidCodec(f"table index {largest} of {tables.count} tables")
    return positions[:count]


def _pack_states(states: NDArray[np.uint64]) -> bytes:
    packed = 0
    for place, state in enumerate(states.tolist()):
        packed |= state << (STATE_BITS * place)
    return packed.to_bytes(_state_bytes(states.size), "little")


def _state_bytes(count: int) -> int:
    return (STATE_BITS * count + 7) // 8


def _unpack(data: bytes, count: int) -> tuple[NDArray[np.uint64], NDArray[np.uint16]]:
    """The states and the words (padded) of a stream."""
    head = _state_bytes(count)
    if len(data) < head or (len(data) - head) % 2:
        raise CorruptBitstream(f"entropy-coded section: {len(data)} bytes cannot hold {count} states and whole words")
    packed = int.from_bytes(data[:head], "little")
    if packed >> (STATE_BITS * count):
        raise CorruptBitstream("entropy-coded section: the bits behind the states are not zero")
    mask = (1 << STATE_BITS) - 1
    states = np.array([packed >> (STATE_BITS * place) & mask for place in range(count)], dtype=np.uint64)
    words = np.zeros((len(data) - head) // 2 + _PADDING, dtype=np.uint16)
    words[:-_PADDING] = np.frombuffer(data, dtype="<u2", offset=head)
    return states, words
