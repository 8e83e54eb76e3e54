"""Listing and reading sources on local disk, in memory and on S3."""

from __future__ import annotations

import io
import os
import socket
import tarfile
import tracemalloc
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from lichen.models.errors import DuplicateKey, SourceUnreadable, UsageError
from lichen.pipeline.sources import Source, check_unique, list_sources, read_source, unique

NAMES = [
    "a.txt.jpg",
    "a/1.png",
    "a/b/c/deep.jpg",
    "a/z.png",
    "ab.png",
    "zz::top 100%.jpg",
    "ü ñ/日本 #1?.png",
]


def content(name: str) -> bytes:
    return b"content of " + name.encode() * 3


def keys(src: str | list[str], **kwargs: object) -> list[str]:
    return [source.key for source in list_sources(src, **kwargs)]  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A fresh bucket on a real S3 endpoint over HTTP."""

    name: str
    options: dict[str, Any]
    file_system: s3fs.S3FileSystem

    @property
    def url(self) -> str:
        return f"s3://{self.name}"


@pytest.fixture
def bucket(s3_options: dict[str, Any]) -> Bucket:
    file_system = s3fs.S3FileSystem(**s3_options)
    name = f"sources-{uuid.uuid4().hex[:12]}"
    file_system.call_s3("create_bucket", Bucket=name)
    return Bucket(name=name, options=s3_options, file_system=file_system)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    for name in [*NAMES, ".hidden.png", ".git/x.png", "a/.b/x.png"]:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(name))
    return root


@pytest.fixture
def memory() -> Iterator[fsspec.AbstractFileSystem]:
    file_system = fsspec.filesystem("memory")
    file_system.store.clear()
    file_system.pseudo_dirs[:] = [""]
    yield file_system
    file_system.store.clear()
    file_system.pseudo_dirs[:] = [""]


def tar_bytes(members: dict[str, bytes], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


# --- folders -------------------------------------------------------------------------------------


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


# --- tar files -----------------------------------------------------------------------------------

MEMBERS = {
    "0001.jpg": b"one" * 500,
    "sub/0002.png": b"two",
    "./0003.jpg": b"",
    "long/" + "x" * 180 + ".jpg": b"4",
}
MEMBER_KEYS = ["0001.jpg", "sub/0002.png", "0003.jpg", "long/" + "x" * 180 + ".jpg"]


@pytest.mark.parametrize("tar_format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_local_tar(tmp_path: Path, tar_format: int) -> None:
    path = tmp_path / "shard-000.tar"
    path.write_bytes(tar_bytes(MEMBERS, tar_format))
    sources = list(list_sources(str(path)))
    assert [source.key for source in sources] == [f"shard-000/{key}" for key in MEMBER_KEYS]
    assert [read_source(source) for source in sources] == list(MEMBERS.values())
    assert all(source.mtime == path.stat().st_mtime for source in sources)


def test_tars_inside_a_folder(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "s.tar").write_bytes(tar_bytes({"a.jpg": b"A"}))
    (tmp_path / "b.jpg").write_bytes(b"B")
    assert keys(str(tmp_path)) == ["b.jpg", "t/s/a.jpg"]


def test_s3_tar(bucket: Bucket) -> None:
    members = {**MEMBERS, "big.bin": os.urandom(700_000), "after.png": b"after"}
    bucket.file_system.pipe_file(f"{bucket.name}/s.tar", tar_bytes(members))
    sources = list(list_sources(f"{bucket.url}/s.tar", storage_options=bucket.options))
    assert len(sources) == 6
    assert all(source.etag for source in sources)
    assert [read_source(s, storage_options=bucket.options) for s in sources] == list(members.values())


def test_members_of_a_tar_that_changed_are_not_read(tmp_path: Path, bucket: Bucket) -> None:
    """Where the listing found a member, another version has other bytes."""
    path, name = tmp_path / "s.tar", f"{bucket.name}/s.tar"
    path.write_bytes(tar_bytes(MEMBERS))
    bucket.file_system.pipe_file(f"{bucket.name}/list.txt", b"s.tar\n")
    for url in (str(path), f"{bucket.url}/s.tar", f"{bucket.url}/list.txt"):
        bucket.file_system.pipe_file(name, tar_bytes(MEMBERS))
        source = next(iter(list_sources(url, storage_options=bucket.options)))
        assert read_source(source, storage_options=bucket.options) == MEMBERS["0001.jpg"]
        changed = tar_bytes(dict(reversed(MEMBERS.items())))
        if "://" in url:
            bucket.file_system.pipe_file(name, changed)
        else:
            path.write_bytes(changed)
            os.utime(path, (1, 1))
        with pytest.raises(SourceUnreadable, match="changed since it was listed"):
            read_source(source, storage_options=bucket.options)


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_compressed_tars_are_refused(tmp_path: Path, mode: str) -> None:
    plain, named = tmp_path / "x.tar", tmp_path / f"x.tar.{mode[2:]}"
    for path in (plain, named):
        with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
            tar.add(__file__, "a.jpg")
        with pytest.raises(UsageError, match="compressed"):
            keys(str(path))


def test_links_inside_tars_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"A")
    (tmp_path / "l").symlink_to("a")
    os.link(tmp_path / "a", tmp_path / "h")
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for name in "alh":
            tar.add(tmp_path / name, name)
    assert keys(str(tmp_path / "x.tar")) == ["x/a"]


def test_damaged_tars(tmp_path: Path) -> None:
    data = tar_bytes({"a.jpg": b"a" * 1000, "b.jpg": b"b" * 1000, "c.jpg": b"c"})
    path = tmp_path / "x.tar"
    damaged_header = bytearray(data)
    damaged_header[1536 + 3] ^= 0xFF  # the name of b.jpg: its header checksum fails
    for broken in (data[:2000], data[:1800], bytes(damaged_header), b"not a tar" * 300, b"x"):
        path.write_bytes(broken)
        with pytest.raises(SourceUnreadable):
            keys(str(path))
    path.write_bytes(data)
    sources = list(list_sources(str(path)))
    path.write_bytes(data[:600])
    with pytest.raises(SourceUnreadable):
        read_source(sources[2])


# --- manifests -----------------------------------------------------------------------------------


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
        {"uri": ["a", None]},
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


# --- unique keys ---------------------------------------------------------------------------------


def plain(*names: str) -> list[Source]:
    return [Source(key=name, uri=f"/{i}/{name}") for i, name in enumerate(names)]


def test_unique_passes_through() -> None:
    sources = plain("b", "a", "c")
    assert list(check_unique(sources)) == sources


def test_duplicates() -> None:
    sources = plain("a/x.jpg", "b", "a/x.jpg", "a/x (2).jpg", "a/x.jpg", "b", ".rc", ".rc")
    with pytest.raises(DuplicateKey, match=r"a/x\.jpg"):
        list(check_unique(sources))
    assert [s.uri[:2] for s in check_unique(sources, "first")] == ["/0", "/1", "/3", "/6"]
    renamed = [s.key for s in check_unique(sources, "rename")]
    assert renamed[:5] == ["a/x.jpg", "b", "a/x (2).jpg", "a/x (2) (2).jpg", "a/x (3).jpg"]
    assert renamed[5:] == ["b (2)", ".rc", ".rc (2)"]
    with pytest.raises(UsageError):
        check_unique(sources, "last")  # type: ignore[arg-type]


def test_unique_at_scale_needs_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unsorted keys are found again across the folded runs, at some 8 bytes each."""
    monkeypatch.setattr(unique, "_RECENT", 1024)
    count = 20_000

    def stream() -> Iterator[Source]:
        for i in range(count):
            yield Source(key=f"{(i * 7919) % count:06d}/{'path' * 10}", uri="/x")
        yield Source(key=f"{12345:06d}/{'path' * 10}", uri="/again")

    tracemalloc.start()
    with pytest.raises(DuplicateKey, match="/again"):
        for _ in check_unique(stream()):
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6
