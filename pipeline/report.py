"""What an archive saved and how good its pictures are, from the index alone: nothing is decoded.

Every byte is counted: payloads and side data, index parts, the snapshot's index, the decoders' weights, and the
records of the jobs (plans, commits). Objects that this snapshot does not need (older snapshots, attempts that lost)
are told apart, because ``gc`` removes them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lichen import defaults
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.codecs import codec_name
from lichen.pipeline.archive.payload_list import PayloadSizes
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.rejected import read_rejected
from lichen.pipeline.archive.snapshot import Snapshot
from lichen.pipeline.tally import COLUMNS, Group, Reason, Reasons, Spread, Tally, Worst, spread
from lichen.pipeline.texts import became, many, outcomes

SCORES = "90 is visually lossless, at 80 no difference is noticed side by side, 70 is high and 50 medium quality"
"""What the scores of SSIMULACRA 2 mean, by its author."""
NAMED = 20
"""How many quarantined and skipped sources are named."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """Bytes of an archive, by what they are for. ``total`` is everything but ``unneeded``."""

    payloads: int
    side_data: int
    dead: int
    """Bytes in payload files that belong to pictures which a later job replaced."""
    index: int
    """The index parts beside the payload files, and the index files of the snapshot."""
    records: int
    """Bytes of the marker, the snapshot, jobs with their plans and tables, and commits."""
    weights: int
    """Bytes of the files of the codecs that this snapshot uses."""
    unneeded: int
    """Bytes of older snapshots, attempts that lost, and codecs that no picture uses."""

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
class CodecUse:
    """A codec of the archive."""

    digest: str
    name: str
    bytes: int
    pictures: int


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Report:
    """One snapshot of an archive in numbers."""

    url: str
    snapshot: int | None
    created: str
    pictures: int
    compressed: int
    packed: int
    stored: int
    pixels: int
    unknown_size: int
    """Pictures without a known width and height (packed or stored, not decodable)."""
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
    ssimulacra2: Spread
    worst: tuple[Worst, ...]
    packed_reasons: tuple[Reason, ...]
    stored_reasons: tuple[Reason, ...]
    quarantined: int
    quarantine_reasons: tuple[Reason, ...]
    skipped: int
    skip_reasons: tuple[Reason, ...]

    def __repr__(self) -> str:
        saved = self.savings
        facts = [
            f"{many(self.pictures, 'picture')} ({outcomes(self.compressed, self.packed, self.stored)})",
            became(saved.source_bytes, saved.archive_bytes, saved.savings),
            *([] if saved.bpp_after is None else [f"{saved.bpp_after:.3f} bpp"]),
            f"snapshot {self.snapshot}",
        ]
        return f"<Report {self.url}: {', '.join(facts)}>"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; derived numbers included, infinite ones as null."""
        found: dict[str, Any] = _plain(self)
        return found


def make_report(archive: Archive, *, worst: int = defaults.WORST, named: int = NAMED) -> Report:
    """Read the index once and list the archive's objects once. Raises ``CorruptArchive`` or ``StoreError``."""
    snapshot = archive.snapshot
    rejects = read_rejected(archive.store, () if snapshot is None else snapshot.jobs)
    tally = Tally(worst, named)
    for table in archive.tables(COLUMNS):
        tally.add(table)
        rejects.drop(table.column("key"))
    sizes = _sizes(archive, snapshot, tally)
    return Report(
        url=archive.store.url,
        snapshot=None if snapshot is None else snapshot.number,
        created=archive.marker.created if snapshot is None else snapshot.created,
        pictures=tally.total.pictures,
        compressed=tally.total.compressed,
        packed=tally.count("packed"),
        stored=tally.count("stored"),
        pixels=tally.total.pixels,
        unknown_size=tally.unknown_size,
        sizes=sizes,
        savings=_savings(sizes, tally),
        codecs=_codecs(archive, snapshot, tally),
        by_format=tally.groups("source_format"),
        by_status=tally.groups("status"),
        by_size=tally.groups("size"),
        by_quality=tally.groups("quality"),
        psnr=spread(tally.measures["psnr"]),
        block_psnr=spread(tally.measures["block_psnr"]),
        ms_ssim=spread(tally.measures["ms_ssim"]),
        ssimulacra2=spread(tally.measures["ssimulacra2"]),
        worst=tuple(Worst(**row) for row in tally.worst),
        packed_reasons=tally.reasons["packed"].result(),
        stored_reasons=tally.reasons["stored"].result(),
        quarantined=len(rejects.quarantined),
        quarantine_reasons=_reasons(rejects.quarantined, named),
        skipped=len(rejects.skipped),
        skip_reasons=_reasons(rejects.skipped, named),
    )


# --- bytes ------------------------------------------------------------------------------------------


def _sizes(archive: Archive, snapshot: Snapshot | None, tally: Tally) -> Sizes:
    """From a listing, so that what is there is counted, with the names that the snapshot holds.

    Files of the user's in the same folder are none of the archive's and counted nowhere.
    """
    payloads = {layout.shard_path(name) for name in PayloadSizes(archive.store, snapshot)}
    parts = {path.removesuffix(".bin") + ".parquet" for path in payloads}
    indexes: set[str] = set()
    records = {layout.MARKER}
    weights: set[str] = set()
    if snapshot is not None:
        indexes = {layout.snapshot_file_path(part.record.file) for part in snapshot.index}
        if snapshot.payload_list is not None:
            indexes.add(layout.snapshot_file_path(snapshot.payload_list.file))
        records.add(layout.snapshot_path(snapshot.number))
        weights = {layout.codec_path(digest, ext) for digest, files in snapshot.codecs.items() for ext in files}
    files = index = kept = unneeded = 0
    for entry in archive.store.own_entries():
        if entry.path in payloads:
            files += entry.size
        elif entry.path in parts or entry.path in indexes:
            index += entry.size
        elif entry.path in records or entry.path.startswith((f"{layout.JOBS}/", f"{layout.COMMITS}/")):
            kept += entry.size
        elif entry.path not in weights:
            unneeded += entry.size
    # Codecs from elsewhere may have files of other kinds than ours.
    codecs = sum(entry.size for entry in archive.store.entries(layout.CODECS) if entry.path in weights)
    return Sizes(
        payloads=tally.total.bytes - tally.side_bytes,
        side_data=tally.side_bytes,
        dead=max(0, files - tally.total.bytes),
        index=index,
        records=kept,
        weights=codecs,
        unneeded=unneeded,
    )


def _savings(sizes: Sizes, tally: Tally) -> Savings:
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


def _codecs(archive: Archive, snapshot: Snapshot | None, tally: Tally) -> tuple[CodecUse, ...]:
    uses = []
    for digest, files in ({} if snapshot is None else snapshot.codecs).items():
        uses.append(
            CodecUse(
                digest=digest,
                name=codec_name(archive.store, digest),
                bytes=sum(files.values()),
                pictures=tally.by["codec"][digest].pictures,
            )
        )
    return tuple(uses)


def _reasons(rejected: Mapping[str, str], named: int) -> tuple[Reason, ...]:
    """The most frequent reasons for which sources are not in the archive, at most ``named`` of them."""
    found = Reasons(named)
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
