"""Stores of all kinds, and archives with made-up payloads in them."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from archive_support import make_row

from lichen.pipeline.archive import layout
from lichen.pipeline.archive.commit import ShardCommit, commit_shard
from lichen.pipeline.archive.index import IndexRow
from lichen.pipeline.archive.job import create_job
from lichen.pipeline.archive.marker import create_marker
from lichen.pipeline.archive.shard import ShardWriter
from lichen.pipeline.archive.store import Store, open_store


@dataclass(frozen=True)
class Place:
    """Where an archive of a test lives; picklable."""

    url: str
    options: dict[str, Any] = field(default_factory=dict)

    def store(self) -> Store:
        return open_store(self.url, self.options)


@pytest.fixture(params=["local", "memory", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A fresh, empty place on each kind of store."""
    if request.param == "local":
        return Place(str(tmp_path / "archive"))
    if request.param == "memory":
        return Place(f"memory://{uuid.uuid4().hex}")
    return Place(request.getfixturevalue("s3_url"), request.getfixturevalue("s3_options"))


@pytest.fixture
def store(place: Place) -> Store:
    """A fresh archive without jobs, on each kind of store."""
    store = place.store()
    create_marker(store)
    return store


@pytest.fixture
def memory() -> Store:
    """A fresh archive in memory, for tests of what does not depend on the store."""
    store = open_store(f"memory://{uuid.uuid4().hex}")
    create_marker(store)
    return store


@pytest.fixture
def row() -> Callable[..., IndexRow]:
    return make_row


def publish_shard(store: Store, shard: str, originals: Mapping[str, bytes], **options: Any) -> ShardCommit:
    """One attempt at a shard that stores originals; not committed."""
    with ShardWriter(store, shard, **options) as writer:
        for key, original in originals.items():
            writer.add(make_row(writer.append(original), key, original))
        return writer.publish()


@pytest.fixture
def publish() -> Callable[..., ShardCommit]:
    return publish_shard


@pytest.fixture
def new_job() -> Callable[..., str]:
    """Create a job, by default without codecs, and return its id."""

    def create(store: Store, codecs: Iterable[str] = (), after: str | None = None, source: str | None = None) -> str:
        config = {"test": True} | ({} if source is None else {"source": source})
        return create_job(store, config, list(codecs), after=after).job

    return create


@pytest.fixture
def fill(new_job: Callable[..., str]) -> Callable[..., str]:
    """A job whose shards store the given originals, all committed; returns its id."""

    def run(store: Store, *shards: Mapping[str, bytes], after: str | None = None, source: str | None = None) -> str:
        job = new_job(store, after=after, source=source)
        for number, originals in enumerate(shards):
            commit_shard(store, publish_shard(store, layout.shard_id(job, number), originals))
        return job

    return run
