"""Range asymmetric numeral systems: integer symbols to bytes and back, with frozen tables.

The method is J. Duda's rANS ("Asymmetric numeral systems", arXiv:1311.2540, 2013); several states take turns, as
F. Giesen published ("Interleaved entropy coders", arXiv:1402.3392, 2014). The stream is specified byte by byte in
``docs/bitstream.md``; in short:

- A state is an integer of [2^20, 2^36). Frequencies have 16 bits, so every symbol moves at most one 16-bit word, and
  the state keeps at least 4 bits above them: the loss against the ideal code length is under 0.01 %. Short enough
  also that a double holds it exactly, and the encoder divides by multiplying with a stored reciprocal.
- Short streams have one state, longer ones two or four: each costs 2.5 bytes, and makes the decoder faster.
- A value outside of its table is announced by the table's escape symbol; its distance follows as plain bits.

Safe for hostile bytes: the loops' length depends on the number of symbols only, every word is read within a padded
buffer, every table entry through a validated table, and a stream must be used up exactly and leave the states where
encoding began. Both directions release the GIL, and both are pure functions of their arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

from lichen.models.entropy.tables import ESCAPE, ESCAPE_LENGTH_BITS, CoderTables
from lichen.models.errors import CorruptBitstream, InvalidCodec

STATE_BITS: Final = 36
MAX_SYMBOLS: Final = (1 << 31) - 1
TWO_STATES_FROM: Final = 1 << 14
"""Coded symbols from which on a stream has two states, and below which one."""
FOUR_STATES_FROM: Final = 1 << 17

_PADDING: Final = 32  # words behind the stream that may be read: four symbols with escapes move 20 at most
_MAX_ESCAPE_WORDS: Final = 3  # of the length, and of 32 bits
_BLOCK: Final = 32  # indexes looked at together

_U = np.uint64
_0, _1, _4, _5, _6, _16, _20, _31, _32, _33 = (_U(n) for n in (0, 1, 4, 5, 6, 16, 20, 31, 32, 33))
_LOW_16, _LOW_6, _STATE_0 = _U(0xFFFF), _U(0x3F), _U(1 << 20)
_RENORM_AT = _U(STATE_BITS - 16)

# What the decoding loop returns.
_NO_VALUE: Final = 1 << 62
_OK, _EXHAUSTED, _BAD_STATE, _BAD_ESCAPE, _LEFT_OVER = range(5)
_REASONS = {
    _EXHAUSTED: "the stream ends early",
    _BAD_STATE: "a state is out of range",
    _BAD_ESCAPE: "an escaped value does not fit into 32 bits",
    _LEFT_OVER: "the stream does not end where its symbols do",
}


def encode(symbols: NDArray[np.int32], indexes: NDArray[np.uint8], tables: CoderTables) -> bytes:
    """Code ``symbols`` with the tables that ``indexes`` select; both of one shape, taken in C order.

    Symbols with an index below ``tables.skip_index`` are left out (they decode as zero); nothing is left if that is
    all of them: the result is empty. Raises ``InvalidCodec`` if an index has no table.
    """
    if symbols.dtype != np.int32 or symbols.shape != indexes.shape:
        raise ValueError(
            f"symbols must be int32{list(indexes.shape)}, not {symbols.dtype}{list(symbols.shape)}"
        )
    positions = _positions(indexes, tables)
    lookup = tables.lookup
    states = np.full(_states(positions.size), _STATE_0)
    words = np.empty(
        positions.size * (1 + _MAX_ESCAPE_WORDS) + 1, dtype=np.uint16
    )  # touched only as far as used
    flat = np.ascontiguousarray(symbols).reshape(-1)
    begin = _encode_words(
        flat,
        np.ascontiguousarray(indexes).reshape(-1),
        positions,
        lookup.encoding,
        lookup.starts,
        lookup.inverses,
        states,
        words,
    )
    return _pack_states(states) + words[begin:].astype("<u2", copy=False).tobytes()


def decode(
    data: bytes | bytearray | memoryview, indexes: NDArray[np.uint8], tables: CoderTables
) -> NDArray[np.int32]:
    """Decode one stream: int32 of the shape of ``indexes``, zero where nothing was coded.

    Raises ``CorruptBitstream`` if ``data`` is no stream of that many symbols, as far as can be told (a checksum
    tells the rest), and ``InvalidCodec`` if an index has no table.
    """
    positions = _positions(indexes, tables)
    symbols = np.zeros(indexes.shape, dtype=np.int32)
    lookup = tables.lookup
    states, words = _unpack(bytes(data), _states(positions.size))
    outcome = _decode_words(
        words,
        words.size - _PADDING,
        np.ascontiguousarray(indexes).reshape(-1),
        positions,
        lookup.encoding,
        lookup.decoding,
        lookup.buckets,
        lookup.entries,
        states,
        symbols.reshape(-1),
    )
    if outcome != _OK:
        raise CorruptBitstream(f"entropy-coded section: {_REASONS[outcome]}")
    return symbols


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
    count, largest = _list_coded(np.ascontiguousarray(indexes).reshape(-1), tables.skip_index, positions)
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
        raise CorruptBitstream(
            f"entropy-coded section: {len(data)} bytes cannot hold {count} states and whole words"
        )
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
# All arithmetic on states, positions and places is in uint64: numba makes a float of uint64 and int64 together, and
# signed subscripts cost a test for negative ones. Subscripts are in bounds by construction, see the module's text.


_OPTIONS: Final = {"nogil": True, "error_model": "numpy"}
_Function = TypeVar("_Function", bound=Callable[..., Any])


def _helper(function: _Function) -> _Function:
    """A function that is compiled into those that call it."""
    helper: _Function = numba.njit(**_OPTIONS)(function)
    return helper


def _compiled(result: Any, *arguments: Any) -> Callable[[_Function], _Function]:
    """Compile for these types, or take the machine code from the cache on disk."""

    def compile_now(function: _Function) -> _Function:
        compiled: _Function
        try:
            compiled = numba.njit(result(*arguments), cache=True, **_OPTIONS)(function)
        except (RuntimeError, OSError):  # no place that can be written to: compile in every process
            compiled = numba.njit(result(*arguments), **_OPTIONS)(function)
        return compiled

    return compile_now


def _input(dtype: Any, dimensions: int = 1) -> Any:
    return types.Array(dtype, dimensions, "C", readonly=True)


@_compiled(types.UniTuple(types.int64, 2), _input(types.uint8), types.int64, types.uint32[::1])
def _list_coded(indexes: Any, skip_index: Any, positions: Any) -> Any:
    """List the places of the indexes from ``skip_index`` up; return their number and the largest index of all.

    Blocks without any are passed over at the speed of a vectorised maximum: most channels of an image are skipped.
    ``positions`` has _BLOCK elements more than ``indexes``, since each place is written before it is known to count.
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
    return np.int64(count), np.int64(largest)


@_helper
def _push(state: Any, start: Any, frequency: Any, inverse: Any, words: Any, at: Any) -> Any:
    """Encode one symbol; return the state and the place of the last word written (they are written backwards)."""
    if state >= frequency << _RENORM_AT:
        at -= _1
        words[at] = np.uint16(state & _LOW_16)
        state >>= _16
    # state < 2^36 and the half keeps the product away from integers by more than its rounding error: exact.
    quotient = _U(np.int64((np.float64(np.int64(state)) + 0.5) * inverse))
    return (quotient << _16) + (state - quotient * frequency) + start, at


@_helper
def _push_bits(state: Any, value: Any, bits: Any, words: Any, at: Any) -> Any:
    """Encode ``bits`` (1 to 16) bits as they are."""
    if state >= _1 << (_U(STATE_BITS) - bits):
        at -= _1
        words[at] = np.uint16(state & _LOW_16)
        state >>= _16
    return state << bits | value, at


@_helper
def _push_escape(state: Any, distance: Any, words: Any, at: Any) -> Any:
    """Encode what follows an escape symbol, backwards: the length of ``distance``, and its bits but the leading."""
    length = _0
    while distance >> length != _0:
        length += _1
    if length > _1:
        rest = length - _1
        done = _0
        while rest - done > _16:
            state, at = _push_bits(state, (distance >> done) & _LOW_16, _16, words, at)
            done += _16
        left = rest - done
        state, at = _push_bits(state, (distance >> done) & ((_1 << left) - _1), left, words, at)
    return _push_bits(state, length, _6, words, at)


@_helper
def _push_symbol(
    state: Any, symbol: Any, index: Any, encoding: Any, starts: Any, inverses: Any, words: Any, at: Any
) -> Any:
    first, count = _U(encoding[index, 0]), _U(encoding[index, 1])
    offset = np.int64(symbol) - encoding[index, 2]
    place = _U(offset)
    if place >= count:  # negative ones have wrapped around
        distance = _U(-(offset + offset) - 1) if offset < 0 else (place - count) << _1
        state, at = _push_escape(state, distance, words, at)
        place = count
    packed = _U(starts[first + place])
    return _push(state, packed & _LOW_16, packed >> _16, inverses[first + place], words, at)


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
    left = _U(positions.size)
    lanes = _U(states.size)
    four = lanes == _4
    while left > _0 and not (four and left & _U(3) == _0):
        left -= _1
        place = _U(positions[left])
        lane = left % lanes
        states[lane], at = _push_symbol(
            states[lane], symbols[place], _U(indexes[place]), encoding, starts, inverses, words, at
        )
    if left > _0:
        s0, s1, s2, s3 = states[_0], states[_1], states[_U(2)], states[_U(3)]
        while left > _0:
            left -= _4
            p0, p1 = _U(positions[left]), _U(positions[left + _1])
            p2, p3 = _U(positions[left + _U(2)]), _U(positions[left + _U(3)])
            s3, at = _push_symbol(s3, symbols[p3], _U(indexes[p3]), encoding, starts, inverses, words, at)
            s2, at = _push_symbol(s2, symbols[p2], _U(indexes[p2]), encoding, starts, inverses, words, at)
            s1, at = _push_symbol(s1, symbols[p1], _U(indexes[p1]), encoding, starts, inverses, words, at)
            s0, at = _push_symbol(s0, symbols[p0], _U(indexes[p0]), encoding, starts, inverses, words, at)
        states[_0], states[_1], states[_U(2)], states[_U(3)] = s0, s1, s2, s3
    return np.int64(at)


@_helper
def _pop_bits(state: Any, bits: Any, words: Any, at: Any) -> Any:
    value = state & ((_1 << bits) - _1)
    state >>= bits
    if state < _STATE_0:
        state = state << _16 | _U(words[at])
        at += _1
    return value, state, at


@_helper
def _pop_escaped(state: Any, low: Any, high: Any, words: Any, at: Any) -> Any:
    """Decode a value below ``low`` or above ``high``, behind its escape symbol; _NO_VALUE if it is no int32."""
    length, state, at = _pop_bits(state, _6, words, at)
    if length > _33:
        return np.int64(_NO_VALUE), state, at
    distance = _U(length > _0)
    left = length - distance
    while left > _0:
        # The encoder split the bits into chunks of 16 from the lowest up; they come back from the highest down.
        chunk = (left - _1) % _16 + _1
        bits, state, at = _pop_bits(state, chunk, words, at)
        distance = distance << chunk | bits
        left -= chunk
    step = np.int64(distance >> _1) + 1
    value = low - step if distance & _1 else high + step
    if value < ESCAPE or value >= -ESCAPE:
        value = np.int64(_NO_VALUE)
    return value, state, at


@_helper
def _pop_value(
    state: Any, index: Any, encoding: Any, decoding: Any, buckets: Any, entries: Any, words: Any, at: Any
) -> Any:
    """Decode one symbol with all that belongs to it: value, state, place."""
    slot = state & _LOW_16
    table = _U(decoding[index])
    candidate = _U(buckets[(table >> _5) + (slot >> (table & _31))])
    entry, following = entries[candidate], entries[candidate + _1]
    within = slot - (entry & _LOW_16)
    frequency = entry >> _16 & _LOW_16
    if within >= frequency:  # compiled without a jump: which of two it is cannot be predicted
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
    value = np.int64(np.int32(entry >> _32))
    if value == ESCAPE:
        low = encoding[index, 2]
        value, state, at = _pop_escaped(state, low, low + encoding[index, 1] - 1, words, at)
    return value, state, at


@_compiled(
    types.int64,
    _input(types.uint16),
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
    indexes: Any,
    positions: Any,
    encoding: Any,
    decoding: Any,
    buckets: Any,
    entries: Any,
    states: Any,
    symbols: Any,
) -> Any:
    """Decode from the first symbol to the last into ``symbols``; return _OK or what is wrong."""
    end = _U(word_count)
    at = _0
    done = _0
    coded = _U(positions.size)
    lanes = _U(states.size)
    for lane in range(lanes):
        if states[lane] < _STATE_0:
            return _BAD_STATE
    if lanes == _4:
        s0, s1, s2, s3 = states[_0], states[_1], states[_U(2)], states[_U(3)]
        while coded - done >= _4:
            if at > end:
                return _EXHAUSTED
            p0, p1 = _U(positions[done]), _U(positions[done + _1])
            p2, p3 = _U(positions[done + _U(2)]), _U(positions[done + _U(3)])
            v0, s0, at = _pop_value(s0, _U(indexes[p0]), encoding, decoding, buckets, entries, words, at)
            v1, s1, at = _pop_value(s1, _U(indexes[p1]), encoding, decoding, buckets, entries, words, at)
            v2, s2, at = _pop_value(s2, _U(indexes[p2]), encoding, decoding, buckets, entries, words, at)
            v3, s3, at = _pop_value(s3, _U(indexes[p3]), encoding, decoding, buckets, entries, words, at)
            if max(max(v0, v1), max(v2, v3)) == _NO_VALUE:
                return _BAD_ESCAPE
            symbols[p0], symbols[p1] = np.int32(v0), np.int32(v1)
            symbols[p2], symbols[p3] = np.int32(v2), np.int32(v3)
            done += _4
        states[_0], states[_1], states[_U(2)], states[_U(3)] = s0, s1, s2, s3
    while done < coded:
        if at > end:
            return _EXHAUSTED
        place = _U(positions[done])
        lane = done % lanes
        value, states[lane], at = _pop_value(
            states[lane], _U(indexes[place]), encoding, decoding, buckets, entries, words, at
        )
        if value == _NO_VALUE:
            return _BAD_ESCAPE
        symbols[place] = np.int32(value)
        done += _1
    if at > end:
        return _EXHAUSTED
    left_over = at != end
    for lane in range(lanes):
        left_over |= states[lane] != _STATE_0
    return _LEFT_OVER if left_over else _OK
