"""What a job would bring, from a sample of its sources: bytes, savings, time and cost. The archive is not touched.

The sample is simple and random (reservoir sampling, Vitter 1985, algorithm R), and is compressed and verified by a real
worker into a temporary archive. Sizes are estimated by the ratio of what came out to what went in, with a bootstrap
interval (Efron 1979): resampled sources, percentiles of the ratio.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from lichen.errors import UsageError
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.index_file import open_shard_index
from lichen.pipeline.archive.marker import create_marker
from lichen.pipeline.archive.store import open_store
from lichen.pipeline.engine.config import JobConfig
from lichen.pipeline.engine.messages import Counts, ShardTask, WorkerConfig
from lichen.pipeline.engine.work import Planning
from lichen.pipeline.engine.worker import Worker
from lichen.pipeline.sources import Source

SAMPLE = 200
CONFIDENCE = 0.95
RESAMPLES = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A job before it is run. Bytes and seconds are estimated, with an interval of 95 % from ``low`` to ``high``."""

    sources: int
    """Files that were listed; all of them are counted, whether or not they are pictures."""
    source_bytes: int
    """Of the files whose sizes the listing tells."""
    unknown_sizes: int
    sampled: int
    compressed: int
    """Of the sample, as are the following four."""
    packed: int
    stored: int
    skipped: int
    unreadable: int
    archive_bytes: int
    """Payloads, index and codecs."""
    low: int
    high: int
    savings: float
    """1 - archive bytes / bytes of what would be archived; negative where the codecs weigh more than is saved."""
    seconds: float
    """On this machine with one worker, without start-up."""
    seconds_low: float
    seconds_high: float

    def cost(self, price: float) -> float:
        """What the time costs at a price an hour."""
        return self.seconds / 3600 * price


def estimate(
    config: JobConfig, *, sample: int = SAMPLE, seed: int = 0, progress: Callable[[Counts], None] | None = None
) -> Estimate:
    """List all sources of a job, and compress some of them.

    As if the archive were new: what an update would pass over is counted too. ``progress`` is called with what was
    done since the last call. Raises ``UsageError`` for sources that do not exist, and what loading the codec raises.
    """
    if sample < 1:
        raise UsageError(f"a sample has at least one picture, not {sample}")
    chosen, listed, size, unknown = _reservoir(
        Planning(open_store(config.archive, config.archive_options), config).listing(), sample, seed
    )
    if not chosen:
        raise UsageError("there are no sources to estimate by")
    with tempfile.TemporaryDirectory(prefix="lichen-") as folder:
        store = open_store(folder)
        create_marker(store)
        shard = layout.shard_id(layout.new_job_id(), 0)
        task = ShardTask(shard=shard, attempt=layout.new_attempt(), sources=tuple(chosen))
        local = replace(config, archive=folder, archive_options={})
        with Worker(WorkerConfig.of(local, cpus=config.engine.cpus_per_worker)) as worker:
            files = worker.codec_files()
            began = perf_counter()
            result = worker.run(task, files.digest, lambda _, counts: progress and progress(counts))
            seconds = perf_counter() - began
        commit = result.commit
        part = open_shard_index(store, commit)
        columns = ("key", "source_bytes", "length", "side_length")
        rows = {row["key"]: row for row in part.read_all(columns).to_pylist()}
        fixed = sum(len(data) for one in files.all for data in one.files.values())
    a_row = commit.index.size / max(1, commit.index.rows)
    there = [rows.get(source.key) for source in chosen]
    before = np.array([0 if row is None else row["source_bytes"] for row in there], np.float64)
    after = np.array(
        [0 if row is None else row["length"] + (row["side_length"] or 0) + a_row for row in there], np.float64
    )
    stated = np.array([source.size or 0 for source in chosen], np.float64)
    # The listing's sizes carry the estimate to the whole where they are all known; else the number of files.
    weight = stated if not unknown and stated.sum() else np.ones(len(chosen))
    whole = float(size) if weight is stated else float(listed)
    part_of = min(1.0, len(chosen) / listed)
    archived = _scaled(after, weight, whole)
    low, high = _interval(after, weight, whole, part_of, seed)
    per_byte = seconds / max(1.0, float(weight.sum()))
    spread = (high - low) / 2 / archived if archived else 0.0
    originals = _scaled(before, weight, whole)
    counts = Counts.of_commit(commit)
    return Estimate(
        sources=listed,
        source_bytes=size,
        unknown_sizes=unknown,
        sampled=len(chosen),
        compressed=counts.compressed,
        packed=counts.packed,
        stored=counts.stored,
        skipped=counts.skipped,
        unreadable=counts.quarantined,
        archive_bytes=round(archived + fixed),
        low=round(low + fixed),
        high=round(high + fixed),
        savings=1 - (archived + fixed) / originals if originals else 0.0,
        seconds=per_byte * whole,
        seconds_low=per_byte * whole * max(0.0, 1 - spread),
        seconds_high=per_byte * whole * (1 + spread),
    )


def _reservoir(sources: Iterable[Source], count: int, seed: int) -> tuple[list[Source], int, int, int]:
    """A simple random sample, and of all sources their number, their bytes, and how many have no known size."""
    chance = random.Random(seed)  # noqa: S311 - a sample, no secret
    chosen: list[Source] = []
    number = size = unknown = 0
    for source in sources:
        number += 1
        size += source.size or 0
        unknown += source.size is None
        if len(chosen) < count:
            chosen.append(source)
        elif (place := chance.randrange(number)) < count:
            chosen[place] = source
    return sorted(chosen, key=lambda source: source.key), number, size, unknown


def _scaled(values: NDArray[np.float64], weight: NDArray[np.float64], whole: float) -> float:
    return float(values.sum() / weight.sum() * whole) if weight.sum() else 0.0


def _interval(
    values: NDArray[np.float64], weight: NDArray[np.float64], whole: float, part: float, seed: int
) -> tuple[float, float]:
    """Where the scaled sum lies, narrower where the sample is a good ``part`` of the whole (finite population)."""
    chance = np.random.default_rng(seed)
    picks = chance.integers(0, len(values), (RESAMPLES, len(values)))
    sums = weight[picks].sum(axis=1)
    ratios = np.divide(values[picks].sum(axis=1), sums, out=np.zeros(RESAMPLES), where=sums > 0) * whole
    middle = _scaled(values, weight, whole)
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    narrow = float(np.sqrt(1 - part))
    return middle - (middle - float(low)) * narrow, middle + (float(high) - middle) * narrow
