"""Which originals must not be deleted: those that the archive does not hold as they are now."""

from __future__ import annotations

import hashlib
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lichen.errors import SourceUnreadable
from lichen.pipeline.archive.index import IndexRow
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.rejected import read_rejected
from lichen.pipeline.engine.changes import outside
from lichen.pipeline.sources import Source, check_unique, list_sources, read_source

Reason = Literal[
    "changed", "not in the archive", "quarantined", "only skipped", "could not be read now", "damaged in the archive"
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A source that must be kept: deleting it would lose what the archive cannot give back."""

    key: str
    reason: Reason
    message: str


class Originals:
    """The sources of an archive, as they are now. ``read`` may be called from several threads.

    Everything that is there is listed, hidden files too, because all of it would be deleted; but not the files of the
    archive itself. Raises ``UsageError`` for sources that do not exist.
    """

    def __init__(
        self, archive: Archive, source: str | Sequence[str], storage_options: Mapping[str, Any] | None = None
    ) -> None:
        names = [source] if isinstance(source, str) else list(source)
        listed = outside(list_sources(names, storage_options=storage_options, hidden=True), archive.store)
        # A second source of one key is another file: it is looked for under the name that --on-duplicate rename gives.
        self._sources: dict[str, Source] = {found.key: found for found in check_unique(listed, "rename")}
        self._archive, self._options = archive, storage_options
        self._kept: dict[str, Kept] = {}
        self._archived: set[str] = set()
        self._lock = threading.Lock()
        self.compared = self.missing = 0

    def read(self, row: IndexRow) -> bytes | None:
        """The bytes of a picture's source, if they are still those that were archived."""
        source = self._sources.get(row.key)
        data: bytes | None = None
        reason: Reason | None = None
        message = ""
        if source is not None:
            try:
                # whatever was archived can be compared, however large the job's --max-source-bytes was
                data = read_source(source, storage_options=self._options, max_bytes=sys.maxsize)
            except SourceUnreadable as error:
                reason, message = "could not be read now", str(error)
            else:
                if hashlib.sha256(data).digest() != row.source_sha256:
                    reason, message = "changed", "its bytes are not those that were archived"
        with self._lock:
            if source is None:
                self.missing += 1
            elif reason is None:
                self.compared += 1
                return data
            else:
                self._kept[row.key] = Kept(key=row.key, reason=reason, message=message)
        return None

    def see(self, key: str) -> None:
        """The archive has a picture of this key."""
        with self._lock:
            self._archived.add(key)

    def damage(self, keys: Iterable[str]) -> None:
        """The archive's pictures of these keys are not good."""
        for key in self._sources.keys() & set(keys):
            self._kept[key] = Kept(key=key, reason="damaged in the archive", message="it is the only good copy")

    def add_others(self) -> None:
        """The sources that the archive has no picture of, once all pictures were seen."""
        snapshot = self._archive.snapshot
        rejected = read_rejected(self._archive.store, () if snapshot is None else snapshot.jobs)
        for key in self._sources.keys() - self._archived:
            reason: Reason = "not in the archive"
            message = "no job has archived it"
            if key in rejected.quarantined:
                reason, message = "quarantined", rejected.quarantined[key]
            elif key in rejected.skipped:
                reason, message = "only skipped", rejected.skipped[key]
            self._kept[key] = Kept(key=key, reason=reason, message=message)

    @property
    def strange(self) -> bool:
        """Whether no picture at all has a source here: other sources than those of the archive."""
        return bool(self._archived) and not self._archived & self._sources.keys()

    @property
    def kept(self) -> list[Kept]:
        """What must be kept, by key."""
        return [self._kept[key] for key in sorted(self._kept)]

    def counts(self) -> dict[str, int]:
        """How many must be kept, by reason; the most frequent first."""
        return dict(Counter(kept.reason for kept in self._kept.values()).most_common())
