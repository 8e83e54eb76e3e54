"""What changed in the sources since they were archived."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import pyarrow as pa

from lichen.pipeline.archive.index import microseconds
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.sources import Source

KNOWN_COLUMNS = ("key", "source_bytes", "source_mtime", "source_etag")


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceDiff:
    """Sources against an archive. ``missing`` are keys of the archive that no source has, sorted."""

    new: tuple[Source, ...]
    changed: tuple[Source, ...]
    unchanged: int
    missing: tuple[str, ...]

    @property
    def work(self) -> tuple[Source, ...]:
        """What a new job has to do."""
        return self.new + self.changed


class _Known(NamedTuple):
    size: int
    mtime: int | None
    etag: str | None


def diff_sources(archive: Archive, sources: Iterable[Source]) -> SourceDiff:
    """Compare sources with the index of an archive; reads four of its columns."""
    return diff_table(archive.table(KNOWN_COLUMNS), sources)


def diff_table(known: pa.Table, sources: Iterable[Source]) -> SourceDiff:
    """The same with a table of ``KNOWN_COLUMNS``. Pure. Keys of sources must be unique."""
    mtimes = known.column("source_mtime").cast(pa.int64()).to_pylist()
    columns = (known.column(name).to_pylist() for name in ("source_bytes", "source_etag"))
    rest = dict(
        zip(
            known.column("key").to_pylist(),
            (_Known(size, mtime, etag) for size, etag, mtime in zip(*columns, mtimes, strict=True)),
            strict=True,
        )
    )
    new, changed = [], []
    unchanged = 0
    for source in sources:
        before = rest.pop(source.key, None)
        if before is None:
            new.append(source)
        elif _differs(source, before):
            changed.append(source)
        else:
            unchanged += 1
    return SourceDiff(new=tuple(new), changed=tuple(changed), unchanged=unchanged, missing=tuple(sorted(rest)))


def _differs(source: Source, known: _Known) -> bool:
    """By size, else by ETag, else by modification time; what is unknown on either side says nothing."""
    if source.size is not None and source.size != known.size:
        return True
    if source.etag is not None and known.etag is not None:
        return source.etag != known.etag
    if source.mtime is not None and known.mtime is not None:
        return microseconds(source.mtime) != known.mtime
    return False
