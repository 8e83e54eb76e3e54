"""Manifests of text and Parquet, good and bad lines."""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sources_support import NAMES, Bucket, content, keys, tar_bytes

from lichen.errors import SourceUnreadable, UsageError
from lichen.pipeline.sources import Source, list_sources, read_source


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


# --- bad entries among good ones -----------------------------------------------------------------


def split(sources: Iterable[Source]) -> tuple[list[str], dict[str, str]]:
    """Keys that can be read, and why others cannot, by key."""
    good, bad = [], {}
    for source in sources:
        try:
            read_source(source)
            good.append(source.key)
        except SourceUnreadable as error:
            bad[source.key] = str(error)
    return good, bad


def test_lines_of_nonsense_are_named(tree: Path) -> None:
    manifest = tree / "list.txt"
    (tree / "cut.tar").write_bytes(b"no tar")
    os.mkfifo(tree / "pipe.png")
    lines = [
        b"\xff\xfe",
        b"a/1.png",
        b"a\0b.png",
        b"x" * 70_000,
        b"gone.png",
        b"..",
        b"pipe.png",
        b"/dev/zero",
        b"a",
        b"a/1.png/x.png",
        b"cut.tar",
        b"a/z.png",
        b"y" * ((1 << 16) - 1),
        b"ab.png",
    ]
    manifest.write_bytes(b"\n".join(lines))
    good, bad = split(list_sources(str(manifest)))
    assert good == ["a/1.png", "a/z.png", "ab.png"]
    assert set(bad) == {
        *(f"list.txt:{number}" for number in (1, 3, 4, 6)),
        *("gone.png", "pipe.png", "dev/zero", "a", "a/1.png/x.png", "cut.tar", "y" * ((1 << 16) - 1)),
    }
    assert "is a pipe" in bad["pipe.png"] and "is a device" in bad["dev/zero"] and "is a folder" in bad["a"]
    assert "line 4" in bad["list.txt:4"] and "longer" in bad["list.txt:4"]


@pytest.mark.parametrize("suffix", ["x.png", "x.tar"])
def test_lines_that_cannot_be_opened_are_named(tree: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """Unknown protocols, such that need arguments or a package that is not there, chains, and half a URL."""
    monkeypatch.setitem(sys.modules, "paramiko", None)
    starts = ["nosuch://a/", "github://", "zip://", "reference://", "sftp://host/", "http:///", "://"]
    starts += ["simplecache::memory://a/", "zip://a::memory://a/"]
    nonsense = [f"{start}{number}{suffix}" for number, start in enumerate(starts)]
    manifest = tree / "list.txt"
    manifest.write_text("\n".join(["a/1.png", "a/z.png", *nonsense, "ab.png", *NAMES[3:]]))
    good, bad = split(list_sources(str(manifest)))
    assert good == ["a/1.png", "a/z.png", "ab.png", *NAMES[3:]]
    assert len(bad) == len(nonsense)


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(50), b"PK\3\4" + bytes(range(256)) * 9])
def test_other_files_are_no_manifest(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="no list of URIs"):
        keys(str(path))


def test_parquet_manifests_of_any_writer(tree: Path) -> None:
    """Dictionaries for strings, floating-point or decimal sizes with holes, columns without a value."""
    manifest = tree / "list.parquet"
    names = ["a/1.png", "a/z.png", "ab.png"]
    uris = [f"memory://far/{name}" for name in names]
    for strings in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        for sizes in (
            pa.array([7, None, 9], pa.int64()),
            pa.array([7, None, 9], pa.uint16()),
            pa.array([7.0, None, 9.0], pa.float64()),
            pa.array([7.0, float("nan"), 9.0], pa.float32()),
            pa.array([7, None, 9], pa.decimal128(20, 0)),
        ):
            columns = {
                "uri": pa.array(uris).cast(strings),
                "key": pa.array(["first", None, "third"]).cast(strings),
                "size": sizes,
                "etag": pa.nulls(3),
            }
            pq.write_table(pa.table(columns), manifest)
            found = [(s.key, s.uri, s.size, s.etag) for s in list_sources(str(manifest))]
            assert found == [
                ("first", uris[0], 7, None),
                ("far/a/z.png", uris[1], None, None),
                ("third", uris[2], 9, None),
            ]


def test_rows_of_nonsense_are_named(tree: Path) -> None:
    manifest = tree / "list.parquet"
    rows = [
        ("a/1.png", 3.0),
        (None, None),
        ("a/z.png", 1.5),
        ("", None),
        ("ab.png", -1.0),
        *((n, None) for n in NAMES[3:]),
    ]
    pq.write_table(pa.table({"uri": [uri for uri, _ in rows], "size": [size for _, size in rows]}), manifest)
    good, bad = split(list_sources(str(manifest)))
    assert good == ["a/1.png", *NAMES[3:]]
    assert set(bad) == {"list.parquet:2", "a/z.png", "list.parquet:4", "ab.png"}


def test_a_damaged_parquet_manifest_gives_what_lies_before(tree: Path) -> None:
    manifest = tree / "list.parquet"
    uris = [f"memory://far/{number:06d}.png" for number in range(30_000)]
    pq.write_table(pa.table({"uri": uris}), manifest, row_group_size=10_000, use_dictionary=False, compression="none")
    data = bytearray(manifest.read_bytes())
    where = data.index(b"memory://far/020000.png") - 4
    data[where : where + 4] = b"\xff\xff\xff\x7f"  # the length of a string
    manifest.write_bytes(data)
    *good, bad = list_sources(str(manifest))
    assert [source.uri for source in good] == uris[: len(good)] and 8192 <= len(good) <= 20_000
    assert bad.fault is not None and "damaged" in bad.fault


@given(st.lists(st.binary(max_size=40).filter(lambda line: b"\n" not in line), max_size=20))
def test_no_line_ends_a_job(lines: list[bytes]) -> None:
    """Every line of anything is a source, a comment, or part of a file that is no manifest."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a.png").write_bytes(b"A")
        manifest = Path(folder, "list.txt")
        manifest.write_bytes(b"\n".join([*[b"./a.png"] * len(lines), *(b"x" + line for line in lines)]))
        sources = list(list_sources(str(manifest))) if lines else []
        assert [source.key for source in sources[: len(lines)]] == ["a.png"] * len(lines)
        assert len(sources) == 2 * len(lines)


def test_strings_that_pack_well_need_no_memory(tmp_path: Path) -> None:
    """A dictionary of one long entry, named by every row: eight gigabytes in half a kilobyte."""
    path, rows = tmp_path / "bomb.parquet", 8192
    long = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["a/" * (1 << 19)]))
    good = pa.array(["b.jpg"] * rows).dictionary_encode()
    with pq.ParquetWriter(path, pa.schema({"uri": long.type}), compression="zstd") as writer:
        for column in (good, long):
            writer.write_table(pa.table({"uri": column}))
    assert path.stat().st_size < 10_000
    sources = itertools.islice(list_sources(str(path)), rows + 600)
    faults = [source.fault for source in sources if source.size is None and "longer than" in (source.fault or "")]
    assert len(faults) == 600
    assert pa.default_memory_pool().max_memory() < 1 << 30
