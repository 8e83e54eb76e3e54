"""Archives go to other processes."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import lichen
from lichen.pipeline.archive.marker import read_marker
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.snapshot_writer import write_snapshot
from lichen.pipeline.archive.store import Store

GOLDEN = Path(__file__).parents[2] / "data" / "archives" / "0.1" / "archive"


def pixels(archive: Archive, key: str) -> Any:
    return archive.array(key)


def test_a_process_reads_what_another_opened() -> None:
    archive = lichen.open(GOLDEN)
    expected = archive.array("classical.png")  # a codec is loaded, index files are open
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert np.array_equal(pool.submit(pixels, archive, "classical.png").result(), expected)


def test_it_stays_the_snapshot_that_it_was(store: Store, fill: Callable[..., str]) -> None:
    first = fill(store, {"a": b"1"})
    one = Archive(store, read_marker(store), write_snapshot(store, first))
    write_snapshot(store, fill(store, {"b": b"2"}, after=first))
    again = pickle.loads(pickle.dumps(one))
    assert list(again) == ["a"] and again.original("a") == b"1"
    assert again.store.url == store.url
