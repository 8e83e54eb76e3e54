"""What is named as a source and is not what it seems."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sources_support import Bucket, content, keys, tar_bytes

from lichen.errors import UsageError
from lichen.pipeline.sources import list_sources, read_source, walks


def packed() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("a.jpg", b"A")
    return buffer.getvalue()


def array() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(4))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("a.zip", packed(), "unpack it first"),
        ("a", packed(), "unpack it first"),
        ("a.cbz", packed(), "unpack it first"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c" + bytes(50), "unpack it first"),
        ("a.rar", b"Rar!\x1a\x07\x01\x00" + bytes(50), "unpack it first"),
        ("a.gz", gzip.compress(b"x"), "unpack it first"),
        ("list.csv", b"url\nhttp://a/b.jpg\n", "one URI a line"),
        ("list.JSONL", b'{"url": 1}\n', "one URI a line"),
        ("list.json", b"[]", "one URI a line"),
        ("list", b"PAR1" + bytes(50) + b"PAR1", r"\.parquet"),
        ("set.tar.bak", tar_bytes({"a.jpg": b"A"}), r"ends in \.tar"),
        ("a.npy", array(), "export the picture files"),
        ("a.h5", b"\x89HDF\r\n\x1a\n" + bytes(50), "export the picture files"),
        ("a.tfrecord", bytes(50), "export the picture files"),
    ],
)
def test_containers_are_refused(tmp_path: Path, bucket: Bucket, name: str, data: bytes, what: str) -> None:
    """Named, they are not what the user means; in a folder, or where others are wanted, they are files."""
    (tmp_path / name).write_bytes(data)
    bucket.file_system.pipe_file(f"{bucket.name}/{name}", data)
    for url in (str(tmp_path / name), f"{bucket.url}/{name}"):
        with pytest.raises(UsageError, match=what):
            keys(url, storage_options=bucket.options, others=False)
        assert keys(url, storage_options=bucket.options) == [name]
    assert keys(str(tmp_path), others=False) == [name]


def test_pictures_are_pictures_whatever_their_name(tmp_path: Path) -> None:
    for name in ("a.csv", "a.zip", "a"):
        Image.new("RGB", (8, 8)).save(tmp_path / name, "PNG")
        assert keys(str(tmp_path / name), others=False) == [name]
    (tmp_path / "damaged.jpg").write_bytes(packed())
    assert keys(str(tmp_path / "damaged.jpg"), others=False) == ["damaged.jpg"]  # it is kept, and named


def test_compressed_tars_are_refused_in_any_case(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tgz", "w:gz") as tar:
        tar.add(__file__, "a.jpg")
    for others in (True, False):
        with pytest.raises(UsageError, match="Unpack"):
            keys(str(tmp_path / "x.tgz"), others=others)


def test_pipes_and_devices_are_refused(tmp_path: Path) -> None:
    for suffix in ("jpg", "txt", "tar"):
        os.mkfifo(tmp_path / f"pipe.{suffix}")
        with pytest.raises(UsageError, match="is a pipe"):
            keys(str(tmp_path / f"pipe.{suffix}"))
    with pytest.raises(UsageError, match="is a device"):
        keys("/dev/zero")


def test_a_quoted_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("~/nothing", os.path.abspath("~/nothing"), "~nobody"):
        with pytest.raises(UsageError, match=r"~.* without quotes"):
            keys(name)
    (tmp_path / "~").mkdir()
    (tmp_path / "~" / "a.jpg").write_bytes(b"A")
    assert keys("~") == ["a.jpg"]


def test_a_prefix_behind_an_empty_object(bucket: Bucket) -> None:
    """Tools that think in folders leave empty objects of a folder's name behind."""
    put = bucket.file_system.pipe_file
    for name in ("photos", "photos/", "photos/a.jpg", "photos/b.jpg", "photos-too.jpg", "lone", "lone/", "both"):
        bucket.file_system.call_s3("put_object", Bucket=bucket.name, Key=name, Body=b"")
    put(f"{bucket.name}/both", b"an object")
    put(f"{bucket.name}/both/c.jpg", b"C")
    for name in ("photos", "photos/"):
        assert keys(f"{bucket.url}/{name}", storage_options=bucket.options) == ["a.jpg", "b.jpg"]
    assert keys(f"{bucket.url}/lone", storage_options=bucket.options) == ["lone"]
    with pytest.raises(UsageError, match="both/"):
        keys(f"{bucket.url}/both", storage_options=bucket.options)
    assert keys(f"{bucket.url}/both/", storage_options=bucket.options) == ["c.jpg"]


def test_an_object_of_a_bucket_that_may_not_be_listed(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading may be allowed without listing."""
    bucket.file_system.pipe_file(f"{bucket.name}/a.jpg", b"A")
    real = type(bucket.file_system).call_s3

    def call(self: Any, method: str, **request: Any) -> Any:
        if method == "list_objects_v2":
            raise PermissionError("Access Denied")
        return real(self, method, **request)

    monkeypatch.setattr(type(bucket.file_system), "call_s3", call)
    [source] = list_sources(f"{bucket.url}/a.jpg", storage_options=bucket.options)
    assert read_source(source, storage_options=bucket.options) == b"A"


@pytest.fixture
def website(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A web server that lists its folders, and what it serves."""
    root = tmp_path / "web"
    root.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(root))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", root
        server.shutdown()
        thread.join()


def test_names_in_web_addresses(website: tuple[str, Path], tmp_path: Path) -> None:
    """Percent-encoding, spaces and question marks: what is written is what is asked for."""
    url, root = website
    for name in ("a b.jpg", "c%20d.jpg", "e?f.jpg", "ü.jpg"):
        (root / name).write_bytes(content(name))
    manifest = tmp_path / "list.txt"
    lines = {"a b.jpg": "a b.jpg", "a%20b.jpg": "a b.jpg", "c%2520d.jpg": "c%20d.jpg"}
    lines |= {"e%3Ff.jpg": "e?f.jpg", "ü.jpg": "ü.jpg", "a%20b.jpg?size=5": "a b.jpg"}
    manifest.write_text("\n".join(f"{url}/{line}" for line in lines), encoding="utf-8")
    sources = list(list_sources(str(manifest)))
    assert [read_source(source) for source in sources] == [content(name) for name in lines.values()]
    host = url.partition("://")[2]
    assert [source.key for source in sources] == [f"{host}/{line}" for line in lines]
    for line, name in lines.items():
        [source] = list_sources(f"{url}/{line}")
        assert read_source(source) == content(name)


def test_a_folder_of_a_web_server(website: tuple[str, Path]) -> None:
    url, root = website
    (root / "set" / "sub").mkdir(parents=True)
    (root / "set" / "a.jpg").write_bytes(b"A")
    (root / "set" / "sub" / "b.jpg").write_bytes(b"B")
    found = {source.key: read_source(source) for source in list_sources(f"{url}/set/")}
    assert found == {"a.jpg": b"A", "sub/b.jpg": b"B"}


def test_folders_of_a_web_server_that_lead_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(walks, "MAX_DEPTH", 10)

    class Endless(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            body = b'<a href="a.jpg">a</a> <a href="z/">z</a>'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        server.daemon_threads = True
        thread = Thread(target=server.serve_forever)
        thread.start()
        sources = list(list_sources(f"http://127.0.0.1:{server.server_address[1]}/set/"))
        server.shutdown()
        thread.join()
    *good, bad = sources
    assert good[0].key == "a.jpg" and all(source.fault is None for source in good)
    assert bad.fault is not None and "lead back" in bad.fault
