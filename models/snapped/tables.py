"""The coder's tables of a snapped codec, made once, at export: of the hyper-latent's densities, and of Gaussians."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lichen.models.entropy.tables import (
    MAX_ENTRIES,
    MAX_TABLES,
    SKIP_BELOW,
    CoderTables,
    GaussianScales,
    gaussian_tables,
    tables_from_pmfs,
)

SCALE_MIN: Final = 0.11
SCALE_MAX: Final = 256.0
SCALES: Final = 64
LOG_STEP: Final = math.log(SCALE_MAX / SCALE_MIN) / (SCALES - 1)


def scale_tables() -> CoderTables:
    """Tables of the latent, by rising scale."""
    scales = SCALE_MIN * np.exp(LOG_STEP * np.arange(SCALES))
    skip = int(np.searchsorted(scales, SKIP_BELOW))
    return gaussian_tables(GaussianScales(count=SCALES, smallest=SCALE_MIN, largest=SCALE_MAX), skip_index=skip)


def share_tables(pmfs: Sequence[NDArray[np.float64]], firsts: Sequence[int]) -> tuple[CoderTables, NDArray[np.uint8]]:
    """Tables of the probabilities of each channel, and the index of each channel's table.

    There are at most ``MAX_TABLES``. Where channels are more, those share one that lose least by it.
    """
    low, high = min(firsts), max(first + len(pmf) for first, pmf in zip(firsts, pmfs, strict=True))
    rows = np.zeros((len(pmfs), high - low))
    for row, first, pmf in zip(rows, firsts, pmfs, strict=True):
        row[first - low : first - low + len(pmf)] = pmf
    entropy = -np.sum(rows * np.log2(rows, where=rows > 0, out=np.zeros_like(rows)), axis=1)
    groups = [[int(channel)] for channel in np.argsort(entropy, kind="stable")]
    while len(groups) > MAX_TABLES:  # neighbours by entropy
        losses = [_sharing_loss(rows[[*a, *b]]) for a, b in pairwise(groups)]
        best = int(np.argmin(losses))
        groups[best : best + 2] = [groups[best] + groups[best + 1]]
    groups.sort()
    index = np.empty(len(pmfs), dtype=np.uint8)
    shared, starts = [], []
    for number, group in enumerate(groups):
        index[group] = number
        mean = rows[group].mean(axis=0)
        used = np.flatnonzero(mean)
        room = MAX_ENTRIES // len(groups) - 1  # a wide density keeps its middle, and the rest is escaped
        first = max(int(used[0]), min(int(np.argmax(mean)) - room // 2, int(used[-1]) + 1 - room))
        shared.append(mean[first : min(first + room, int(used[-1]) + 1)])
        starts.append(low + first)
    return tables_from_pmfs(shared, starts), index


def _sharing_loss(rows: NDArray[np.float64]) -> float:
    """Bits by which the mean of distributions codes them worse than each codes itself."""
    mean = rows.mean(axis=0)
    used = rows > 0
    ratio = np.divide(rows, np.broadcast_to(mean, rows.shape), where=used, out=np.ones_like(rows))
    return float(np.sum(rows * np.log2(ratio)))
