"""The context of the hyper-latent: tables and means for its symbols from those already decoded around them.

The hyper-latent takes 2 to 9 % of a bitstream, and its symbols resemble their neighbours'. Its positions are coded
diagonal by diagonal; a small network sees the symbols of all channels to the left, above, and between the two, and
gives a mean and a scale for every channel (context modelling as in Minnen, Balle and Toderici, NeurIPS 2018, in
the integers of ``lichen.models.decoupled.integer``). So every device finds the same tables, and the bitstream decodes
anywhere.

The mean's whole part is subtracted from a symbol; its fraction, with the scale, selects the table.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lichen.errors import CorruptBitstream, InvalidCodec
from lichen.models.decoupled.fixedpoint import LIMIT, SLOPE, UNIT, WEIGHT_UNIT
from lichen.models.entropy import rans
from lichen.models.entropy.tables import SYMBOL_LIMIT, CoderTables

NEIGHBOURS = 3
"""Left, above, and above the left one."""
LARGEST = 8
"""Neighbours are clamped to this magnitude."""
INPUT_UNIT = UNIT // 4
"""What one step of a neighbour is to the network."""
PHASES = 4
"""Tables of a scale: fractions of the mean of 1/16, 3/16, 5/16, 7/16."""
LEVELS = 48
"""Scales: the first of those of the latent."""
LAYERS = ("hidden", "head")
_MOST_HIDDEN = 2048


@dataclass(frozen=True, kw_only=True, eq=False)
class HyperContext:
    """The context network in integers, and its tables. Pure functions of their arguments; thread-safe.

    ``weights["hidden"]`` int16 ``(2 * 3 * hyper, hidden)``: of the symbols of the three neighbours, then of their
    magnitudes; ``weights["head"]`` int16 ``(hidden, 2 * hyper)``: means in 1/256 symbols, then log scales in 1/256.
    ``biases`` int32, in ``1 / (UNIT * WEIGHT_UNIT)``. ``tables``: index ``PHASES * level + phase``. Raises
    ``InvalidCodec`` if they do not belong together.
    """

    weights: Mapping[str, NDArray[np.int16]]
    biases: Mapping[str, NDArray[np.int32]]
    tables: CoderTables

    def __post_init__(self) -> None:
        hidden, head = self.weights["hidden"], self.weights["head"]
        fits = hidden.ndim == head.ndim == 2 and hidden.shape == (NEIGHBOURS * head.shape[1], head.shape[0])
        if not fits or head.shape[1] % 2 or not 0 < head.shape[0] <= _MOST_HIDDEN:
            raise InvalidCodec("hyper-latent context: the layers do not fit each other")
        if any(self.biases[name].shape != self.weights[name].shape[1:] for name in LAYERS):
            raise InvalidCodec("hyper-latent context: a bias has the wrong shape")
        if self.tables.count != PHASES * LEVELS or self.tables.skip_index % PHASES:
            raise InvalidCodec("hyper-latent context: the wrong number of tables")

    @property
    def hyper(self) -> int:
        return self.weights["head"].shape[1] // 2

    @cached_property
    def _floats(self) -> dict[str, NDArray[np.float64]]:
        return {name: self.weights[name].astype(np.float64) for name in LAYERS}

    def encode(self, symbols: NDArray[np.int16], base: NDArray[np.int64]) -> bytes:
        """The stream of ``symbols`` ``(h, w, hyper)``; ``base`` ``(hyper,)`` as for ``indexes``."""
        padded = np.pad(symbols.astype(np.int32), ((1, 0), (1, 0), (0, 0)))
        parts = [_at(padded, rows, columns) for rows, columns in _diagonals(*symbols.shape[:2])]
        own, around = (np.concatenate(part) for part in zip(*parts, strict=True))
        indexes, shift, sign = self.indexes(around, base)
        return rans.encode(np.ascontiguousarray((own - shift) * sign), indexes, self.tables, single=True)

    def decode(self, data: bytes, height: int, width: int, base: NDArray[np.int64]) -> NDArray[np.int32]:
        """The symbols ``(height, width, hyper)``. Raises ``CorruptBitstream``."""
        padded = np.zeros((height + 1, width + 1, self.hyper), dtype=np.int32)
        reader = rans.Reader(data, self.tables)
        for rows, columns in _diagonals(height, width):
            indexes, shift, sign = self.indexes(_at(padded, rows, columns)[1], base)
            decoded = reader.read(indexes).astype(np.int64) * sign + shift
            if np.abs(decoded).max(initial=0) > SYMBOL_LIMIT:
                raise CorruptBitstream("a symbol is larger than any encoder writes")
            padded[rows + 1, columns + 1] = np.where(base < 0, 0, decoded)
        reader.finish()
        return padded[1:, 1:]

    def indexes(
        self, around: NDArray[np.int32], base: NDArray[np.int64]
    ) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.int32]]:
        """Tables for the symbols at ``n`` positions, and what is subtracted from them and they are multiplied with.

        ``around`` ``(n, 3, hyper)``: the neighbours. ``base`` ``(hyper,)``: the scales' level without a context, in
        1/256; negative for channels that are not coded. All results are ``(n, hyper)``.
        """
        near = np.clip(around, -LARGEST, LARGEST).reshape(len(around), -1) * float(INPUT_UNIT)
        x = self._layer("hidden", np.concatenate([near, np.abs(near)], axis=1))
        x = np.clip(np.where(x < 0, np.floor(x / 4), x), -LIMIT, LIMIT)
        x = np.clip(self._layer("head", x), -LIMIT, LIMIT)
        mean, growth = x[:, : self.hyper], x[:, self.hyper :]
        level = np.floor((np.floor(growth * SLOPE / UNIT) + base + UNIT // 2) / UNIT)
        level = np.clip(level, self.tables.skip_index // PHASES, LEVELS - 1)
        shift = np.floor((mean + UNIT // 2) / UNIT)
        fraction = mean - UNIT * shift
        phase = np.minimum(np.floor(np.abs(fraction) * (2 * PHASES) / UNIT), PHASES - 1)
        index = np.where(base < 0, 0, PHASES * level + phase).astype(np.uint8)
        return index, shift.astype(np.int32), np.where(fraction < 0, -1, 1).astype(np.int32)

    def _layer(self, name: str, x: NDArray[np.float64]) -> NDArray[np.float64]:
        total = x @ self._floats[name] + self.biases[name]
        result: NDArray[np.float64] = np.floor((total + WEIGHT_UNIT // 2) / WEIGHT_UNIT)
        return result

    # --- storage ----------------------------------------------------------------------------------

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """All integers by name; ``from_arrays`` takes them back."""
        arrays: dict[str, NDArray[np.generic]] = {f"{n}.weight": self.weights[n] for n in LAYERS}
        arrays |= {f"{n}.bias": self.biases[n] for n in LAYERS}
        return arrays | {f"tables.{n}": a for n, a in self.tables.to_arrays().items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> HyperContext:
        """The context of a codec's file. Raises ``InvalidCodec`` unless the arrays are exactly what is expected."""
        tables = {n.removeprefix("tables."): a for n, a in arrays.items() if n.startswith("tables.")}
        kinds = {f"{n}.weight": np.int16 for n in LAYERS} | {f"{n}.bias": np.int32 for n in LAYERS}
        if set(arrays) - {f"tables.{n}" for n in tables} != set(kinds):
            raise InvalidCodec(f"hyper-latent context: expected the arrays {sorted(kinds)}, found {sorted(arrays)}")
        for name, kind in kinds.items():
            if arrays[name].dtype != kind:
                raise InvalidCodec(f"hyper-latent context: {name} is {arrays[name].dtype}, expected {np.dtype(kind)}")
        return cls(
            weights={n: arrays[f"{n}.weight"].astype(np.int16) for n in LAYERS},
            biases={n: arrays[f"{n}.bias"].astype(np.int32) for n in LAYERS},
            tables=CoderTables.from_arrays(tables),
        )


def _diagonals(height: int, width: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows and columns of the positions of each diagonal, from the top left one on; rows ascend."""
    for diagonal in range(height + width - 1):
        rows = np.arange(max(0, diagonal - width + 1), min(diagonal, height - 1) + 1)
        yield rows, diagonal - rows


def _at(
    padded: NDArray[np.int32], rows: NDArray[np.int64], columns: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Symbols ``(n, hyper)`` at some positions, and those around them ``(n, 3, hyper)``.

    ``padded`` has a row and a column of zeros before the first.
    """
    around = [padded[rows + 1, columns], padded[rows, columns + 1], padded[rows, columns]]
    return padded[rows + 1, columns + 1], np.stack(around, axis=1)
