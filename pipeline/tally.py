"""Sums, distributions and reasons over index tables: the counting behind the report."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

COLUMNS = (
    "key", "status", "length", "side_length", "codec", "width", "height", "source_format", "quality",
    "source_bytes", "bpp", "psnr", "ms_ssim", "block_psnr", "ssimulacra2", "reason",
)  # fmt: skip
"""What is read of the index."""

_SIZES = ((0.1, "under 0.1 MP"), (1.0, "0.1 to 1 MP"), (4.0, "1 to 4 MP"), (16.0, "4 to 16 MP"))
_LARGEST = "16 MP and more"
_PERCENTILES = (1, 5, 25, 50, 75, 95)


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Some of the pictures. ``bytes`` are their payloads and side data."""

    name: str
    pictures: int
    compressed: int
    source_bytes: int
    bytes: int
    pixels: int
    psnr: float | None
    """Mean PSNR in dB over the compressed pictures that are not exact."""

    @property
    def savings(self) -> float | None:
        return 1 - self.bytes / self.source_bytes if self.source_bytes else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Distribution of a measure over compressed pictures. ``exact`` counts infinite values (equal pixels).

    The mean is over the others; a percentile is a value that occurs, None where it is infinite.
    """

    count: int
    exact: int
    mean: float | None
    minimum: float | None
    percentiles: Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Worst:
    """One of the pictures of lowest PSNR."""

    key: str
    psnr: float
    block_psnr: float | None
    ms_ssim: float | None
    ssimulacra2: float | None
    quality: float | None
    bpp: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why pictures are packed or stored, or sources are not in the archive; ``keys`` names the first few."""

    reason: str
    count: int
    keys: tuple[str, ...]


@dataclass(slots=True)
class Sum:
    """The sums of a group while it grows."""

    pictures: int = 0
    compressed: int = 0
    source_bytes: int = 0
    bytes: int = 0
    pixels: int = 0
    psnr_sum: float = 0.0
    psnr_count: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row of ``Tally``'s grouped tables."""
        self.pictures += row["pictures_sum"]
        self.compressed += row["compressed_sum"]
        self.source_bytes += row["source_bytes_sum"]
        self.bytes += row["bytes_sum"]
        self.pixels += row["pixels_sum"]
        self.psnr_sum += row["finite_sum"] or 0.0
        self.psnr_count += row["finite_count"]

    def group(self, name: str) -> Group:
        mean = self.psnr_sum / self.psnr_count if self.psnr_count else None
        return Group(
            name=name,
            pictures=self.pictures,
            compressed=self.compressed,
            source_bytes=self.source_bytes,
            bytes=self.bytes,
            pixels=self.pixels,
            psnr=mean,
        )


class Reasons:
    """Counts and first keys by reason; ``named`` is how many keys are kept."""

    def __init__(self, named: int) -> None:
        self.named = named
        self.counts: Counter[str] = Counter()
        self.keys: defaultdict[str, list[str]] = defaultdict(list)

    def add(self, reason: str, key: str) -> None:
        self.counts[reason] += 1
        if len(self.keys[reason]) < self.named:
            self.keys[reason].append(key)

    def result(self) -> tuple[Reason, ...]:
        """Counts and keys by reason, the most frequent first."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return tuple(Reason(reason=name, count=count, keys=tuple(self.keys[name])) for name, count in ordered)


class Tally:
    """Sums over index tables; ``worst`` pictures and ``named`` keys of each reason are kept."""

    def __init__(self, worst: int, named: int) -> None:
        self.total = Sum()
        self.by: dict[str, defaultdict[str, Sum]] = {
            name: defaultdict(Sum) for name in ("source_format", "status", "size", "quality", "codec")
        }
        self.measures: dict[str, list[NDArray[np.float32]]] = {
            name: [] for name in ("psnr", "block_psnr", "ms_ssim", "ssimulacra2")
        }
        self.worst: list[dict[str, Any]] = []
        self.reasons = {status: Reasons(named) for status in ("packed", "stored")}
        self.side_bytes = 0
        self.unknown_size = 0
        self.unknown_source_bytes = 0
        self.unknown_bytes = 0
        self._worst_count = worst

    def add(self, table: pa.Table) -> None:
        if table.num_rows == 0:
            return
        width, height = (table.column(name).cast(pa.int64()) for name in ("width", "height"))
        pixels = pc.multiply(width, height)
        sides = pc.fill_null(table.column("side_length"), 0)
        compressed = pc.equal(table.column("status"), "compressed")
        finite = pc.and_(compressed, pc.fill_null(pc.is_finite(table.column("psnr")), False))
        columns = {
            "pictures": pa.array(np.ones(table.num_rows, np.int64)),
            "compressed": compressed.cast(pa.int64()),
            "bytes": pc.add(table.column("length"), sides),
            "pixels": pc.fill_null(pixels, 0),
            "finite": pc.if_else(finite, table.column("psnr").cast(pa.float64()), pa.scalar(None, pa.float64())),
            "size": pa.array([_size_class(count) for count in pixels.to_pylist()], pa.string()),
            "all": pa.array(["all"] * table.num_rows),
        }
        wide = table
        for name, column in columns.items():
            wide = wide.append_column(name, column)
        self.total.add(_grouped(wide, "all")[0])
        for name, sums in self.by.items():
            for row in _grouped(wide, name):
                if row[name] is not None or name == "source_format":
                    sums["unknown" if row[name] is None else _label(row[name])].add(row)
        self.side_bytes += pc.sum(sides).as_py()
        unknown = wide.filter(pc.is_null(pixels))
        self.unknown_size += unknown.num_rows
        self.unknown_bytes += pc.sum(unknown.column("bytes")).as_py() or 0
        self.unknown_source_bytes += pc.sum(unknown.column("source_bytes")).as_py() or 0
        self._add_measures(table.filter(compressed))
        for row in table.filter(pc.invert(compressed)).select(["key", "status", "reason"]).to_pylist():
            self.reasons[row["status"]].add(row["reason"] or "no reason given", row["key"])

    def _add_measures(self, compressed: pa.Table) -> None:
        for name, values in self.measures.items():
            values.append(compressed.column(name).drop_null().to_numpy())
        names = [field.name for field in dataclasses.fields(Worst)]
        known = compressed.select(names).filter(pc.is_finite(compressed.column("psnr")))
        order = pc.sort_indices(known, [("psnr", "ascending"), ("key", "ascending")])
        rows = self.worst + known.take(order.slice(0, self._worst_count)).to_pylist()
        self.worst = sorted(rows, key=lambda row: (row["psnr"], row["key"]))[: self._worst_count]

    def count(self, status: str) -> int:
        """The pictures of a status."""
        return self.by["status"].get(status, Sum()).pictures

    def groups(self, name: str) -> tuple[Group, ...]:
        """The groups, most bytes of sources first; sizes and qualities ascending."""
        found = [sums.group(label) for label, sums in self.by[name].items()]
        if name == "size":
            order = [label for _, label in _SIZES] + [_LARGEST]
            return tuple(sorted(found, key=lambda group: order.index(group.name)))
        if name == "quality":
            return tuple(sorted(found, key=lambda group: float(group.name)))
        return tuple(sorted(found, key=lambda group: (-group.source_bytes, group.name)))


def _grouped(table: pa.Table, name: str) -> list[dict[str, Any]]:
    sums = [(column, "sum") for column in ("pictures", "compressed", "source_bytes", "bytes", "pixels", "finite")]
    rows: list[dict[str, Any]] = table.group_by(name).aggregate([*sums, ("finite", "count")]).to_pylist()
    return rows


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _size_class(pixels: int | None) -> str | None:
    if pixels is None:
        return None
    return next((name for limit, name in _SIZES if pixels < limit * 1e6), _LARGEST)


def spread(parts: list[NDArray[np.float32]]) -> Spread:
    """The distribution of values that came in pieces."""
    values = np.sort(np.concatenate([np.empty(0, np.float32), *parts]).astype(np.float64))
    finite = values[np.isfinite(values)]

    def at(percent: int) -> float | None:
        if not len(values):
            return None
        # the smallest value that at least this part of the pictures does not exceed
        value = float(values[max(0, math.ceil(percent / 100 * len(values)) - 1)])
        return value if math.isfinite(value) else None

    return Spread(
        count=len(values),
        exact=int(np.isposinf(values).sum()),
        mean=float(finite.mean()) if len(finite) else None,
        minimum=float(finite[0]) if len(finite) else None,
        percentiles={f"p{percent}": at(percent) for percent in _PERCENTILES},
    )
