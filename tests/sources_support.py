"""What tests of sources share: names, contents, tar files, and a proxy that damages what passes."""

from __future__ import annotations

import http.client
import io
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import s3fs

from lichen.pipeline.sources import list_sources

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


def tar_bytes(members: dict[str, bytes], tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


class Damage(ThreadingHTTPServer):
    """A proxy that passes GET and HEAD on, and whose ``change`` may alter the body of any answer to a GET."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.target = urlsplit(target).netloc
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.change: Callable[[str, bytes, Mapping[str, str]], bytes] = lambda _path, body, _headers: body
        self.drop: Callable[[str], bool] = lambda _name: False
        """Headers that are not passed on, by their names in lower case."""
        self.reads: list[str] = []
        """Paths that a GET asked for, listings apart."""

    @contextmanager
    def running(self) -> Iterator[Damage]:
        """Serve in a thread until the end of the block."""
        thread = threading.Thread(target=self.serve_forever)
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Damage
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _pass_on(self) -> None:
        target = http.client.HTTPConnection(self.server.target)
        try:
            target.request(self.command, self.path, headers=dict(self.headers.items()))
            answer = target.getresponse()
            body = answer.read()
        except OSError:  # the server has gone: a client's last request after the tests
            self.close_connection = True
            return
        finally:
            target.close()
        if self.command == "GET" and answer.status < 300 and "list-type" not in self.path:
            self.server.reads.append(self.path)
            body = self.server.change(self.path, body, dict(self.headers.items()))
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            lower = name.lower()
            ours = lower in ("transfer-encoding", "connection") or (lower == "content-length" and self.command == "GET")
            if not ours and not self.server.drop(lower):
                self.send_header(name, value)
        if self.command == "GET":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_HEAD = _pass_on  # noqa: N815
