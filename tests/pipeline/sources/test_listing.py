"""Folders, prefixes and single files, on local disk, in memory and on S3."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import fsspec
import pytest
import s3fs
from sources_support import NAMES, Bucket, content, keys

from lichen.errors import SourceUnreadable, UsageError
from lichen.pipeline.sources import Source, list_sources, read_source


def test_local_folder(tree: Path) -> None:
    sources = list(list_sources(str(tree)))
    assert [source.key for source in sources] == NAMES == sorted(NAMES)
    for source in sources:
        assert read_source(source) == content(source.key)
        status = (tree / source.key).stat()
        assert (source.size, source.mtime, source.offset) == (status.st_size, status.st_mtime, None)
    assert keys(f"file://{tree}/") == NAMES


def test_relative_folder(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree.parent)
    sources = list(list_sources("root/a"))
    monkeypatch.chdir("/")
    assert [source.key for source in sources] == ["1.png", "b/c/deep.jpg", "z.png"]
    assert read_source(sources[0]) == content("a/1.png")


def test_memory_folder(memory: fsspec.AbstractFileSystem) -> None:
    for name in [*NAMES, "a/.hidden"]:
        memory.pipe_file(f"/root/{name}", content(name))
    sources = list(list_sources("memory://root"))
    assert [source.key for source in sources] == NAMES
    assert [read_source(source) for source in sources] == [content(name) for name in NAMES]
    assert all(source.size == len(content(source.key)) and source.mtime for source in sources)


def test_s3_prefix(bucket: Bucket) -> None:
    for name in [*NAMES, ".x/y"]:
        bucket.file_system.pipe_file(f"{bucket.name}/pre/{name}", content(name))
    bucket.file_system.pipe_file(f"{bucket.name}/prefix-that-starts-alike.png", b"no")
    client = bucket.file_system
    client.call_s3("put_object", Bucket=bucket.name, Key="pre/folder-marker/", Body=b"")
    sources = list(list_sources(f"{bucket.url}/pre", storage_options=bucket.options))
    assert [source.key for source in sources] == NAMES
    for source in sources:
        assert read_source(source, storage_options=bucket.options) == content(source.key)
        assert source.size == len(content(source.key))
        assert source.mtime
        assert source.etag
        assert '"' not in source.etag
    whole = keys(bucket.url, storage_options=bucket.options)
    assert whole == [f"pre/{name}" for name in NAMES] + ["prefix-that-starts-alike.png"]


def test_dots_in_names_on_s3_hide_nothing(bucket: Bucket) -> None:
    names = ["./dot.png", "dot.png", "up.png", "x/../up.png", "x//up.png"]
    for name in [*names, "./.hidden.png", "x/../.git/y.png"]:
        bucket.file_system.call_s3("put_object", Bucket=bucket.name, Key=f"pre/{name}", Body=content(name))
    sources = list(list_sources(f"{bucket.url}/pre", storage_options=bucket.options))
    assert sorted(source.key for source in sources) == sorted(names)
    for source in sources:
        assert read_source(source, storage_options=bucket.options) == content(source.key)


def test_objects_with_content_and_the_name_of_a_folder_are_named(bucket: Bucket) -> None:
    for name, data in {"a.png": b"x", "empty/": b"", "full/": b"y", ".hidden/": b"z"}.items():
        bucket.file_system.call_s3("put_object", Bucket=bucket.name, Key=f"pre/{name}", Body=data)
    found = list(list_sources(f"{bucket.url}/pre", storage_options=bucket.options))
    assert [source.key for source in found] == ["a.png", "full/"]
    assert "without the slash" in (found[1].fault or "")
    with pytest.raises(SourceUnreadable, match="without the slash"):
        read_source(found[1], storage_options=bucket.options)


def test_s3_pages(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{i:03d}.png" for i in range(25)]
    for name in names:
        bucket.file_system.pipe_file(f"{bucket.name}/many/{name}", b"x")
    original = type(bucket.file_system).call_s3
    requests = []

    def small_pages(self: object, method: str, **kwargs: object) -> object:
        requests.append(method)
        return original(self, method, MaxKeys=10, **kwargs)

    monkeypatch.setattr(type(bucket.file_system), "call_s3", small_pages)
    assert keys(f"{bucket.url}/many", storage_options=bucket.options) == names
    assert requests == ["list_objects_v2"] * 3


def test_hidden_files_on_request(tree: Path, memory: fsspec.AbstractFileSystem) -> None:
    assert keys(str(tree), hidden=True) == sorted([*NAMES, ".hidden.png", ".git/x.png", "a/.b/x.png"])
    memory.pipe_file("/h/.a/b", b"1")
    assert keys("memory://h", hidden=True) == [".a/b"]
    assert keys(str(tree / ".git")) == ["x.png"]


def test_single_files(tree: Path, memory: fsspec.AbstractFileSystem, bucket: Bucket) -> None:
    memory.pipe_file("/x/one.png", b"memory")
    bucket.file_system.pipe_file(f"{bucket.name}/x/one.png", b"bucket")
    assert keys(str(tree / "a/1.png")) == ["1.png"]
    for url, options in (("memory://x/one.png", None), (f"{bucket.url}/x/one.png", bucket.options)):
        [source] = list_sources(url, storage_options=options)
        assert (source.key, source.size) == ("one.png", 6)
        assert len(read_source(source, storage_options=options)) == 6


def test_several_sources(tree: Path, memory: fsspec.AbstractFileSystem) -> None:
    memory.pipe_file("/x/one.png", b"memory")
    assert keys([str(tree / "a"), "memory://x"]) == ["1.png", "b/c/deep.jpg", "z.png", "one.png"]


def test_nothing_there(tmp_path: Path, memory: fsspec.AbstractFileSystem, bucket: Bucket) -> None:
    (tmp_path / "empty" / "nested").mkdir(parents=True)
    missing = f"s3://{bucket.name}-no"
    for url in (str(tmp_path / "empty"), str(tmp_path / "no"), "memory://no", "nosuch://x/y", "", missing):
        with pytest.raises(UsageError):
            keys(url, storage_options=bucket.options if url == missing else None)
    with pytest.raises(UsageError):
        keys(f"{bucket.url}/no", storage_options=bucket.options)


def test_links(tree: Path) -> None:
    (tree / "link.png").symlink_to(tree / "a/1.png")
    (tree / "broken.png").symlink_to(tree / "gone.png")
    (tree / "a/loop").symlink_to(tree)
    (tree / "other").symlink_to(tree / "a/b")
    found = {source.key: source for source in list_sources(str(tree))}
    assert set(found) == {*NAMES, "link.png", "broken.png", "other/c/deep.jpg"}
    assert read_source(found["link.png"]) == content("a/1.png")
    assert found["broken.png"].size is None
    with pytest.raises(SourceUnreadable, match=r"broken\.png"):
        read_source(found["broken.png"])


def test_pipes_and_sockets_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "fifo.png")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # socket paths are short
        server.bind("sock.png")
    (tmp_path / "real.png").write_bytes(b"x")
    assert keys(str(tmp_path)) == ["real.png"]


def test_undecodable_file_names(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9.png", "wb") as file:
        file.write(b"latin")
    [source] = list_sources(str(tmp_path))
    assert source.key == "caf\\xe9.png"
    source.uri.encode()  # fits into a Parquet column
    assert read_source(source) == b"latin"


def test_unreadable_when_read(tmp_path: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"x")
    [source] = list_sources(str(path))
    path.unlink()
    gone = [
        source,
        Source(key="a", uri="memory://none"),
        Source(key="a", uri=str(tmp_path)),
        Source(key="a", uri="/nul\0byte"),
        Source(key="a", uri="memory://none", offset=3, size=5),
    ]
    for source in gone:
        with pytest.raises(SourceUnreadable):
            read_source(source)
    with pytest.raises(SourceUnreadable):
        read_source(Source(key="a", uri=f"{bucket.url}/none.png"), storage_options=bucket.options)
    closed = {
        "key": "k",
        "secret": "s",
        "client_kwargs": {"endpoint_url": "http://127.0.0.1:9"},
        "config_kwargs": {"retries": {"max_attempts": 0}, "connect_timeout": 1},
    }
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    with pytest.raises(SourceUnreadable):
        read_source(Source(key="a", uri="s3://b/x.png"), storage_options=closed)
