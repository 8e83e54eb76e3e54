"""What a driver tells of a job: where it stands, and how it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lichen.pipeline.engine.messages import Counts
from lichen.pipeline.texts import became, many, outcomes


@dataclass(frozen=True, slots=True, kw_only=True)
class JobProgress:
    """Where a running job stands. Rates are those of this run alone."""

    job: str
    counts: Counts
    """Everything that is done, earlier runs of the job included, and shards in work so far."""
    fresh: Counts
    """Counts of what this run did."""
    shards_done: int
    shards_planned: int
    planned_sources: int
    """Sources in the plan so far; all of them once ``plan_complete``."""
    planned_bytes: int
    plan_complete: bool
    seconds: float
    """Seconds since the first shard was handed out."""

    @property
    def images_per_second(self) -> float:
        return self.fresh.sources / self.seconds if self.seconds > 0 else 0.0

    @property
    def megapixels_per_second(self) -> float:
        return self.fresh.pixels / 1e6 / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds to go, by source bytes where sizes are known; None while it cannot be told."""
        if not self.plan_complete or self.seconds <= 0 or not self.fresh.sources:
            return None
        if self.planned_bytes and self.fresh.source_bytes:
            left, done = max(0, self.planned_bytes - self.counts.source_bytes), self.fresh.source_bytes
        else:
            left, done = max(0, self.planned_sources - self.counts.sources), self.fresh.sources
        return left / done * self.seconds


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class JobSummary:
    """How a job ended. ``job`` is None if nothing had to be done."""

    job: str | None
    snapshot: int | None
    resumed: bool
    counts: Counts
    """Counts of the whole job, over all its runs."""
    shards: int
    splits: int
    worker_deaths: int
    seconds: float
    """Seconds of this run, from the first shard handed out to the snapshot."""
    startup_seconds: float
    """Seconds of this run before the first shard: executor, codec, listing."""
    megapixels_per_second: float
    """Megapixels a second of this run, start-up apart."""
    unchanged: int
    """Sources that an update found in the archive as they are, or found to be no pictures before."""
    passed_over: int
    """Unchanged sources that are no pictures."""
    missing: int
    """Pictures of this source in the archive whose source is gone; they stay."""
    not_applied: Mapping[str, tuple[Any, Any]]
    """Settings by which the unchanged pictures were not compressed: what those of the last job were, and what was
    asked for now."""
    restored: tuple[str, ...]
    """Finished jobs whose snapshot was gone, and was made again."""
    lost: int
    """Pictures of the archive whose payload files are gone or cut. Those that had sources were work of this job."""
    missing_names: tuple[str, ...]
    """The first missing keys; the other lists of names have the first ones, too."""
    quarantined_names: tuple[str, ...]
    skipped_names: tuple[str, ...]

    def __repr__(self) -> str:
        counts = self.counts
        if self.job is None:
            return f"<JobSummary: up to date, {many(self.unchanged, 'source')} unchanged, exit code {self.exit_code}>"
        facts = [
            outcomes(counts.compressed, counts.packed, counts.stored),
            became(counts.source_bytes, counts.payload_bytes, counts.savings),
            *([f"{counts.quarantined:,} could not be read"] if counts.quarantined else []),
            *([f"{counts.skipped:,} no pictures"] if counts.skipped else []),
            f"snapshot {self.snapshot}",
            f"exit code {self.exit_code}",
        ]
        return f"<JobSummary {self.job}: {', '.join(facts)}>"

    @property
    def exit_code(self) -> int:
        """0; 3 when sources could not be read; 1 when sources were looked at and nothing is in the archive."""
        if self.counts.quarantined:
            return 3
        return 1 if self.counts.skipped + self.passed_over and not self.archived else 0

    @property
    def archived(self) -> int:
        """Pictures of these sources that are in the archive, as far as this job knows."""
        return self.counts.compressed + self.counts.packed + self.counts.stored + self.unchanged - self.passed_over
