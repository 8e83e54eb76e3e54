"""Sorted rows from many files as one stream."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lichen.errors import (
    CorruptArchive,
)
from lichen.pipeline.archive.index import SCHEMA
from lichen.pipeline.archive.merge import Rows, Stream, merge, sweep

keys = st.dictionaries(st.text("abc", min_size=1, max_size=3), st.sampled_from(["A", "B", "C"]), max_size=12)
NAMES = {
    "A": "20260101T000000-aaaaaa",
    "B": "20260102T000000-aaaaaa",
    "C": "20260103T000000-aaaaaa",
}


def _rows(keys: Mapping[str, str]) -> pa.Table:
    def shard(job: str) -> str:
        return f"{NAMES[job]}.00000-0123456789ab.bin"

    columns = [
        pa.array(sorted(keys), pa.string()),
        pa.array(["stored"] * len(keys), pa.string()),
        pa.array([shard(keys[key]) for key in sorted(keys)], pa.string()),
    ]
    rest = [pa.nulls(len(keys), field.type) for field in list(SCHEMA)[3:]]
    return pa.table([*columns, *rest], schema=pa.schema([field.with_nullable(True) for field in SCHEMA]))


@settings(deadline=None)
@given(keys, keys, st.integers(1, 5), st.sets(st.sampled_from(["A", "C"])))
def test_merge_agrees_with_a_dictionary(old: dict[str, str], new: dict[str, str], step: int, kept: set[str]) -> None:
    fresh = dict.fromkeys(new, "B")
    table, added = _rows(old), _rows(fresh)
    tables = (table.slice(n, step) for n in range(0, table.num_rows, step))
    stream = Stream(added.slice(n, step) for n in range(0, added.num_rows, step))
    joined = list(merge(stream, tables, NAMES["B"], {NAMES[job] for job in kept}))
    merged = pa.concat_tables([_rows({}), *joined, *stream.upto(None)])
    expected = dict(old)
    for key in fresh:
        stays = old.get(key, "") > "B" or old.get(key) in kept
        if not stays:
            expected[key] = "B"
    assert merged.column("key").to_pylist() == sorted(expected)
    jobs = [NAMES[expected[key]] for key in sorted(expected)]
    assert [name[:22] for name in merged.column("shard").to_pylist()] == jobs


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.lists(st.integers(0, 400), min_size=1, max_size=30, unique=True), max_size=12),
    st.integers(1, 60),
)
def test_a_sweep_agrees_with_sorting(files: list[list[int]], held: int) -> None:
    tables = [_rows({f"{n:03d}": "A" for n in keys}) for keys in files]
    groups = [
        Rows(t.column("key")[0].as_py(), t.column("key")[-1].as_py(), t.num_rows, partial(_self, t)) for t in tables
    ]
    with tempfile.TemporaryDirectory() as folder:
        swept = [table.column("key").to_pylist() for table in sweep(groups, Path(folder), held=held)]
    assert [key for keys in swept for key in keys] == sorted(f"{n:03d}" for keys in files for n in keys)
    assert all(one[-1] < two[0] for one, two in pairwise(swept))


def _group(table: pa.Table) -> Rows:
    keys = table.column("key")
    return Rows(keys[0].as_py(), keys[-1].as_py(), table.num_rows, partial(_self, table))


def _self(table: pa.Table) -> pa.Table:
    return table


def test_a_row_group_with_other_keys_than_it_says_is_refused(tmp_path: Path) -> None:
    table = _rows({"b": "A", "d": "A"})
    with pytest.raises(CorruptArchive, match="other keys"):
        list(sweep([Rows("b", "c", 2, partial(_self, table))], tmp_path))
