"""What a job has to do in an archive that holds pictures already."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from lichen.errors import DuplicateKey
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.job import list_jobs, read_done, read_job
from lichen.pipeline.archive.losses import lost_payloads
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.store import LocalStore, Store
from lichen.pipeline.archive.update import KNOWN_COLUMNS, diff_table, skipped_sources
from lichen.pipeline.engine.config import JobConfig
from lichen.pipeline.sources import Source
from lichen.pipeline.sources.base import is_local, local_path
from lichen.pipeline.sources.secrets import without_secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """Sources that are new or changed, and keys whose source is gone."""

    work: tuple[Source, ...]
    unchanged: int
    """Sources that have not changed, those found to be no pictures before included."""
    passed_over: int
    """Unchanged sources that are no pictures."""
    missing: tuple[str, ...]
    lost: int
    """Pictures whose payload files are not there as they were; their sources count as changed."""


def find_changes(archive: Archive, sources: Iterable[Source], config: JobConfig) -> Changes:
    """Compare sources with an archive; ``Source`` and index are both held in memory.

    Files that an earlier job on the same sources skipped, because they are no pictures, are not new. Files that
    it could not read are, as are pictures whose payload files were lost. Raises ``DuplicateKey`` for a changed picture
    that came from other sources, unless the configuration says what to do.
    """
    store = archive.store
    ours = {job for job in list_jobs(store) if _is_same(read_job(store, job).config.get("source"), config.names)}
    known = archive.table([*KNOWN_COLUMNS, "shard"])
    there, lost = _there(archive, known)
    blank: list[Source] = []
    skipped = None if config.sources.store_others else skipped_sources(store, _finished(store, ours))
    diff = diff_table(there.select(list(KNOWN_COLUMNS)), _noting(sources, blank), skipped)
    again = tuple(source for source in diff.new if source.key in lost)
    homes = _homes(known, {source.key for source in (*diff.changed, *again, *blank)} | set(diff.missing))
    # Where nothing is known of a source, its key tells whether it was archived, but only among our own.
    others = [source for source in blank if source.key in homes and source.key not in lost]
    strangers = tuple(source for source in others if homes[source.key] not in ours)
    changed = diff.changed + again + strangers
    if foreign := [source for source in changed if source.fault is None and homes[source.key] not in ours]:
        if config.sources.on_collision == "error":
            raise DuplicateKey(
                f"{foreign[0].key!r} and {len(foreign) - 1} more keys are in the archive already, from other sources; "
                "replace or keep those with --on-collision, or use another archive"
            )
        if config.sources.on_collision == "keep":
            changed = tuple(source for source in changed if source.fault or homes[source.key] in ours)
    return Changes(
        work=tuple(source for source in diff.new if source.key not in lost) + changed,
        unchanged=diff.unchanged - len(strangers) + diff.skipped,
        passed_over=diff.skipped,
        missing=tuple(key for key in diff.missing if homes[key] in ours),
        lost=len(lost),
    )


def _there(archive: Archive, known: pa.Table) -> tuple[pa.Table, set[str]]:
    """The rows whose payload files are there, and the keys of the others."""
    files = set() if archive.snapshot is None else lost_payloads(archive.store, archive.snapshot)
    if not files:
        return known, set()
    lost = pc.is_in(known.column("shard"), value_set=pa.array(sorted(files), pa.string()))
    return known.filter(pc.invert(lost)), set(known.filter(lost).column("key").to_pylist())


def outside(sources: Iterable[Source], store: Store) -> Iterator[Source]:
    """The sources that are not files of the archive itself, which may lie in a folder or prefix that is archived.

    Left out is what has a name that lichen gives (``layout.is_own``); a picture of the user's in ``jobs/`` stays.
    On a disk it does not matter by which links the archive is found, or whether they are named or met below a folder.
    """
    if isinstance(store, LocalStore):
        root = store.root
        return (source for source in sources if not (is_local(source.uri) and _is_of(local_path(source.uri), root)))
    protocols = store.filesystem.protocol
    schemes = {protocols} if isinstance(protocols, str) else set(protocols)
    homes = {store.url, *(f"{scheme}://{store.root}" for scheme in schemes)}
    prefixes = [home.rstrip("/") + "/" for home in homes]

    def is_own(source: Source) -> bool:
        name = "" if is_local(source.uri) else without_secrets(source.uri)
        return any(name.startswith(prefix) and layout.is_own(name[len(prefix) :]) for prefix in prefixes)

    return (source for source in sources if not is_own(source))


def _is_of(path: str, root: str) -> bool:
    """Whether a local path is that of a file which lichen wrote into the archive at ``root``."""
    parts = path.split("/")
    ends = ("/".join(parts[-count:]) for count in range(1, min(_DEPTH, len(parts)) + 1))
    return any(layout.is_own(end) and os.path.realpath(path) == os.path.realpath(f"{root}/{end}") for end in ends)


_DEPTH = 4
"""Most parts of a name in an archive."""


def _noting(sources: Iterable[Source], blank: list[Source]) -> Iterator[Source]:
    """The sources as they are given; those that cannot be compared with anything are added to ``blank``."""
    for source in sources:
        if source.size is None and source.mtime is None and source.etag is None and source.fault is None:
            blank.append(source)
        yield source


def _is_same(stated: object, sources: Sequence[str]) -> bool:
    return isinstance(stated, list) and tuple(without_secrets(str(name)) for name in stated) == tuple(sources)


def _homes(known: pa.Table, keys: set[str]) -> dict[str, str]:
    """The job that each of some keys came from."""
    if not keys:
        return {}
    wanted = pa.array(sorted(keys), pa.string())
    rows = known.filter(pc.is_in(known.column("key"), value_set=wanted))
    pairs = zip(rows.column("key").to_pylist(), rows.column("shard").to_pylist(), strict=True)
    return {key: layout.job_of(shard) for key, shard in pairs}


def _finished(store: Store, jobs: set[str]) -> list[str]:
    return [job for job in sorted(jobs) if (done := read_done(store, job)) is not None and done.state == "finished"]
