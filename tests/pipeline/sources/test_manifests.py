"""Manifests of text and Parquet, good and bad lines."""

from __future__ import annotations

from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sources_support import Bucket, content, keys, tar_bytes

from lichen.models.errors import UsageError
from lichen.pipeline.sources import list_sources, read_source


def test_text_manifest(tree: Path, memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe_file("/far/x.png", b"far")
    (tree / "s.tar").write_bytes(tar_bytes({"in.jpg": b"in"}))
    manifest = tree / "list.txt"
    lines = ["\ufeff# comment", "", "a/1.png ", "./a//z.png", "../root/ab.png", "memory://far/x.png", "s.tar"]
    manifest.write_text("\r\n".join([*lines, str(tree / "a.txt.jpg")]), encoding="utf-8")
    sources = list(list_sources(str(manifest)))
    absolute = str(tree / "a.txt.jpg").lstrip("/")
    assert [s.key for s in sources] == [
        "a/1.png",
        "a/z.png",
        "root/ab.png",
        "far/x.png",
        "s/in.jpg",
        absolute,
    ]
    contents = [
        content("a/1.png"),
        content("a/z.png"),
        content("ab.png"),
        b"far",
        b"in",
        content("a.txt.jpg"),
    ]
    assert [read_source(source) for source in sources] == contents


def test_s3_manifest_is_relative_to_itself(bucket: Bucket) -> None:
    bucket.file_system.pipe_file(f"{bucket.name}/set/p/1.png", b"1")
    bucket.file_system.pipe_file(f"{bucket.name}/set/list.txt", b"p/1.png\n")
    [source] = list_sources(f"{bucket.url}/set/list.txt", storage_options=bucket.options)
    assert (source.key, source.uri) == ("p/1.png", f"{bucket.url}/set/p/1.png")
    assert read_source(source, storage_options=bucket.options) == b"1"


def test_parquet_manifest(tree: Path) -> None:
    manifest = tree / "list.parquet"
    table = pa.table({"label": [1, 2], "key": ["first", None], "uri": ["a/1.png", "a/z.png"]})
    pq.write_table(table, manifest)
    sources = list(list_sources(str(manifest)))
    assert [source.key for source in sources] == ["first", "a/z.png"]
    assert read_source(sources[0]) == content("a/1.png")
    assert sources[0].size == len(content("a/1.png")) and sources[0].mtime == (tree / "a/1.png").stat().st_mtime
    columns = {"uri": ["memory://far/1.png", "memory://far/2.png"], "size": [7, None], "etag": ['"abc"', None]}
    pq.write_table(pa.table(columns), manifest)
    assert [(source.size, source.etag) for source in list_sources(str(manifest))] == [(7, "abc"), (None, None)]


def test_malformed_manifests(tmp_path: Path) -> None:
    text, table = tmp_path / "m.txt", tmp_path / "m.parquet"
    for data in (b"\xff\xfe\x00", b"a\0b", b"x" * 70_000, b"# nothing\n\n", b"", b"..\n"):
        text.write_bytes(data)
        with pytest.raises(UsageError):
            keys(str(text))
    for columns in (
        {"url": ["a"]},
        {"uri": [1]},
        {"uri": [None]},
        {"uri": ["a", None, None]},
        {"uri": ["a"], "key": [3]},
        {"uri": ["a"], "size": [-1]},
        {"uri": ["a"], "size": ["b"]},
        {"uri": ["a"], "size": [1 << 62]},
    ):
        pq.write_table(pa.table(columns), table)
        with pytest.raises(UsageError):
            keys(str(table))
    for data in (b"", b"PAR1garbagePAR1"):
        table.write_bytes(data)
        with pytest.raises(UsageError):
            keys(str(table))
