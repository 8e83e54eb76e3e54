"""What changed in the sources since they were archived."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from lichen.pipeline.archive import layout
from lichen.pipeline.archive.index import microseconds
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.rejects import Skipped, read_table, schema_of
from lichen.pipeline.archive.store import Store
from lichen.pipeline.sources import Source

KNOWN_COLUMNS = ("key", "source_bytes", "source_mtime", "source_etag")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDiff:
    """Sources against an archive. ``missing`` are keys of the archive that no source has, sorted."""

    new: tuple[Source, ...]
    changed: tuple[Source, ...]
    unchanged: int
    skipped: int
    """Sources that an earlier job found to be no pictures, and that have not changed since."""
    missing: tuple[str, ...]

    @property
    def work(self) -> tuple[Source, ...]:
        """What a new job has to do."""
        return self.new + self.changed


class _Known(NamedTuple):
    size: int | None
    mtime: int | None
    etag: str | None


def diff_sources(archive: Archive, sources: Iterable[Source], *, retry_skipped: bool = False) -> SourceDiff:
    """Compare sources with an archive: four columns of its index, and what its jobs skipped.

    Quarantined sources are new, or changed: every update tries them again. ``retry_skipped`` does the
    same for skipped ones.
    """
    jobs = () if archive.snapshot is None or retry_skipped else archive.snapshot.jobs
    return diff_table(archive.table(KNOWN_COLUMNS), sources, skipped_sources(archive.store, jobs))


def skipped_sources(store: Store, jobs: Iterable[str]) -> pa.Table:
    """What these jobs skipped, as a table of key, size, mtime and etag.

    Tables of attempts that did not count are as true as the others, so commits need not be looked at.
    """
    columns = ["key", "size", "mtime", "etag"]
    tables = [schema_of(Skipped).empty_table().select(columns)]
    for job in jobs:
        for entry in store.entries(layout.job_path(layout.check("job", job), "skipped")):
            if layout.is_own(entry.path):
                tables.append(read_table(store, entry.path, Skipped).select(columns))
    return pa.concat_tables(tables)


def diff_table(known: pa.Table, sources: Iterable[Source], skipped: pa.Table | None = None) -> SourceDiff:
    """``diff_sources`` against a table of ``KNOWN_COLUMNS`` and one of ``skipped_sources``. Pure.

    Keys of sources must be unique. A source with a fault is always work, and nothing below it is missing: of a
    folder that cannot be read, or a damaged tar file, nobody knows.
    """
    rest = {
        key: _Known(size, mtime, etag)
        for key, size, mtime, etag in zip(
            known.column("key").to_pylist(),
            known.column("source_bytes").to_pylist(),
            known.column("source_mtime").cast(pa.int64()).to_pylist(),
            known.column("source_etag").to_pylist(),
            strict=True,
        )
    }
    no_pictures: dict[str, list[_Known]] = {}
    for row in [] if skipped is None else skipped.to_pylist():
        record = _Known(row["size"], microseconds(row["mtime"]), row["etag"])
        no_pictures.setdefault(row["key"], []).append(record)
    new: list[Source] = []
    changed: list[Source] = []
    faulty: list[str] = []
    unchanged = passed_over = 0
    for source in sources:
        before = rest.pop(source.key, None)
        if source.fault is not None:
            faulty.append(source.key)
            (new if before is None else changed).append(source)
        elif before is not None and not _differs(source, before):
            unchanged += 1
        elif any(not _differs(source, one) for one in no_pictures.get(source.key, ())):
            passed_over += 1
        elif before is None:
            new.append(source)
        else:
            changed.append(source)
    return SourceDiff(
        new=tuple(new),
        changed=tuple(changed),
        unchanged=unchanged,
        skipped=passed_over,
        missing=tuple(sorted(_not_below(rest, faulty))),
    )


def _not_below(keys: Iterable[str], faulty: Iterable[str]) -> Iterator[str]:
    below = tuple(key.removesuffix(".tar").rstrip("/") + "/" if key != "/" else "" for key in faulty)
    return (key for key in keys if not key.startswith(below))


def _differs(source: Source, known: _Known) -> bool:
    """By size, else by ETag, else by modification time; what is unknown on either side says nothing."""
    if source.size is not None and known.size is not None and source.size != known.size:
        return True
    if source.etag is not None and known.etag is not None:
        return source.etag != known.etag
    mtime = microseconds(source.mtime)
    return mtime is not None and known.mtime is not None and mtime != known.mtime
