"""Parquet files that expand: small on the disk, gigabytes when decoded. And damaged pages, which are told."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lichen.errors import CorruptArchive
from lichen.pipeline.archive import layout, rejects
from lichen.pipeline.archive.gc import collect
from lichen.pipeline.archive.index import SCHEMA
from lichen.pipeline.archive.index_file import IndexFile, open_index
from lichen.pipeline.archive.plan import Grouping, read_plan, write_plan
from lichen.pipeline.archive.rejects import Quarantined, Skipped
from lichen.pipeline.archive.shard import ShardWriter
from lichen.pipeline.archive.snapshot_writer import write_snapshot
from lichen.pipeline.archive.store import Store, open_store
from lichen.pipeline.parquet import bounded
from lichen.pipeline.parquet.bounded import BoundedParquet
from lichen.pipeline.parquet.pages import (
    DATA,
    DELTA_LENGTHS,
    DELTA_STRINGS,
    DICTIONARY,
    Page,
    check_lengths,
    read_pages,
)
from lichen.pipeline.sources import Source

PAYLOAD = "20260101T000000-aaaaaa.00000-0123456789ab.bin"
READ = """
import sys, pyarrow as pa
from lichen.errors import CorruptArchive
from lichen.pipeline.parquet import bounded
from lichen.pipeline.archive.index_file import IndexFile
from lichen.pipeline.archive.store import open_store
folder, size, rows, limit = sys.argv[1], *map(int, sys.argv[2:])
if limit:
    bounded.MAX_GROUP_BYTES = bounded.BATCH_BYTES = limit
try:
    file = IndexFile(open_store(folder), "x.parquet", size=size, rows=rows)
    file._parquet._max_bytes = bounded.MAX_GROUP_BYTES
    file.read_all()
except CorruptArchive as error:
    print(pa.default_memory_pool().max_memory(), error)
"""


def index_table(rows: int, **columns: Any) -> pa.Table:
    """An index of stored pictures with some columns replaced."""
    values = {
        "key": pa.array([f"k{number:08d}" for number in range(rows)]),
        "status": pa.repeat("stored", rows),
        "shard": pa.repeat(PAYLOAD, rows),
        "source_sha256": pa.repeat(pa.scalar(bytes(32), pa.binary(32)), rows),
    }
    for field in SCHEMA:
        if field.name not in values:
            zero = pa.repeat(pa.scalar(0, pa.int64()), rows)
            values[field.name] = pa.nulls(rows, field.type) if field.nullable else zero.cast(field.type)
    return pa.table({name: columns.get(name, values[name]) for name in SCHEMA.names})


def written(folder: Path, table: pa.Table, **options: Any) -> int:
    """Write an index file as an enemy would, and return its size."""
    path = folder / "x.parquet"
    pq.write_table(table, path, compression="zstd", store_schema=False, row_group_size=1 << 20, **options)
    return path.stat().st_size


def peak(folder: Path, size: int, rows: int, limit: int = 0) -> tuple[int, str]:
    """Bytes that arrow had at most while a process of its own refused a file, and what it said."""
    arguments = [sys.executable, "-c", READ, str(folder), str(size), str(rows), str(limit)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0 and done.stdout, done.stderr
    memory, _, message = done.stdout.partition(" ")
    return int(memory), message


@pytest.mark.parametrize("column", ["reason", "source_format", "key", "source_etag"])
def test_a_dictionary_whose_rows_would_fill_a_terabyte(tmp_path: Path, column: str) -> None:
    rows = 1_000_000
    long = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), pa.array(["x" * 1_000_000]))
    size = written(tmp_path, index_table(rows, **{column: long}), use_dictionary=[column])
    assert size < 20_000_000
    memory, message = peak(tmp_path, size, rows)
    assert "absurdly" in message and memory < 1 << 30


def test_many_columns_share_one_limit(tmp_path: Path) -> None:
    rows = 100_000
    long = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), pa.array(["x" * 1_000_000]))
    names = ["reason", "source_format", "source_etag", "mode", "codec", "shard"]
    size = written(tmp_path, index_table(rows, **dict.fromkeys(names, long)), use_dictionary=names)
    memory, message = peak(tmp_path, size, rows)
    assert "absurdly" in message and memory < 1 << 30


LIMIT = 4 << 20


@pytest.mark.parametrize("encoding", ["DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY", "PLAIN"])
def test_long_strings_that_pack_well(tmp_path: Path, encoding: str) -> None:
    """The same with smaller numbers: 64 MB of strings, where 4 are allowed."""
    rows = 2000
    keys = pa.array(["x" * 32_000 + f"{number:08d}" for number in range(rows)])
    size = written(tmp_path, index_table(rows, key=keys), use_dictionary=False, column_encoding={"key": encoding})
    assert size < 1_000_000
    memory, message = peak(tmp_path, size, rows, LIMIT)
    assert "absurdly" in message and memory < 5 * LIMIT


def test_a_page_that_states_too_many_lengths() -> None:
    def page(encoding: int, body: bytes, values: int = 10) -> Page:
        return Page(kind=DATA, size=len(body), encoding=encoding, values=values, levels=0, compressed=False, body=body)

    def varint(value: int) -> bytes:
        return bytes([value & 0x7F | 0x80]) + varint(value >> 7) if value > 0x7F else bytes([value])

    def series(count: int) -> bytes:
        """All numbers zero, in blocks as large as they may be."""
        return varint(1 << 20) + varint(1) + varint(count) + b"\0" + b"\0\0" * (max(0, count - 1) // (1 << 20) + 1)

    check_lengths(page(DELTA_LENGTHS, series(10)), "UNCOMPRESSED", 10, nullable=False)
    for encoding, body in (
        (DELTA_LENGTHS, series(11)),
        (DELTA_LENGTHS, series(1 << 33)),
        (DELTA_STRINGS, series(1 << 33)),
        (DELTA_STRINGS, series(10) + series(1 << 33)),
    ):
        with pytest.raises(ValueError, match="more values"):
            check_lengths(page(encoding, body), "UNCOMPRESSED", 10, nullable=False)
    with pytest.raises(ValueError, match="more values"):
        check_lengths(page(DELTA_LENGTHS, series(1 << 33), values=1 << 33), "UNCOMPRESSED", 10, nullable=False)


@given(st.binary(max_size=300))
def test_no_bytes_do_worse_than_an_error(data: bytes) -> None:
    for action in (
        lambda: list(read_pages(data)),
        lambda: check_lengths(
            Page(kind=DATA, size=0, encoding=DELTA_STRINGS, values=9, levels=0, compressed=False, body=data),
            "UNCOMPRESSED",
            9,
            nullable=True,
        ),
    ):
        try:
            action()
        except (ValueError, IndexError):
            continue


@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("compression", ["zstd", "none", "snappy", "gzip"])
@pytest.mark.parametrize("batch", [1, 5_000, 1 << 28])
def test_honest_files_are_read_whatever_their_layout(
    tmp_path: Path, version: str, compression: str, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "BATCH_BYTES", batch)
    rows = 300
    reasons = pa.array([None if number % 3 else f"reason {number % 7}" for number in range(rows)])
    table = index_table(rows, reason=reasons, source_etag=reasons, mode=reasons)
    options = {"data_page_version": version, "compression": compression, "row_group_size": 128, "data_page_size": 500}
    encodings = {"key": "DELTA_BYTE_ARRAY", "source_etag": "DELTA_LENGTH_BYTE_ARRAY", "mode": "DELTA_BYTE_ARRAY"}
    pq.write_table(table, tmp_path / "x", use_dictionary=["reason", "shard"], column_encoding=encodings, **options)
    data = (tmp_path / "x").read_bytes()
    file = BoundedParquet.of_bytes(data, "x", max_bytes=1 << 28)
    assert file.read_all(table.column_names).equals(table)
    assert file.read_group(1, ["reason", "key"]).equals(table.select(["reason", "key"]).slice(128, 128))
    pages = [page for chunk in chunks(data) for page in read_pages(chunk)]
    assert sum(page.kind == DICTIONARY for page in pages) == 2 * 3
    assert all(page.size >= 0 and page.values <= 128 for page in pages)


def chunks(data: bytes) -> list[bytes]:
    """The column chunks of a file."""
    found = pq.read_metadata(pa.BufferReader(data))
    places = [found.row_group(g).column(c) for g in range(found.num_row_groups) for c in range(found.num_columns)]
    starts = [place.dictionary_page_offset or place.data_page_offset for place in places]
    return [data[start : start + place.total_compressed_size] for start, place in zip(starts, places, strict=True)]


def test_nested_columns_and_names_that_occur_twice(memory: Store, new_job: Callable[..., str]) -> None:
    job = new_job(memory)
    nested = pa.table({"shard": [{"a": 1, "b": ["x"]}], "key": ["k"]})
    twice = pa.table([pa.array(["a"]), pa.array(["b"])], names=["key", "key"])
    for table in (nested, twice):
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        memory.put(layout.plan_path(job, 0), sink.getvalue().to_pybytes())
        with pytest.raises(CorruptArchive):
            list(read_plan(memory, job))


# --- damage -----------------------------------------------------------------------------------------


def bodies(data: bytes) -> list[int]:
    """The positions of all bytes of pages, without the headers."""
    found = []
    for chunk in chunks(data):
        start = data.index(chunk)
        for page in read_pages(chunk):
            position = data.index(page.body, start)
            found.extend(range(position, position + len(page.body)))
            start = position + len(page.body)
    return found


def test_damaged_pages_of_every_table_are_told(
    memory: Store, new_job: Callable[..., str], row: Any, publish: Any
) -> None:
    job = new_job(memory)
    sources = [Source(key=f"k{n}", uri=f"file:///x/{n}", size=30, mtime=1.5) for n in range(4)]
    list(write_plan(memory, job, sources, Grouping(target_bytes=1000)))
    with ShardWriter(memory, layout.shard_id(job, 0)) as writer:
        writer.add(row(writer.append(b"x"), "k0", b"x"))
        writer.quarantine("k1", "file:///x/1", OSError("gone"))
        writer.skip("k2", "file:///x/2", "no picture")
        commit = writer.publish()
    assert commit.quarantine is not None and commit.skipped is not None

    def read_index(path: str) -> None:
        IndexFile(memory, path, size=memory.size(path), rows=1).read_all()

    tables: dict[str, Callable[[str], object]] = {
        layout.plan_path(job, 0): lambda _path: list(read_plan(memory, job)),
        layout.shard_path(commit.index.file): read_index,
        layout.job_path(job, f"quarantine/{commit.quarantine.file}"): lambda path: rejects.read_table(
            memory, path, Quarantined
        ),
        layout.job_path(job, f"skipped/{commit.skipped.file}"): lambda path: rejects.read_table(memory, path, Skipped),
    }
    for path, read in tables.items():
        good = memory.read(path)
        read(path)
        places = bodies(good)
        assert len(places) > 50
        for number in places[:: max(1, len(places) // 60)]:
            damaged = bytearray(good)
            damaged[number] ^= 4
            memory.put(path, bytes(damaged))
            with pytest.raises(CorruptArchive, match=path):
                read(path)
        memory.put(path, good)


def test_hostile_plans_and_tables_are_bounded_too(
    memory: Store, new_job: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from lichen.pipeline.archive import plan

    job = new_job(memory)
    list(write_plan(memory, job, [Source(key="k", uri="u", size=1)], Grouping()))
    path, rows = layout.plan_path(job, 0), 10_000
    long = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), pa.array(["x" * 900_000]))
    columns = {"shard": pa.repeat(layout.shard_id(job, 0), rows), "key": long, "uri": long}
    rest = {field.name: pa.nulls(rows, field.type) for field in plan.SCHEMA if field.name not in columns}
    names = plan.SCHEMA.names
    table = pa.table({name: columns.get(name, rest.get(name)) for name in names})
    fields = [field.with_type(table.schema.field(field.name).type) for field in plan.SCHEMA]
    sink = pa.BufferOutputStream()
    pq.write_table(table.cast(pa.schema(fields)), sink, compression="zstd", store_schema=False)
    memory.put(path, sink.getvalue().to_pybytes())
    monkeypatch.setattr(plan, "MAX_PART_BYTES", 1 << 26)
    before = pa.total_allocated_bytes()
    with pytest.raises(CorruptArchive, match="absurdly"):
        list(read_plan(memory, job))
    assert pa.total_allocated_bytes() - before < 1 << 20


def test_an_archive_is_read_with_few_requests(tmp_path: Path, fill: Callable[..., str]) -> None:
    """What is fetched to look at pages answers pyarrow's own reads."""
    from lichen.pipeline.archive.marker import create_marker

    store = open_store(str(tmp_path / "archive"))
    create_marker(store)
    job = fill(store, {f"k{number}": b"x" for number in range(50)})
    [file] = open_index(store, write_snapshot(store, job))
    before = file.file.requests
    file.read(0)
    assert file.file.requests == before + 1


@pytest.mark.parametrize("value", [0x00, 0x19, 0xFF])
def test_a_sweep_leaves_what_it_cannot_read(memory: Store, value: int) -> None:
    buffer = io.BytesIO()
    pq.write_table(index_table(20), buffer, compression="zstd")
    data = bytearray(buffer.getvalue())
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for position in range(footer, len(data) - 8, 29):
        changed = data[:position] + bytes([value]) + data[position + 1 :]
        memory.put("snapshots/00000001-ffffffffffff-00000.parquet", bytes(changed))
        assert collect(memory, older_than=-60).garbage == ()


FOOTERS = """
import io, struct, sys
import pyarrow as pa, pyarrow.parquet as pq
from lichen.errors import CorruptArchive
from lichen.pipeline.parquet.bounded import BoundedParquet

table = pa.table({"key": [f"k{n:05d}" for n in range(50)], "n": list(range(50)), "s": ["x" * 20] * 50})
buffer = io.BytesIO()
pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
data = buffer.getvalue()
start = len(data) - 8 - struct.unpack("<I", data[-8:-4])[0]
refused = 0
for position in range(start, len(data) - 8):
    for value in {0, 1, 0x15, 0x18, 0x19, 0x1c, 0x2c, 0x5c, 0x7f, 0x80, 0xff, data[position] ^ 1, data[position] ^ 32}:
        changed = bytearray(data)
        changed[position] = value
        try:
            file = BoundedParquet.of_bytes(bytes(changed), "changed", max_bytes=1 << 26)
            for group in range(file.metadata.num_row_groups):
                if file.metadata.row_group(group).num_rows:
                    file.column(group, 0)
            file.read_all(["key", "n", "s"])
        except CorruptArchive:
            refused += 1
assert refused > 1000, refused
"""


def test_footers_that_contradict_themselves() -> None:
    """In a process of its own: pyarrow ends the one in which it meets such a footer unprepared."""
    done = subprocess.run([sys.executable, "-c", FOOTERS], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-2000:]
