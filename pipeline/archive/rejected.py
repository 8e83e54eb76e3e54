"""Sources that jobs looked at and did not archive: quarantined, or skipped as no pictures."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from lichen.errors import CorruptArchive
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.commit import ShardCommit, counting_commits, list_commits
from lichen.pipeline.archive.manifest import FileRecord
from lichen.pipeline.archive.rejects import Quarantined, Reject, Skipped, read_table
from lichen.pipeline.archive.store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """Why sources are not in the archive, by key. No key is both quarantined and skipped."""

    quarantined: dict[str, str]
    skipped: dict[str, str]

    def drop(self, keys: pa.ChunkedArray) -> None:
        """Forget the keys of an index table: those are in the archive after all."""
        for rejected in (self.quarantined, self.skipped):
            if rejected:
                there = pc.is_in(keys, value_set=pa.array(rejected, pa.string()))
                for key in keys.filter(there).to_pylist():
                    del rejected[key]


def read_rejected(store: Store, jobs: Iterable[str]) -> Rejected:
    """What these jobs rejected. A later job may have judged a source anew: its word counts."""
    found = Rejected(quarantined={}, skipped={})
    for job in sorted(jobs):
        for commit in counting_commits(list_commits(store, job), job):
            for row in _rows(store, commit, commit.quarantine, "quarantine", Quarantined):
                found.skipped.pop(row["key"], None)
                found.quarantined[row["key"]] = f"{row['error']}: {row['message']}"
            for row in _rows(store, commit, commit.skipped, "skipped", Skipped):
                found.quarantined.pop(row["key"], None)
                found.skipped[row["key"]] = row["reason"]
    return found


def _rows(
    store: Store, commit: ShardCommit, record: FileRecord | None, folder: str, kind: Reject
) -> list[dict[str, Any]]:
    if record is None:
        return []
    path = layout.job_path(commit.job, f"{folder}/{record.file}")
    table = read_table(store, path, kind)
    if table.num_rows != record.rows:
        raise CorruptArchive(f"{path} has {table.num_rows} rows instead of {record.rows}")
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
