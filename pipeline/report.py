"""What an archive saved and how good its pictures are, from the index alone: nothing is decoded.

Every byte is counted: payloads and side data, index parts, the snapshot's index, the decoders' weights, and the
records of the jobs (plans, commits). Objects that this snapshot does not need (older snapshots, attempts that lost)
are told apart, because ``gc`` removes them.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lichen.models.errors import CorruptArchive
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.commit import ShardCommit, counting_commits, list_commits
from lichen.pipeline.archive.manifest import FileRecord, require
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.rejects import Quarantined, Reject, Skipped, read_table
from lichen.pipeline.archive.snapshot import Snapshot

NAMED = 20
"""How many quarantined and skipped sources are named."""

_COLUMNS = (
    "key", "status", "length", "side_length", "codec", "width", "height", "source_format", "quality",
    "source_bytes", "bpp", "psnr", "ms_ssim", "block_psnr", "reason",
)  # fmt: skip
_SIZES = ((0.1, "under 0.1 MP"), (1.0, "0.1 to 1 MP"), (4.0, "1 to 4 MP"), (16.0, "4 to 16 MP"))
_LARGEST = "16 MP and more"
_PERCENTILES = (1, 5, 25, 50, 75, 95)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Bytes of an archive, by what they are for. ``total`` is everything but ``unneeded``."""

    payloads: int
    side_data: int
    dead: int
    """In payload files, but of pictures that a later job replaced."""
    index: int
    """The index parts beside the payload files, and the index files of the snapshot."""
    records: int
    """Marker, snapshot, jobs with their plans and tables, commits."""
    weights: int
    """The files of the codecs that this snapshot uses."""
    unneeded: int
    """Older snapshots, attempts that lost, codecs that no picture uses."""

    @property
    def total(self) -> int:
        return self.payloads + self.side_data + self.dead + self.index + self.records + self.weights


@dataclass(frozen=True, slots=True, kw_only=True)
class Savings:
    """Bytes and bits per pixel before and after, all overhead counted; savings are 1 - after / before.

    Bits per pixel leave out pictures of unknown size. All are None where there is nothing to divide by.
    """

    source_bytes: int
    archive_bytes: int
    savings: float | None
    bpp_before: float | None
    bpp_after: float | None
    weights_bytes: int
    savings_without_weights: float | None
    repaid_after_bytes: int | None
    """Size of sources like these whose savings equal the weights; None if nothing is saved without them."""
    repaid_after_pictures: int | None


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
    """Mean over the compressed pictures that are not exact."""

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
    quality: float | None
    bpp: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why pictures are stored, or sources are not in the archive; ``keys`` names the first few."""

    reason: str
    count: int
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecUse:
    """A codec of the archive."""

    digest: str
    name: str
    bytes: int
    pictures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One snapshot of an archive in numbers."""

    url: str
    snapshot: int | None
    created: str
    pictures: int
    compressed: int
    stored: int
    pixels: int
    unknown_size: int
    """Pictures without a known width and height (stored, not decodable)."""
    sizes: Sizes
    savings: Savings
    codecs: tuple[CodecUse, ...]
    by_format: tuple[Group, ...]
    by_status: tuple[Group, ...]
    by_size: tuple[Group, ...]
    by_quality: tuple[Group, ...]
    psnr: Spread
    block_psnr: Spread
    ms_ssim: Spread
    worst: tuple[Worst, ...]
    stored_reasons: tuple[Reason, ...]
    quarantined: int
    quarantine_reasons: tuple[Reason, ...]
    skipped: int
    skip_reasons: tuple[Reason, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; derived numbers included, infinite ones as null."""
        found: dict[str, Any] = _plain(self)
        return found


def make_report(archive: Archive, *, worst: int = 5, named: int = NAMED) -> Report:
    """Read the index once and list the archive's objects once. Raises ``CorruptArchive`` or ``StoreError``."""
    snapshot = archive.snapshot
    rejects = _Rejects(archive, snapshot)
    tally = _Tally(worst, named)
    for table in archive.tables(_COLUMNS):
        tally.add(table)
        rejects.drop(table.column("key"))
    sizes = _sizes(archive, snapshot, tally)
    return Report(
        url=archive.store.url,
        snapshot=None if snapshot is None else snapshot.number,
        created=archive.marker.created if snapshot is None else snapshot.created,
        pictures=tally.total.pictures,
        compressed=tally.total.compressed,
        stored=tally.total.pictures - tally.total.compressed,
        pixels=tally.total.pixels,
        unknown_size=tally.unknown_size,
        sizes=sizes,
        savings=_savings(sizes, tally),
        codecs=_codecs(archive, snapshot, tally),
        by_format=tally.groups("source_format"),
        by_status=tally.groups("status"),
        by_size=tally.groups("size"),
        by_quality=tally.groups("quality"),
        psnr=_spread(tally.measures["psnr"]),
        block_psnr=_spread(tally.measures["block_psnr"]),
        ms_ssim=_spread(tally.measures["ms_ssim"]),
        worst=tuple(Worst(**row) for row in tally.worst),
        stored_reasons=tally.reasons.result(),
        quarantined=len(rejects.quarantined),
        quarantine_reasons=rejects.reasons(rejects.quarantined, named),
        skipped=len(rejects.skipped),
        skip_reasons=rejects.reasons(rejects.skipped, named),
    )


# --- counting ---------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Sum:
    pictures: int = 0
    compressed: int = 0
    source_bytes: int = 0
    bytes: int = 0
    pixels: int = 0
    psnr_sum: float = 0.0
    psnr_count: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Add a row of ``_Tally``'s grouped tables."""
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


class _Reasons:
    """Counts and first keys by reason."""

    def __init__(self, named: int) -> None:
        self.named = named
        self.counts: Counter[str] = Counter()
        self.keys: defaultdict[str, list[str]] = defaultdict(list)

    def add(self, reason: str, key: str) -> None:
        self.counts[reason] += 1
        if len(self.keys[reason]) < self.named:
            self.keys[reason].append(key)

    def result(self) -> tuple[Reason, ...]:
        """Most frequent first."""
        ordered = sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))
        return tuple(Reason(reason=name, count=count, keys=tuple(self.keys[name])) for name, count in ordered)


class _Tally:
    """Sums over index tables."""

    def __init__(self, worst: int, named: int) -> None:
        self.total = _Sum()
        self.by: dict[str, defaultdict[str, _Sum]] = {
            name: defaultdict(_Sum) for name in ("source_format", "status", "size", "quality", "codec")
        }
        self.measures: dict[str, list[NDArray[np.float32]]] = {"psnr": [], "block_psnr": [], "ms_ssim": []}
        self.worst: list[dict[str, Any]] = []
        self.reasons = _Reasons(named)
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
        for row in table.filter(pc.invert(compressed)).select(["key", "reason"]).to_pylist():
            self.reasons.add(row["reason"] or "no reason given", row["key"])

    def _add_measures(self, compressed: pa.Table) -> None:
        for name, values in self.measures.items():
            values.append(compressed.column(name).drop_null().to_numpy())
        names = [field.name for field in dataclasses.fields(Worst)]
        known = compressed.select(names).filter(pc.is_finite(compressed.column("psnr")))
        order = pc.sort_indices(known, [("psnr", "ascending"), ("key", "ascending")])
        rows = self.worst + known.take(order.slice(0, self._worst_count)).to_pylist()
        self.worst = sorted(rows, key=lambda row: (row["psnr"], row["key"]))[: self._worst_count]

    def groups(self, name: str) -> tuple[Group, ...]:
        """Most bytes of sources first; sizes and qualities ascending."""
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


def _spread(parts: list[NDArray[np.float32]]) -> Spread:
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


# --- bytes ------------------------------------------------------------------------------------------


def _sizes(archive: Archive, snapshot: Snapshot | None, tally: _Tally) -> Sizes:
    """From a listing, so that what is there is counted, with the names that the snapshot holds."""
    payloads = {} if snapshot is None else {layout.shard_path(name) for name in snapshot.payload_sizes}
    parts = {path.removesuffix(".bin") + ".parquet" for path in payloads}
    indexes: set[str] = set()
    records = {layout.MARKER}
    weights: set[str] = set()
    if snapshot is not None:
        indexes = {layout.snapshot_file_path(part.record.file) for part in snapshot.index}
        records.add(layout.snapshot_path(snapshot.number))
        weights = {layout.codec_path(digest, ext) for digest, files in snapshot.codecs.items() for ext in files}
    files = index = kept = codecs = unneeded = 0
    for entry in archive.store.entries():
        if entry.path in payloads:
            files += entry.size
        elif entry.path in parts or entry.path in indexes:
            index += entry.size
        elif entry.path in records or entry.path.startswith((f"{layout.JOBS}/", f"{layout.COMMITS}/")):
            kept += entry.size
        elif entry.path in weights:
            codecs += entry.size
        else:
            unneeded += entry.size
    return Sizes(
        payloads=tally.total.bytes - tally.side_bytes,
        side_data=tally.side_bytes,
        dead=max(0, files - tally.total.bytes),
        index=index,
        records=kept,
        weights=codecs,
        unneeded=unneeded,
    )


def _savings(sizes: Sizes, tally: _Tally) -> Savings:
    before, after, weights = tally.total.source_bytes, sizes.total, sizes.weights
    pixels = tally.total.pixels
    without = 1 - (after - weights) / before if before else None
    repaid = weights / without if without is not None and without > 0 else None
    return Savings(
        source_bytes=before,
        archive_bytes=after,
        savings=1 - after / before if before else None,
        bpp_before=8 * (before - tally.unknown_source_bytes) / pixels if pixels else None,
        bpp_after=8 * (after - tally.unknown_bytes) / pixels if pixels else None,
        weights_bytes=weights,
        savings_without_weights=without,
        repaid_after_bytes=None if repaid is None else math.ceil(repaid),
        repaid_after_pictures=None if repaid is None else math.ceil(repaid * tally.total.pictures / before),
    )


def _codecs(archive: Archive, snapshot: Snapshot | None, tally: _Tally) -> tuple[CodecUse, ...]:
    uses = []
    for digest, files in ({} if snapshot is None else snapshot.codecs).items():
        fields = require(archive.store, layout.codec_path(digest, "json"))
        uses.append(
            CodecUse(
                digest=digest,
                name=fields.text("name"),
                bytes=sum(files.values()),
                pictures=tally.by["codec"][digest].pictures,
            )
        )
    return tuple(uses)


# --- sources that are not in the archive ------------------------------------------------------------


class _Rejects:
    """Quarantined and skipped sources of all jobs of a snapshot, by key.

    A later job may have read a source after all: its judgement replaces the earlier one, and a key that is in
    the index counts as neither.
    """

    def __init__(self, archive: Archive, snapshot: Snapshot | None) -> None:
        self.quarantined: dict[str, str] = {}
        self.skipped: dict[str, str] = {}
        for job in sorted(() if snapshot is None else snapshot.jobs):
            for commit in counting_commits(list_commits(archive.store, job), job):
                self._take(archive, commit)

    def _take(self, archive: Archive, commit: ShardCommit) -> None:
        def rows(record: FileRecord | None, folder: str, kind: Reject) -> Iterable[dict[str, Any]]:
            if record is None:
                return []
            path = layout.job_path(commit.job, f"{folder}/{record.file}")
            table = read_table(archive.store, path, kind)
            if table.num_rows != record.rows:
                raise CorruptArchive(f"{path} has {table.num_rows} rows instead of {record.rows}")
            found: list[dict[str, Any]] = table.to_pylist()
            return found

        for row in rows(commit.quarantine, "quarantine", Quarantined):
            self.skipped.pop(row["key"], None)
            self.quarantined[row["key"]] = f"{row['error']}: {row['message']}"
        for row in rows(commit.skipped, "skipped", Skipped):
            self.quarantined.pop(row["key"], None)
            self.skipped[row["key"]] = row["reason"]

    def drop(self, keys: pa.ChunkedArray) -> None:
        """Forget the keys of an index table."""
        for rejected in (self.quarantined, self.skipped):
            if rejected:
                there = pc.is_in(keys, value_set=pa.array(rejected, pa.string()))
                for key in keys.filter(there).to_pylist():
                    del rejected[key]

    def reasons(self, rejected: Mapping[str, str], named: int) -> tuple[Reason, ...]:
        """The most frequent reasons, at most ``named`` of them."""
        found = _Reasons(named)
        for key in sorted(rejected):
            found.add(rejected[key], key)
        return found.result()[:named]


# --- JSON -------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        names += [name for name, member in vars(type(value)).items() if isinstance(member, property)]
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
