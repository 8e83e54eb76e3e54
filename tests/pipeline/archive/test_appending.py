"""What a snapshot adds to its parent, and what it leaves alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from archive_support import contents, opened

from lichen.pipeline.archive import snapshot_writer
from lichen.pipeline.archive.commit import add_totals
from lichen.pipeline.archive.gc import collect
from lichen.pipeline.archive.job import finish_job
from lichen.pipeline.archive.payload_list import read_payloads
from lichen.pipeline.archive.snapshot_writer import table_totals, write_snapshot
from lichen.pipeline.archive.store import Store

Fill = Callable[..., str]


def test_index_files_that_an_append_does_not_touch_are_named_again(
    memory: Store, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_writer, "PART_ROWS", 10)
    monkeypatch.setattr(snapshot_writer, "LEAST_ROWS", 4)
    first = fill(memory, {f"k{n:03d}": b"%d" % n for n in range(40)})
    one = write_snapshot(memory, first)
    finish_job(memory, first, one.number)
    second = fill(memory, {"k015": b"new", "k015a": b"more", "m": b"last"}, after=first)
    two = write_snapshot(memory, second)
    finish_job(memory, second, two.number)
    before, after = ([part.record.file for part in done.index] for done in (one, two))
    assert after[0] == before[0] and after[2:4] == before[2:4]  # the second was touched, and "m" comes behind the last
    assert before[1] not in after
    assert two.rows == two.totals["pictures"] == 42
    assert two.totals == add_totals([table_totals(opened(memory).table())])
    assert [payload.record.rows for payload in read_payloads(memory, two)] == [39, 3]
    collect(memory, older_than=-60, keep_snapshots=1)
    kept = contents(memory)
    assert kept["k015"] == b"new" and kept["k000"] == b"0" and kept["m"] == b"last" and len(kept) == 42


def test_small_index_files_do_not_pile_up(memory: Store, fill: Fill, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot_writer, "PART_ROWS", 10)
    monkeypatch.setattr(snapshot_writer, "LEAST_ROWS", 4)
    job = None
    for number in range(12):
        job = fill(memory, {f"k{number:03d}": b"x"}, after=job)
        done = write_snapshot(memory, job)
    assert done.rows == 12 and len(done.index) == 12 // 4


def test_whoever_loses_a_race_deletes_only_what_it_wrote(
    memory: Store, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_writer, "PART_ROWS", 4)
    monkeypatch.setattr(snapshot_writer, "LEAST_ROWS", 2)
    first = fill(memory, {f"k{n}": b"%d" % n for n in range(8)})
    write_snapshot(memory, first)
    second = fill(memory, {"z": b"z"}, after=first)
    lost = iter([True, False])
    create = snapshot_writer.create_verified

    def losing(store: Store, path: str, data: bytes) -> bool:
        return False if next(lost, False) else create(store, path, data)

    monkeypatch.setattr(snapshot_writer, "create_verified", losing)
    write_snapshot(memory, second)
    assert len(contents(memory)) == 9
