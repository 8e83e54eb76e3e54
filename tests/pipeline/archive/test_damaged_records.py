"""Every flipped bit of every record is told, by name, with what to do; records of early versions stay readable."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.errors import CorruptArchive, UnsupportedArchive
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.commit import commit_shard, read_commit, split_shard
from lichen.pipeline.archive.job import finish_job, read_done, read_job, read_progress, write_progress
from lichen.pipeline.archive.lease import acquire, current
from lichen.pipeline.archive.manifest import SEAL, dump, parse
from lichen.pipeline.archive.marker import read_marker
from lichen.pipeline.archive.plan import Grouping, read_summary, write_plan
from lichen.pipeline.archive.snapshot import read_snapshot
from lichen.pipeline.archive.snapshot_writer import write_snapshot
from lichen.pipeline.archive.store import Store
from lichen.pipeline.sources import Source


@pytest.fixture
def records(memory: Store, new_job: Any, publish: Any) -> dict[str, Any]:
    """A record of every kind: its path, and how it is read."""
    job = new_job(memory, source="s3://bücket/päth")
    sources = [Source(key=f"k{n}", uri=f"file:///x/{n}", size=30) for n in range(4)]
    first, second = write_plan(memory, job, sources, Grouping(target_bytes=60))
    commit_shard(memory, publish(memory, first.shard, {"k0": b"a", "k1": b"b"}))
    split_shard(memory, second, "its worker dies of it")
    write_progress(memory, job, {"job": job, "done": 0.25, "counts": {"pictures": 2}})
    acquire(memory, job)
    number = write_snapshot(memory, job).number
    finish_job(memory, job, number)
    lease = layout.lease_folder(job)
    return {
        layout.MARKER: lambda: read_marker(memory),
        layout.job_path(job, "job.json"): lambda: read_job(memory, job),
        layout.job_path(job, "plan.json"): lambda: read_summary(memory, job),
        layout.job_path(job, "done.json"): lambda: read_done(memory, job),
        layout.job_path(job, "progress.json"): lambda: read_progress(memory, job),
        layout.commit_path(first.shard): lambda: read_commit(memory, first.shard),
        layout.commit_path(second.shard): lambda: read_commit(memory, second.shard),
        layout.snapshot_path(number): lambda: read_snapshot(memory, number),
        f"{lease}/00000000.json": lambda: current(memory, job),
        f"{lease}/00000000.beat.json": lambda: current(memory, job),
    }


def test_every_record_of_an_archive_is_sealed(memory: Store, records: dict[str, Any]) -> None:
    found = {entry.path for entry in memory.entries() if entry.path.endswith(".json")}
    assert found == set(records)
    assert all(SEAL in json.loads(memory.read(path)) for path in found)


def complaint(data: bytes, path: str) -> str:
    """What is said of a record; nothing of a sound one."""
    try:
        parse(data, path)
    except (CorruptArchive, UnsupportedArchive) as error:
        return str(error)
    return ""


def test_every_flipped_bit_is_told(memory: Store, records: dict[str, Any]) -> None:
    for path, read in records.items():
        good = memory.read(path)
        values = parse(good, path).values
        told = 0
        for bit in range(8 * len(good)):
            damaged = bytearray(good)
            damaged[bit // 8] ^= 1 << bit % 8
            message = complaint(bytes(damaged), path)
            if message:
                assert path in message and ("put it back" in message or "delete it" in message)
                told += 1
            else:
                assert parse(bytes(damaged), path).values == values
        assert told > 7.8 * len(good)  # but for 1e-05 and 1E-05
        memory.put(path, bytes(damaged))
        with pytest.raises(CorruptArchive, match=path):
            read()
        memory.put(path, good)
        read()


def test_cut_records_are_told(memory: Store, records: dict[str, Any]) -> None:
    for path in records:
        good = memory.read(path)
        for length in range(len(good)):
            with pytest.raises(CorruptArchive):
                parse(good[:length], path)


def test_records_without_a_checksum_stay_readable(memory: Store, records: dict[str, Any]) -> None:
    for path, read in records.items():
        before = read()
        record = json.loads(memory.read(path))
        del record[SEAL]
        memory.put(path, json.dumps(record).encode())
        assert read() == before


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec="utf-8"), max_size=7), inner, max_size=3)
    ),
    max_leaves=10,
)


NAMES = st.text(st.characters(codec="utf-8"), max_size=7).filter(lambda name: name not in (SEAL, "format"))


@given(st.dictionaries(NAMES, JSON, max_size=5))
def test_whatever_is_dumped_is_parsed(value: dict[str, Any]) -> None:
    data = dump(value)
    assert parse(data, "x").values == {"format": layout.FORMAT, **value}
    laid_out = json.dumps(json.loads(data), indent=2, sort_keys=True).encode()
    assert parse(laid_out, "x").values == {"format": layout.FORMAT, **value}
