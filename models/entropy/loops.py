"""The loops of the entropy coder, compiled: states, words and symbols in, states, words and symbols out.

``lichen.models.entropy.rans`` says what they do and calls them. All arithmetic on states, positions and places is in
uint64: numba makes a float of uint64 and int64 together, and signed subscripts cost a test for negative ones.
Subscripts are in bounds by construction, as told there.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import numba
import numpy as np
from numba import types

from lichen.models.entropy.tables import ESCAPE

STATE_BITS: Final = 36
BLOCK: Final = 32
"""Indexes that ``list_coded`` looks at together."""
EXHAUSTED, BAD_STATE, BAD_ESCAPE = 1, 2, 3
"""What ``decode_words`` returns where something is wrong, negated."""

_U = np.uint64
_0, _1, _2, _3, _4, _5, _7, _8, _15, _16, _31, _32, _36 = (_U(n) for n in (0, 1, 2, 3, 4, 5, 7, 8, 15, 16, 31, 32, 36))
_LOW_16, STATE_0 = _U(0xFFFF), _U(1 << 20)
_RENORM_AT = _U(STATE_BITS - 16)
_NIBBLE_RENORM_AT = _U(1 << STATE_BITS - 4)

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
def list_coded(indexes: Any, skip_index: Any, positions: Any) -> Any:
    """List the places of the indexes from ``skip_index`` up; return their number, and in
    the lowest eight bits the largest index of all.

    Blocks without any are passed over at the speed of a vectorised maximum: most channels of an image are
    skipped. ``positions`` has BLOCK elements more than ``indexes``, since each place is written before it is
    known to count.
    """
    size = _U(indexes.size)
    count = _0
    largest = np.uint8(0)
    block = _U(BLOCK)
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
def encode_words(
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
def decode_words(
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
        if states[lane] < STATE_0:
            return -BAD_STATE
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
        if state < STATE_0:
            state = state << _16 | _U(words[at])
            at += _1
        value = np.int32(entry >> _32)
        if value == ESCAPE:
            distance, shift, nibble = _0, _0, _8
            while nibble >= _8 and shift < _36:
                nibble = state & _15
                state >>= _4
                if state < STATE_0:
                    state = state << _16 | _U(words[at])
                    at += _1
                distance |= (nibble & _7) << shift
                shift += _3
            low = encoding[index, _2]
            step = np.int64(distance >> _1)
            escaped = low + encoding[index, _1] + step if distance & _1 == _0 else low - 1 - step
            if nibble >= _8 or (nibble == _0 and shift > _3) or escaped < ESCAPE or escaped >= -ESCAPE:
                return -BAD_ESCAPE
            value = np.int32(escaped)
        if at > end:
            return -EXHAUSTED
        symbols[place] = value
        states[done & lane_mask] = state
    return np.int64(at)
