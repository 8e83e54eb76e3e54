"""A server that accepts bytes and never answers, or stops in the middle, ends as an error in time."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lichen.errors import StoreError
from lichen.pipeline.archive import store_base, store_s3
from lichen.pipeline.archive.store import Store, open_store
from lichen.pipeline.archive.store_s3 import CONFIG, s3_options

LIMIT = 1.5
"""Seconds that an operation may take here."""


class Stalling:
    """A server of its own: what it does with a connection is a function; it holds all of them open until the end."""

    def __init__(self) -> None:
        self.behave: Callable[[socket.socket], None] = lambda _connection: None
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.requests = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self.requests += 1
            self._open.append(connection)
            threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        try:
            self.behave(connection)
        except OSError:
            return

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def close(self) -> None:
        for one in (self._listening, *self._open):
            one.close()


def read_all(connection: socket.socket) -> None:
    """Take every byte, answer none."""
    while connection.recv(1 << 16):
        pass


def read_nothing(connection: socket.socket) -> None:
    """Accept, and let the client's buffers run full."""


def answer_half(connection: socket.socket) -> None:
    """The beginning of an object, and no more."""
    connection.recv(1 << 16)
    head = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1000\r\nContent-Range: bytes 0-999/1000\r\n\r\n"
    connection.sendall(head + bytes(500))
    read_all(connection)


def drip(connection: socket.socket) -> None:
    """A byte now and then, which no timeout between two bytes catches."""
    connection.recv(1 << 16)
    head = b"HTTP/1.1 206 Partial Content\r\nContent-Length: 1000\r\nContent-Range: bytes 0-999/1000\r\n\r\n"
    connection.sendall(head)
    pause = threading.Event()
    while not pause.wait(0.1):
        connection.sendall(b"x")


def continue_only(connection: socket.socket) -> None:
    """Let the body come, read none of it."""
    connection.recv(1 << 16)
    connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


@pytest.fixture
def server() -> Iterator[Stalling]:
    server = Stalling()
    yield server
    server.close()


@pytest.fixture
def stalled(server: Stalling, s3_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Store:
    for module in (store_base, store_s3):
        monkeypatch.setattr(module, "SLOWEST", 1 << 30)
    client = {**s3_options["client_kwargs"], "endpoint_url": server.url}
    return open_store("s3://bucket/archive", {**s3_options, "client_kwargs": client}, timeout=LIMIT)


def ends(action: Callable[[], Any]) -> None:
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"in time|imeout"):
        action()
    assert time.monotonic() - began < 4 * LIMIT + 3


@pytest.mark.parametrize("behave", [read_all, read_nothing, continue_only])
@pytest.mark.parametrize("size", [100, 20 << 20])
def test_a_put_that_stalls(stalled: Store, server: Stalling, behave: Any, size: int) -> None:
    server.behave = behave
    ends(lambda: stalled.put("a", bytes(size)))
    ends(lambda: stalled.create("b", bytes(size)))
    assert server.requests >= 2


@pytest.mark.parametrize("behave", [read_all, read_nothing, continue_only])
@pytest.mark.parametrize("size", [1 << 20, 40 << 20])
def test_an_upload_that_stalls(stalled: Store, server: Stalling, tmp_path: Path, behave: Any, size: int) -> None:
    server.behave = behave
    (tmp_path / "spool").write_bytes(bytes(size))
    ends(lambda: stalled.put_file("a", tmp_path / "spool"))
    assert server.requests >= 1


@pytest.mark.parametrize("behave", [read_all, answer_half, drip])
def test_reads_that_stall(stalled: Store, server: Stalling, behave: Any) -> None:
    server.behave = behave
    ends(lambda: stalled.read("a", limit=1000))
    ends(lambda: stalled.read_range("a", 0, 1000))


def test_questions_that_stall(stalled: Store, server: Stalling) -> None:
    server.behave = read_all
    for action in (
        lambda: stalled.exists("a"),
        lambda: stalled.size("a"),
        lambda: stalled.entries("a"),
        lambda: list(stalled.names("a")),
        lambda: stalled.delete(["a"]),
    ):
        ends(action)


def test_the_users_settings_win() -> None:
    assert s3_options({})["config_kwargs"] == dict(CONFIG)
    mine = s3_options({"config_kwargs": {"read_timeout": 500}, "use_listings_cache": True, "key": "k"})
    assert mine["config_kwargs"] == {**CONFIG, "read_timeout": 500}
    assert mine["use_listings_cache"] is True and mine["key"] == "k"
    store = open_store("s3://bucket/x", {"config_kwargs": {"connect_timeout": 7}})
    assert store.filesystem.config_kwargs["connect_timeout"] == 7
    assert store.filesystem.config_kwargs["read_timeout"] == CONFIG["read_timeout"]
