"""What a snapshot adds to its parent, and what it leaves alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from archive_support import contents, in_json, opened

from lichen.errors import CorruptArchive
from lichen.models.registry import load_codec
from lichen.pipeline.archive import layout, snapshot_writer
from lichen.pipeline.archive.codecs import put_codec
from lichen.pipeline.archive.commit import add_totals, commit_shard, table_totals
from lichen.pipeline.archive.gc import collect
from lichen.pipeline.archive.job import finish_job
from lichen.pipeline.archive.losses import check_codecs
from lichen.pipeline.archive.manifest import SEAL, dump
from lichen.pipeline.archive.payload_list import read_payloads
from lichen.pipeline.archive.shard import ShardWriter
from lichen.pipeline.archive.snapshot_writer import write_snapshot
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


def test_what_a_snapshot_says_of_codecs_stays_while_their_files_are_gone(
    memory: Store, fill: Fill, new_job: Any, row: Any
) -> None:
    digest = "ab" * 32
    files = {layout.codec_path(digest, "json"): b"{}", layout.codec_path(digest, "safetensors"): b"weights"}
    for path, data in files.items():
        memory.put(path, data)
    first = new_job(memory)
    with ShardWriter(memory, layout.shard_id(first, 0)) as writer:
        columns = {"status": "compressed", "codec": digest, "width": 1, "height": 1, "mode": "L"}
        writer.add(row(writer.append(b"x"), "k", b"x", **columns))
        commit_shard(memory, writer.publish())
    stated = write_snapshot(memory, first).codecs
    assert stated == {digest: {"json": 2, "safetensors": 7}}
    job = first
    for name, left in ((".safetensors", None), (".safetensors", b"cut"), ("", None)):
        for path in files:
            if path.endswith(name):
                memory.delete([path])
                if left is not None:
                    memory.put(path, left)
        job = fill(memory, {"l": b"y"}, after=job)
        assert write_snapshot(memory, job).codecs == stated
        with pytest.raises(CorruptArchive, match="Put it back"):
            check_codecs(memory)
    for path, data in files.items():
        memory.put(path, data)
    check_codecs(memory)


def test_another_spelling_of_the_same_codec_is_stated_anew(memory: Store, fill: Fill, new_job: Any, row: Any) -> None:
    codec = load_codec("webp")
    sizes = put_codec(memory, codec)
    job = new_job(memory, [codec.digest])
    with ShardWriter(memory, layout.shard_id(job, 0)) as writer:
        columns = {"status": "compressed", "codec": codec.digest, "width": 1, "height": 1, "mode": "L"}
        writer.add(row(writer.append(b"x"), "k", b"x", **columns))
        commit_shard(memory, writer.publish())
    assert write_snapshot(memory, job).codecs == {codec.digest: sizes}
    memory.put(layout.codec_path(codec.digest, "json"), codec.decoder_files()["json"] + b"\n")
    written = write_snapshot(memory, fill(memory, {"l": b"y"}, after=job))
    assert written.codecs == {codec.digest: {"json": sizes["json"] + 1}}
    assert opened(memory).codec(codec.digest).name == "webp"


@pytest.mark.parametrize("change", [{"rows": 0}, {"rows": 3}])
def test_a_snapshot_that_counts_wrongly_is_not_added_to(memory: Store, fill: Fill, change: dict[str, Any]) -> None:
    first = fill(memory, {"a": b"1", "b": b"2"})
    write_snapshot(memory, first)
    in_json(memory, 1)
    path = layout.snapshot_path(1)
    record = {name: value for name, value in json.loads(memory.read(path)).items() if name != SEAL}
    record["payloads"][0] |= change
    memory.put(path, dump(record))
    second = fill(memory, {"b": b"new"}, after=first)
    with pytest.raises(CorruptArchive, match="does not count its rows"):
        write_snapshot(memory, second)
    assert len(contents(memory)) == 2
