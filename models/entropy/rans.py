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

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

from lichen.errors import CorruptBitstream, InvalidCodec
from lichen.models.entropy.tables import ESCAPE, CoderTables

STATE_BITS: Final = 36
MAX_SYMBOLS: Final = (1 << 31) - 1
TWO_STATES_FROM: Final = 1 << 14
"""Coded symbols from which on a stream has two states, and below which one."""
FOUR_STATES_FROM: Final = 1 << 17

_PADDING: Final = 32  # words behind the stream that may be read; an escaped symbol moves 13 at most
_MAX_ESCAPE_WORDS: Final = 3  # 11 groups of 4 bits hold every distance between integers of 32 bits
_BLOCK: Final = 32  # indexes looked at together

_U = np.uint64
_0, _1, _2, _3, _4, _5, _7, _8, _15, _16, _31, _32, _36 = (_U(n) for n in (0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 31, 32, 36))
_LOW_16, _STATE_0 = _U(0xFFFF), _U(1 << 20)
_RENORM_AT = _U(STATE_BITS - 16)
_NIBBLE_RENORM_AT = _U(1 << STATE_BITS - 4)

# What the decoding loop returns, negated.
_EXHAUSTED, _BAD_STATE, _BAD_ESCAPE = 1, 2, 3
_REASONS = {
    _EXHAUSTED: "the stream ends early",
    _BAD_STATE: "a state is out of range",
    _BAD_ESCAPE: "an escaped value is malformed or does not fit into 32 bits",
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
    states = np.full(min(1, positions.size) if single else _states(positions.size), _STATE_0)
    # Room for the worst case; the system provides only those pages that are written to.
    words = np.empty(positions.size * (1 + _MAX_ESCAPE_WORDS) + 4, dtype=np.uint16)
    begin = _encode_words(
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
        self._states: NDArray[np.uint64] = np.full(1, _STATE_0)
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
    at = _decode_words(
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
    if at != words.size - _PADDING or (states != _STATE_0).any():
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
    positions = np.empty(indexes.size + _BLOCK, dtype=np.uint32)
    outcome = _list_coded(np.ascontiguousarray(indexes).reshape(-1), tables.skip_index, positions)
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


# --- compiled ------------------------------------------------------------------------------------
#
# All arithmetic on states, positions and places is in uint64: numba makes a float of uint64 and int64
# together, and signed subscripts cost a test for negative ones. Subscripts are in bounds by construction, see
# the module's text.


_Function = TypeVar("_Function", bound=Callable[..., Any])


def _compiled(result: Any, *arguments: Any) -> Callable[[_Function], _Function]:
    """Compile for these types, or take the machine code from the cache on disk."""
    compiler: Any = partial(numba.njit, result(*arguments), nogil=True, error_model="numpy")

    def compile_now(function: _Function) -> _Function:
        compiled: _Function
        try:
            compiled = compiler(cache=True)(function)
        except (RuntimeError, OSError):  # no place that can be written to: compile in every process
            compiled = compiler()(function)
        return compiled

    return compile_now


def _input(dtype: Any, dimensions: int = 1) -> Any:
    return types.Array(dtype, dimensions, "C", readonly=True)


@_compiled(types.int64, _input(types.uint8), types.int64, types.uint32[::1])
def _list_coded(indexes: Any, skip_index: Any, positions: Any) -> Any:
    """List the places of the indexes from ``skip_index`` up; return their number, and in
    the lowest eight bits the largest index of all.

    Blocks without any are passed over at the speed of a vectorised maximum: most channels of an image are
    skipped. ``positions`` has _BLOCK elements more than ``indexes``, since each place is written before it is
    known to count.
    """
    size = _U(indexes.size)
    count = _0
    largest = np.uint8(0)
    block = _U(_BLOCK)
    begin = _0
    while begin < size:
        end = min(begin + block, size)
        highest = np.uint8(0)
        for place in range(begin, end):
            highest = max(highest, indexes[place])
        if highest >= skip_index:
            for place in range(begin, end):
                positions[count] = np.uint32(place)
                count += _U(indexes[place] >= skip_index)
        largest = max(largest, highest)
        begin = end
    return np.int64(count << _8 | largest)


@_compiled(
    types.int64,
    _input(types.int32),
    _input(types.uint8),
    _input(types.uint32),
    _input(types.int64, 2),
    _input(types.uint32),
    _input(types.float64),
    types.uint64[::1],
    types.uint16[::1],
)
def _encode_words(
    symbols: Any,
    indexes: Any,
    positions: Any,
    encoding: Any,
    starts: Any,
    inverses: Any,
    states: Any,
    words: Any,
) -> Any:
    """Encode from the last symbol to the first; fill ``words`` from its end, return where they begin."""
    at = _U(words.size)
    lane_mask = _U(states.size) - _1
    left = _U(positions.size)
    while left > _0:
        left -= _1
        place = _U(positions[left])
        index = _U(indexes[place])
        state = states[left & lane_mask]
        values = _U(encoding[index, _1])
        offset = np.int64(symbols[place]) - encoding[index, _2]
        entry = _U(offset)
        if entry >= values:  # negative offsets have wrapped around
            distance = (entry - values) << _1 if offset >= 0 else ((~entry) << _1) | _1
            entry = values
            shift = _0
            while distance >> (shift + _3) != _0:
                shift += _3
            more = _0
            while True:
                if state >= _NIBBLE_RENORM_AT:
                    at -= _1
                    words[at] = np.uint16(state & _LOW_16)
                    state >>= _16
                state = state << _4 | more | (distance >> shift & _7)
                if shift == _0:
                    break
                more = _8
                shift -= _3
        entry += _U(encoding[index, _0])
        start = _U(starts[entry])
        frequency = start >> _16
        start &= _LOW_16
        if state >= frequency << _RENORM_AT:
            at -= _1
            words[at] = np.uint16(state & _LOW_16)
            state >>= _16
        # state < 2^36, and the half keeps the product further from integers than its rounding error: exact.
        quotient = _U(np.int64((np.float64(np.int64(state)) + 0.5) * inverses[entry]))
        states[left & lane_mask] = (quotient << _16) + (state - quotient * frequency) + start
    return np.int64(at)


@_compiled(
    types.int64,
    _input(types.uint16),
    types.int64,
    types.int64,
    _input(types.uint8),
    _input(types.uint32),
    _input(types.int64, 2),
    _input(types.uint32),
    _input(types.uint16),
    _input(types.uint64),
    types.uint64[::1],
    types.int32[::1],
)
def _decode_words(
    words: Any,
    word_count: Any,
    begin: Any,
    indexes: Any,
    positions: Any,
    encoding: Any,
    decoding: Any,
    buckets: Any,
    entries: Any,
    states: Any,
    symbols: Any,
) -> Any:
    """Decode from the first symbol to the last into ``symbols``, from the word ``begin`` on.

    Return the first word that was not read, or what is wrong, negated.
    """
    end = _U(word_count)
    at = _U(begin)
    coded = _U(positions.size)
    lane_mask = _U(states.size) - _1
    for lane in range(states.size):
        if states[lane] < _STATE_0:
            return -_BAD_STATE
    for done in range(coded):
        place = _U(positions[done])
        index = _U(indexes[place])
        state = states[done & lane_mask]
        slot = state & _LOW_16
        table = _U(decoding[index])
        candidate = _U(buckets[(table >> _5) + (slot >> (table & _31))])
        entry, following = entries[candidate], entries[candidate + _1]
        if slot - (entry & _LOW_16) >= entry >> _16 & _LOW_16:  # no jump: which of two cannot be predicted
            entry = following
        within = slot - (entry & _LOW_16)
        frequency = entry >> _16 & _LOW_16
        while within >= frequency:  # rare, and ends because the last entry of a table reaches up to 2^16
            within -= frequency
            candidate += _1
            entry = entries[candidate + _1]
            frequency = entry >> _16 & _LOW_16
        state = frequency * (state >> _16) + within
        if state < _STATE_0:
            state = state << _16 | _U(words[at])
            at += _1
        value = np.int32(entry >> _32)
        if value == ESCAPE:
            distance, shift, nibble = _0, _0, _8
            while nibble >= _8 and shift < _36:
                nibble = state & _15
                state >>= _4
                if state < _STATE_0:
                    state = state << _16 | _U(words[at])
                    at += _1
                distance |= (nibble & _7) << shift
                shift += _3
            low = encoding[index, _2]
            step = np.int64(distance >> _1)
            escaped = low + encoding[index, _1] + step if distance & _1 == _0 else low - 1 - step
            if nibble >= _8 or (nibble == _0 and shift > _3) or escaped < ESCAPE or escaped >= -ESCAPE:
                return -_BAD_ESCAPE
            value = np.int32(escaped)
        if at > end:
            return -_EXHAUSTED
        symbols[place] = value
        states[done & lane_mask] = state
    return np.int64(at)
