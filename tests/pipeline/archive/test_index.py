"""Index files: rows there and back, size, order, other people's readers, hostile rows."""

from __future__ import annotations

import json
import os
import random
import struct
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from lichen.errors import CorruptArchive
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.commit import commit_shard
from lichen.pipeline.archive.index import (
    COLUMNS,
    PLACEMENT_COLUMNS,
    ROW_GROUP,
    SCHEMA,
    IndexRow,
    Placement,
    check_table,
    index_bytes,
    to_rows,
    to_table,
)
from lichen.pipeline.archive.index_file import IndexFile
from lichen.pipeline.archive.marker import create_marker
from lichen.pipeline.archive.shard import ShardWriter
from lichen.pipeline.archive.snapshot_writer import write_snapshot
from lichen.pipeline.archive.store import Store, open_store

CODEC = "ab" * 32


def realistic_rows(writer: ShardWriter, count: int, seed: int = 0) -> list[IndexRow]:
    """Rows as a job of photographs writes them, with digests and metrics that do not compress."""
    rng = random.Random(seed)
    rows = []
    offset = 0
    for number in range(count):
        length, side = rng.randrange(8_000, 60_000), rng.randrange(0, 3) * rng.randrange(200, 9000)
        pixels = (rng.choice([640, 1024, 3000, 4032]), rng.choice([480, 768, 2000, 3024]))
        rows.append(
            IndexRow(
                key=f"album-{number % 37:03d}/IMG_{rng.randrange(10**6):06d}-{number}.jpg",
                status="compressed",
                shard=writer.file,
                offset=offset,
                length=length,
                crc32c=rng.getrandbits(32),
                side_offset=offset + length if side else None,
                side_length=side or None,
                side_crc32c=rng.getrandbits(32) if side else None,
                codec=CODEC,
                quality=50.0,
                width=pixels[0],
                height=pixels[1],
                mode="RGB",
                bit_depth=8,
                source_bytes=length * rng.randrange(2, 9) + rng.randrange(1000),
                source_format="JPEG",
                source_sha256=rng.randbytes(32),
                source_mtime=1.6e9 + rng.randrange(10**8) + rng.random(),
                source_etag=rng.randbytes(16).hex(),
                bpp=rng.random(),
                psnr=30 + 10 * rng.random(),
                ms_ssim=0.9 + rng.random() / 10,
                block_psnr=25 + 10 * rng.random(),
                ssimulacra2=90 * rng.random(),
                symbols_digest=rng.randbytes(16),
                pixels_digest=rng.randbytes(16),
            )
        )
        offset += length + side
    return rows


def test_columns_mirror_the_dataclass() -> None:
    assert set(COLUMNS) == {field.name for field in fields(IndexRow)}
    assert COLUMNS[: len(PLACEMENT_COLUMNS)] == PLACEMENT_COLUMNS == tuple(f.name for f in fields(Placement))


def test_rows_come_back(memory: Store) -> None:
    with ShardWriter(memory, "20260101T000000-aaaaaa.00000") as writer:
        rows = realistic_rows(writer, 200)
    back = to_rows(to_table(rows))
    assert [row.key for row in back] == sorted((row.key for row in rows), key=str.encode)
    by_key = {row.key: row for row in rows}
    for row in back:
        original = by_key[row.key]
        assert row.source_mtime == pytest.approx(original.source_mtime, abs=1e-6)
        for name in ("bpp", "psnr", "ms_ssim", "block_psnr", "ssimulacra2"):
            assert getattr(row, name) == pytest.approx(getattr(original, name), rel=1e-6)
        floats = dict.fromkeys(("source_mtime", "bpp", "psnr", "ms_ssim", "block_psnr", "ssimulacra2"))
        assert replace(row, **floats) == replace(original, **floats)


def test_index_costs_under_400_bytes_an_image(tmp_path: Path, new_job: Callable[..., str]) -> None:
    store = open_store(str(tmp_path))
    create_marker(store)
    job = new_job(store)
    store.put(layout.codec_path(CODEC, "json"), b"{}")
    for number in range(2):
        with ShardWriter(store, layout.shard_id(job, number)) as writer:
            rows = realistic_rows(writer, 5000, seed=number)
            for row in rows:
                writer.add(replace(row, key=f"{number}/{row.key}"))
            writer.size = rows[-1].offset + rows[-1].length + (rows[-1].side_length or 0)
            commit = _publish_index_only(store, tmp_path, writer)
        commit_shard(store, commit)
    snapshot = write_snapshot(store, job)
    index = snapshot.index_bytes + store.size(layout.snapshot_path(1))
    assert snapshot.rows == 10_000
    per_image = index / snapshot.rows
    assert per_image < 400


def _publish_index_only(store: Store, folder: Path, writer: ShardWriter) -> Any:
    """Publish with a payload of zeros, written sparsely, of the size that the rows claim."""
    import hashlib

    writer._spool.truncate(writer.size)
    digest = hashlib.sha256()
    for start in range(0, writer.size, 1 << 20):
        digest.update(bytes(min(1 << 20, writer.size - start)))
    writer._sha256 = digest
    commit = writer.publish({CODEC: ("json",)})
    payload = folder / layout.shard_path(writer.file)
    store.delete([layout.shard_path(writer.file)])  # 200 MB that no one reads
    payload.touch()
    os.truncate(payload, commit.payload.size)
    return commit


def test_files_are_sorted_compressed_checked_and_described(tmp_path: Path, memory: Store) -> None:
    with ShardWriter(memory, "20260101T000000-aaaaaa.00000") as writer:
        data = index_bytes(to_table(realistic_rows(writer, 25_000)), {"shard": writer.shard}, {CODEC: ["json"]})
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    assert [file.metadata.row_group(n).num_rows for n in range(3)] == [10_000, 10_000, 5_000]
    keys = file.read(["key"]).column("key")
    assert pc.all(pc.less(keys.slice(0, 24_999), keys.slice(1))).as_py()
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert file.metadata.row_group(0).column(0).statistics.has_min_max
    metadata = file.schema_arrow.metadata
    assert metadata[b"lichen.format"] == b"2"
    assert json.loads(metadata[b"lichen.codecs"]) == {CODEC: ["json"]}
    # A flipped bit in a page is noticed.
    broken = bytearray(data)
    broken[file.metadata.row_group(1).column(17).data_page_offset + 2000] ^= 1
    path = tmp_path / "broken.parquet"
    path.write_bytes(broken)
    index = IndexFile(open_store(str(tmp_path)), "broken.parquet", size=len(broken), rows=25_000)
    with pytest.raises(CorruptArchive):
        index.read(1)


def test_index_opens_in_duckdb_and_pandas(tmp_path: Path, fill: Callable[..., str]) -> None:
    from lichen.pipeline.archive.marker import create_marker

    store = open_store(str(tmp_path))
    create_marker(store)
    job = fill(store, {f"k{n:03d}": b"x" * n for n in range(50)}, {f"l{n}": b"yy" for n in range(5)})
    write_snapshot(store, job)
    pattern = f"{tmp_path}/snapshots/*.parquet"
    query = f"select status, count(*), sum(length), min(key) from '{pattern}' group by status"
    assert duckdb.sql(query).fetchall() == [("stored", 55, 1225 + 10, "k000")]
    found = duckdb.sql(f"select length, shard from '{pattern}' where key = 'k007'").fetchall()
    assert found == [(7, found[0][1])] and found[0][1].startswith(job)
    assert duckdb.sql(f"select count(*) from '{tmp_path}/shards/*.parquet'").fetchall() == [(55,)]
    frame = pd.read_parquet(next((tmp_path / "snapshots").glob("*.parquet")))
    assert list(frame.columns) == list(COLUMNS)
    assert len(frame) == 55 and frame.key.is_monotonic_increasing
    assert frame.set_index("key").loc["k007"].length == 7


# --- hostile rows -----------------------------------------------------------------------------------


def _table(**columns: Any) -> pa.Table:
    row = {
        "key": "a",
        "status": "compressed",
        "shard": "20260101T000000-aaaaaa.00000-0123456789ab.bin",
        "offset": 10,
        "length": 20,
        "crc32c": 1,
        "side_offset": 30,
        "side_length": 5,
        "side_crc32c": 2,
        "codec": CODEC,
        "width": 4,
        "height": 4,
        "mode": "RGB",
        "source_bytes": 99,
        "source_sha256": bytes(32),
        **columns,
    }
    schema = pa.schema([field.with_nullable(True) for field in SCHEMA])
    return pa.Table.from_pylist([row], schema=schema)


SIZES = {"20260101T000000-aaaaaa.00000-0123456789ab.bin": 100}


def test_a_good_row_passes() -> None:
    check_table(_table(), "test", SIZES)
    check_table(_table(side_offset=None, side_length=None, side_crc32c=None), "test", SIZES)
    check_table(_table(status="packed", packing="zstd", codec=None, width=None, height=None), "test", SIZES)
    check_table(_table(status="stored", codec=None, width=None, height=None, offset=100, length=0), "test", SIZES)


@pytest.mark.parametrize(
    "columns",
    [
        {"offset": -1},
        {"offset": 2**62},
        {"length": -5},
        {"length": 2**62},
        {"offset": 2**47, "length": 2**39},
        {"offset": 81},
        {"side_offset": -3},
        {"side_offset": 96},
        {"side_length": 2**40},
        {"side_length": None},
        {"side_crc32c": None},
        {"side_offset": None},
        {"width": 0},
        {"height": -7},
        {"source_bytes": -1},
        {"source_bytes": 2**50},
        {"status": "evil"},
        {"status": "packed"},
        {"status": "packed", "packing": "evil"},
        {"packing": "zstd"},
        {"status": None},
        {"key": None},
        {"key": ""},
        {"crc32c": None},
        {"codec": None},
        {"codec": "../../etc/passwd"},
        {"codec": CODEC + "\n"},
        {"codec": "AB" * 32},
        {"shard": "../../etc/passwd"},
        {"shard": "20260101T000000-aaaaaa.00000-0123456789ab.bin\n"},
        {"shard": "20260101T000000-aaaaaa.00001-0123456789ab.bin"},
        {"shard": None},
        {"source_sha256": None},
    ],
)
def test_rows_that_cannot_be_are_refused(columns: dict[str, Any]) -> None:
    with pytest.raises(CorruptArchive):
        check_table(_table(**columns), "test", SIZES)


@pytest.mark.parametrize("name", ["../x.bin", "x", "a/b", "20260101T000000-aaaaaa.0-0123456789ab.bin", "\n"])
def test_payload_names_are_checked_without_a_list_too(name: str) -> None:
    with pytest.raises(CorruptArchive):
        check_table(_table(shard=name), "test")


def _open(tmp_path: Path, data: bytes, rows: int = 1, size: int | None = None) -> IndexFile:
    (tmp_path / "x.parquet").write_bytes(data)
    return IndexFile(open_store(str(tmp_path)), "x.parquet", size=len(data) if size is None else size, rows=rows)


def _file(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def test_wrong_types_and_missing_columns_are_refused(tmp_path: Path) -> None:
    good = _table()
    assert _open(tmp_path, _file(good)).read(0).num_rows == 1
    position = good.column_names.index("offset")
    texts = good.set_column(position, "offset", pa.array(["10"]))
    floats = good.set_column(position, "offset", pa.array([10.0]))
    twice = good.append_column("key", pa.array(["b"]))
    for table in (good.drop_columns(["crc32c"]), texts, floats, twice, pa.table({"x": [1]})):
        with pytest.raises(CorruptArchive):
            _open(tmp_path, _file(table))


def test_files_that_are_not_what_was_stated_are_refused(tmp_path: Path) -> None:
    data = _file(_table())
    for content, rows, size in (
        (data, 2, None),
        (data, 1, len(data) + 1),
        (b"", 1, None),
        (b"PAR1", 1, None),
        (data[:-8] + struct.pack("<I", 2**31) + b"PAR1", 1, None),
        (b"PAR1" + bytes(1000) + struct.pack("<I", 500) + b"PAR1", 1, None),
    ):
        with pytest.raises(CorruptArchive):
            _open(tmp_path, content, rows, size)


def test_mutated_files_never_do_worse_than_our_error(tmp_path: Path, memory: Store) -> None:
    with ShardWriter(memory, "20260101T000000-aaaaaa.00000") as writer:
        data = index_bytes(to_table(realistic_rows(writer, 50)), {}, {})
    rng = random.Random(1)
    refused = 0
    for _ in range(300):
        broken = bytearray(data)
        for _ in range(rng.randrange(1, 4)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        try:
            table = _open(tmp_path, bytes(broken), rows=50).read_all()
            to_rows(table)
        except CorruptArchive:
            refused += 1
    assert refused > 200


def test_lookup_in_a_file_without_statistics_or_order(tmp_path: Path) -> None:
    table = pa.concat_tables([_table(key=key) for key in ("b", "c", "a")])
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, write_statistics=False, row_group_size=1)
    file = _open(tmp_path, sink.getvalue().to_pybytes(), rows=3)
    assert file.groups_with("a") == [0, 1, 2]
    assert ROW_GROUP >= 10_000
