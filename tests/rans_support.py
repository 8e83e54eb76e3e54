"""Tables, symbols and a second decoder for the tests of the range ANS coder."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lichen.models.entropy.tables import CoderTables, GaussianScales, gaussian_tables

GAUSSIAN = gaussian_tables(skip_index=6)
SMALL = CoderTables(
    frequencies=np.array([60000, 5000, 536, 32768, 32768, 1, 65534, 1], dtype=np.uint16),
    sizes=np.array([3, 2, 3], dtype=np.int32),
    minimums=np.array([-1, 7, 0], dtype=np.int32),
)


def gaussian_data(size: int, seed: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Symbols drawn from the tables that their indexes select; zero where nothing is coded."""
    random = np.random.default_rng(seed)
    indexes = np.clip(random.normal(18, 12, size), 0, 63).astype(np.uint8)
    symbols = np.rint(random.normal(size=size) * GaussianScales().values()[indexes]).astype(np.int32)
    return np.where(indexes >= GAUSSIAN.skip_index, symbols, 0).astype(np.int32), indexes


def noise(size: int, modulus: int, seed: int) -> NDArray[np.int64]:
    """Integers that are the same in every version of every library."""
    state, values = seed, []
    for _ in range(size):
        state = (state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        values.append((state >> 33) % modulus)
    return np.array(values, dtype=np.int64)


def decode_by_the_book(data: bytes, indexes: list[int], tables: CoderTables) -> list[int]:
    """A decoder written from docs/bitstream.md alone, slow and plain."""
    coded = [place for place, index in enumerate(indexes) if index >= tables.skip_index]
    lanes = 0 if not coded else 1 if len(coded) < 1 << 14 else 2 if len(coded) < 1 << 17 else 4
    head = (36 * lanes + 7) // 8
    packed = int.from_bytes(data[:head], "little")
    states = [packed >> 36 * lane & (1 << 36) - 1 for lane in range(lanes)]
    assert packed >> 36 * lanes == 0 and all(state >= 1 << 20 for state in states)
    words = [int.from_bytes(data[at : at + 2], "little") for at in range(head, len(data), 2)][::-1]

    def refilled(state: int) -> int:
        return state if state >= 1 << 20 else state << 16 | words.pop()

    symbols = [0] * len(indexes)
    for turn, place in enumerate(coded):
        state, index = states[turn % lanes], indexes[place]
        first, size, value = int(tables.firsts[index]), int(tables.sizes[index]), int(tables.minimums[index])
        slot, entry, start = state & 0xFFFF, 0, 0
        while slot >= start + (frequency := int(tables.frequencies[first + entry])):
            start += frequency
            entry += 1
        state = refilled(frequency * (state >> 16) + slot - start)
        if entry < size - 1:
            symbols[place] = value + entry
        else:
            distance, shift, group = 0, 0, 8
            while group & 8:
                group = state & 15
                state = refilled(state >> 4)
                distance |= (group & 7) << shift
                shift += 3
            beyond = distance // 2
            symbols[place] = value - 1 - beyond if distance % 2 else value + size - 1 + beyond
        states[turn % lanes] = state
    assert not words and all(state == 1 << 20 for state in states)
    return symbols
