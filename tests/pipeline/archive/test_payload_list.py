"""The payload files of a snapshot, in a table of their own or in the JSON of early versions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from archive_support import contents, in_json, opened

from lichen.errors import (
    CorruptArchive,
    StoreError,
)
from lichen.pipeline.archive import layout, payload_list
from lichen.pipeline.archive.gc import collect
from lichen.pipeline.archive.job import create_job, finish_job
from lichen.pipeline.archive.manifest import FileRecord
from lichen.pipeline.archive.payload_list import read_payloads
from lichen.pipeline.archive.snapshot import PayloadFile, read_snapshot
from lichen.pipeline.archive.snapshot_writer import write_snapshot
from lichen.pipeline.archive.store import Store
from lichen.pipeline.archive.verified import put_file_verified

Fill = Callable[..., str]


def test_snapshots_of_early_versions_are_read_and_added_to(store: Store, fill: Fill) -> None:
    first = fill(store, {"a": b"1", "c": b"2"}, {"b": b"3"})
    new = write_snapshot(store, first)
    in_json(store, 1)
    old = read_snapshot(store, 1)
    assert (old.payload_count, old.payload_bytes, old.part_bytes) == (2, 3, new.part_bytes)
    assert read_payloads(store, old) == read_payloads(store, replace(old, payload_list=None))
    assert contents(store) == {"a": b"1", "b": b"3", "c": b"2"}
    second = fill(store, {"c": b"new"}, after=first)
    two = write_snapshot(store, second)
    assert [one.record.rows for one in read_payloads(store, two)] == [1, 1, 1]
    assert contents(store) == {"a": b"1", "b": b"3", "c": b"new"}


def test_payload_sizes_are_read_in_pieces(memory: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload_list, "GROUP_ROWS", 10)
    job = "20260101T000000-aaaaaa"
    payloads = [
        PayloadFile(
            record=FileRecord(
                file=layout.payload_file(layout.shard_id(job, n), f"{n:012x}"), size=n, sha256=f"{n:064x}", rows=1
            ),
            index_size=2 * n,
        )
        for n in range(95)
    ]
    payload_list.write_payloads(tmp_path / "list", payloads, 1)
    name = layout.payload_list(1, "0123456789ab")
    record = put_file_verified(memory, layout.snapshot_file_path(name), tmp_path / "list", len(payloads))
    empty = write_snapshot(memory, create_job(memory, {}, []).job)
    snapshot = replace(empty, payload_list=record, payload_count=len(payloads))
    assert read_payloads(memory, snapshot) == tuple(payloads)
    sizes = payload_list.PayloadSizes(memory, snapshot)
    assert len(sizes) == 95 and sizes[payloads[37].record.file] == 37
    assert len(sizes._known) == 10
    assert dict(sizes) == {one.record.file: one.record.size for one in payloads}
    with pytest.raises(KeyError):
        sizes["20270101T000000-aaaaaa.00000-0123456789ab.bin"]
    with pytest.raises(CorruptArchive, match="should be"):
        read_payloads(memory, replace(snapshot, payload_list=replace(record, rows=94)))


def test_a_list_that_nobody_names_is_swept_and_a_users_file_is_not(memory: Store, fill: Fill) -> None:
    job = fill(memory, {"a": b"1"})
    done = write_snapshot(memory, job)
    finish_job(memory, job, done.number)
    assert done.payload_list is not None
    listed = memory.read(layout.snapshot_file_path(done.payload_list.file))
    orphan = layout.snapshot_file_path(layout.payload_list(1, "0123456789ab"))
    memory.put(orphan, listed)
    memory.put("snapshots/00000001-ffffffffffff.payloads", b"the user's own")
    memory.put("snapshots/our.payloads", listed)
    assert [entry.path for entry in collect(memory, older_than=-60).garbage] == [orphan]
    assert contents(memory) == {"a": b"1"}


def test_a_list_that_could_not_be_read_once_is_read_again(
    memory: Store, fill: Fill, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_snapshot(memory, fill(memory, {"a": b"1"}))
    archive = opened(memory)
    read, failing = payload_list._Table.read, iter([True])

    def once(table: payload_list._Table, group: int) -> list[PayloadFile]:
        if next(failing, False):
            raise StoreError("the connection was lost")
        return read(table, group)

    monkeypatch.setattr(payload_list._Table, "read", once)
    with pytest.raises(StoreError):
        archive.original("a")
    assert archive.original("a") == b"1"
