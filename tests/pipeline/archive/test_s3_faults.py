"""S3 with faults: a proxy in front of the server loses answers, or conditions, or whole requests."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from lichen.errors import StoreError
from lichen.pipeline.archive import layout, store_s3
from lichen.pipeline.archive.commit import commit_shard, read_commit
from lichen.pipeline.archive.marker import create_marker
from lichen.pipeline.archive.store import Store, open_store


class Proxy(ThreadingHTTPServer):
    """Passes requests on; ``fault`` looks at each (method, path, headers) and may name what goes wrong."""

    daemon_threads = True

    def __init__(self, target: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target = urlsplit(target).netloc
        self.fault: Callable[[str, str, dict[str, str]], str | None] = lambda *_: None
        self.faults: list[str] = []


class Handler(BaseHTTPRequestHandler):
    server: Proxy
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def _pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Expect"):
            del self.headers["Expect"]
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        fault = self.server.fault(self.command, self.path, headers)
        if fault:
            self.server.faults.append(fault)
        if fault == "condition lost":
            headers = {name: value for name, value in headers.items() if name.lower() != "if-none-match"}
        if fault == "slow":
            threading.Event().wait(0.7)
        if fault == "request lost":
            self.close_connection = True
            self.connection.close()
            return
        if fault == "refused":
            self.send_error(403)
            return
        target = http.client.HTTPConnection(self.server.target)
        try:
            target.request(self.command, self.path, body, headers)
            answer = target.getresponse()
        except OSError:  # the server has gone: a client's last request after the tests
            self.close_connection = True
            return
        content = answer.read()
        target.close()
        if fault == "answer lost":
            self.close_connection = True
            self.connection.close()
            return
        self.send_response_only(answer.status, answer.reason)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass_on  # noqa: N815


@pytest.fixture
def proxy(s3_endpoint: str) -> Iterator[Proxy]:
    proxy = Proxy(s3_endpoint)
    thread = threading.Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    yield proxy
    proxy.shutdown()
    proxy.server_close()
    thread.join()


@pytest.fixture
def faulty(proxy: Proxy, s3_url: str, s3_options: dict[str, Any]) -> Store:
    endpoint = f"http://127.0.0.1:{proxy.server_address[1]}"
    options = {**s3_options, "client_kwargs": {**s3_options["client_kwargs"], "endpoint_url": endpoint}}
    return open_store(s3_url, options)


def _once(proxy: Proxy, fault: str, wanted: Callable[[str, dict[str, str]], bool]) -> None:
    left = [1]

    def decide(method: str, path: str, headers: dict[str, str]) -> str | None:
        if left[0] and wanted(method, {name.lower(): value for name, value in headers.items()}):
            left[0] = 0
            return fault
        return None

    proxy.fault = decide


def _conditional(method: str, headers: dict[str, str]) -> bool:
    return method == "PUT" and "if-none-match" in headers


@pytest.mark.parametrize("fault", ["answer lost", "request lost"])
def test_a_winner_whose_answer_was_lost_is_told_that_it_won(
    faulty: Store, proxy: Proxy, publish: Any, fault: str
) -> None:
    create_marker(faulty)
    shard = "20260101T000000-aaaaaa.00000"
    commit = publish(faulty, shard, {"k": b"x"})
    _once(proxy, fault, _conditional)
    commit_shard(faulty, commit)
    assert proxy.faults == [fault]
    assert read_commit(faulty, shard) == commit


def test_a_server_that_ignores_the_condition_is_found_out(faulty: Store, proxy: Proxy) -> None:
    assert faulty.probe()
    proxy.fault = lambda method, _path, headers: (
        "condition lost" if _conditional(method, {name.lower(): "" for name in headers}) else None
    )
    assert not faulty.probe()
    assert not faulty.conditional
    assert faulty.create("x", b"1") and not faulty.create("x", b"2")
    assert faulty.read("x") == b"1"


def test_an_upload_that_breaks_off_publishes_nothing(faulty: Store, proxy: Proxy, tmp_path: Path) -> None:
    local = tmp_path / "spool"
    local.write_bytes(b"x" * (40 << 20))
    proxy.fault = lambda method, path, _headers: "refused" if method == "PUT" and "partNumber=2" in path else None
    path = layout.shard_path("20260101T000000-aaaaaa.00000-0123456789ab.bin")
    with pytest.raises(StoreError):
        faulty.put_file(path, local)
    proxy.fault = lambda *_: None
    assert faulty.entries() == []
    faulty.put_file(path, local)
    assert faulty.size(path) == 40 << 20


def test_reads_survive_a_lost_answer(faulty: Store, proxy: Proxy) -> None:
    faulty.put("a/b", b"0123456789")
    _once(proxy, "answer lost", lambda method, _: method == "GET")
    assert faulty.read_range("a/b", 2, 3) == b"234"
    assert proxy.faults == ["answer lost"]


def test_a_slow_upload_goes_on_as_long_as_parts_arrive(
    faulty: Store, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("UPLOAD_PART", 5 << 20), ("UPLOADS", 1), ("SLOWEST", 1 << 40)):
        monkeypatch.setattr(store_s3, name, value)
    local = tmp_path / "spool"
    local.write_bytes(bytes(range(256)) * (30 << 12))
    faulty.timeout = 2.5
    proxy.fault = lambda method, path, _headers: "slow" if method == "PUT" and "partNumber" in path else None
    began = time.monotonic()
    faulty.put_file("shards/slow", local)
    assert time.monotonic() - began > faulty.timeout and len(proxy.faults) == 6
    proxy.fault = lambda *_: None
    assert faulty.read("shards/slow") == local.read_bytes()
