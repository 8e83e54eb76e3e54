"""An archive against a dictionary: whatever crashes, races and sweeps do, a snapshot is its parent and one job."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest
from archive_support import in_json, make_row, opened
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from lichen.errors import CommitConflict, StoreError
from lichen.pipeline.archive import index, layout, snapshot_writer
from lichen.pipeline.archive.commit import TOTALS, ShardCommit, commit_shard, table_totals
from lichen.pipeline.archive.gc import collect
from lichen.pipeline.archive.job import create_job, finish_job
from lichen.pipeline.archive.losses import abandon_job, lost_jobs, restore_jobs
from lichen.pipeline.archive.marker import create_marker
from lichen.pipeline.archive.payload_list import read_payloads
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.shard import ShardWriter
from lichen.pipeline.archive.snapshot import Snapshot, latest_snapshot, snapshot_numbers
from lichen.pipeline.archive.snapshot_writer import write_snapshot
from lichen.pipeline.archive.store import open_store

CODECS = (None, "ab" * 32, "cd" * 32)
KEYS = (
    *(f"{n:02d}" for n in range(12)),
    "\0", "07\0", "é", "\ud7ff", "\uffff", "\U0001f600", "05" * 3000, "\U0010ffff" * 1100, "~/../x\n",
)  # fmt: skip
"""Of all lengths of UTF-8, and two that are too long for Parquet's statistics."""

PICTURES = st.dictionaries(st.sampled_from(KEYS), st.sampled_from(CODECS), max_size=14)

Row = tuple[str, str | None]
"""The job of a picture, and its codec; its payload tells both."""


@dataclass
class Job:
    """A job as the model knows it: the committed pictures by shard."""

    name: str
    source: str
    keep: bool
    shards: dict[int, dict[str, str | None]] = field(default_factory=dict)
    files: dict[int, str] = field(default_factory=dict)
    """Payload files by shard."""
    over: bool = False
    held: bool = False
    """Whether the newest snapshot held it when it ended."""

    @property
    def keys(self) -> set[str]:
        return {key for keys in self.shards.values() for key in keys}


@dataclass(frozen=True)
class State:
    """A snapshot as the model knows it."""

    rows: Mapping[str, Row] = field(default_factory=dict)
    jobs: tuple[str, ...] = ()


def payload_of(key: str, row: Row) -> bytes:
    return f"{row}{key[:20]}".encode()


class Archives(RuleBasedStateMachine):
    """The archive on one side, ``jobs`` and ``states`` on the other."""

    def __init__(self) -> None:
        super().__init__()
        self.store = open_store(f"memory://{uuid.uuid4().hex}")
        create_marker(self.store)
        for digest in CODECS:
            if digest is not None:
                self.store.put(layout.codec_path(digest, "json"), b"{}")
        self.jobs: dict[str, Job] = {}
        self.states: dict[int, State] = {}
        self.attempts: list[tuple[Job, int, dict[str, str | None], ShardCommit]] = []
        self.readers: dict[int, Archive] = {}

    # --- the model ---

    def live(self) -> list[Job]:
        return [job for job in self.jobs.values() if not job.over]

    def newest(self) -> State:
        return self.states[max(self.states)] if self.states else State()

    def merged(self, before: State, job: Job, gone: set[int] = frozenset()) -> State:  # type: ignore[assignment]
        """What the snapshot of a job makes of its parent."""
        strangers = {name for name in before.jobs if self.jobs[name].source != job.source} if job.keep else set()
        rows = dict(before.rows)
        for number, keys in job.shards.items():
            for key, codec in keys.items() if number not in gone else ():
                if not (key in rows and (rows[key][0] > job.name or rows[key][0] in strangers)):
                    rows[key] = (job.name, codec)
        return State(rows, before.jobs if job.name in before.jobs else (*before.jobs, job.name))

    def saw(self, job: Job, snapshot: Snapshot) -> None:
        """Note a snapshot of a job. One that is there already may be the answer, if it says the same."""
        state = self.merged(self.newest(), job)
        assert snapshot.number in self.states or snapshot.number == max(self.states, default=0) + 1
        self.states[snapshot.number] = state

    # --- what happens ---

    @precondition(lambda self: len(self.live()) < 3)
    @rule(source=st.sampled_from("AB"), keep=st.booleans(), shards=st.lists(PICTURES, max_size=3))
    def begin(self, source: str, keep: bool, shards: list[dict[str, str | None]]) -> None:
        """A job, and what it commits at once."""
        config = {"source": source, "on_collision": "keep" if keep else "replace"}
        last = max(self.jobs, default=None)
        name = create_job(self.store, config, [], after=last).job
        job = self.jobs[name] = Job(name, source, keep)
        for number, keys in enumerate(shards):
            left = {key: codec for key, codec in keys.items() if key not in job.keys}
            record = self.publish(job, number, left)
            commit_shard(self.store, record)
            job.shards[number], job.files[number] = left, record.payload.file

    @precondition(lambda self: self.live())
    @rule(data=st.data(), keys=PICTURES)
    def attempt(self, data: Any, keys: dict[str, str | None]) -> None:
        """A worker writes its files. It is the only one at a shard, or its keys are those of its rival."""
        job = data.draw(st.sampled_from(self.live()))
        rivals = [one for one in self.attempts if one[0] is job]
        if rivals and data.draw(st.booleans()):
            _, number, keys, _ = data.draw(st.sampled_from(rivals))
        else:
            taken = job.keys.union(*(one[2] for one in rivals))
            keys = {key: codec for key, codec in keys.items() if key not in taken}
            number = max([-1, *job.shards, *(one[1] for one in rivals)]) + 1
        self.attempts.append((job, number, keys, self.publish(job, number, keys)))

    @precondition(lambda self: self.attempts)
    @rule(data=st.data())
    def commit(self, data: Any) -> None:
        one = data.draw(st.sampled_from(range(len(self.attempts))))
        job, number, keys, record = self.attempts.pop(one)
        if number in job.shards:
            with pytest.raises(CommitConflict):
                commit_shard(self.store, record)
            return
        commit_shard(self.store, record)
        job.shards[number], job.files[number] = keys, record.payload.file

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def snapshot(self, data: Any) -> None:
        job = data.draw(st.sampled_from(self.live()))
        self.saw(job, self.write(job))

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def finish(self, data: Any) -> None:
        job = data.draw(st.sampled_from(self.live()))
        snapshot = self.write(job)
        self.saw(job, snapshot)
        finish_job(self.store, job.name, snapshot.number)
        self.end(job)

    @precondition(lambda self: self.live())
    @rule(data=st.data())
    def abandon(self, data: Any) -> None:
        job = data.draw(st.sampled_from(self.live()))
        abandon_job(self.store, job.name)
        self.end(job)

    @precondition(lambda self: len(self.live()) > 1)
    @rule(data=st.data())
    def race(self, data: Any) -> None:
        """Another writer's snapshot is there between the reading of the newest one and the creation of the next."""
        first, second = data.draw(st.permutations(self.live()))[:2]
        create = snapshot_writer.create_verified

        def overtaken(*arguments: Any) -> bool:
            with patch.object(snapshot_writer, "create_verified", create):
                self.saw(second, self.write(second))
            stop.stop()
            return create(*arguments)

        stop = patch.object(snapshot_writer, "create_verified", overtaken)
        stop.start()
        try:
            snapshot = self.write(first)
        finally:
            patch.stopall()
        self.saw(first, snapshot)

    @precondition(lambda self: self.live())
    @rule(data=st.data(), steps=st.integers(0, 3))
    def crash(self, data: Any, steps: int) -> None:
        """A writer of a snapshot dies somewhere in the middle."""
        job = data.draw(st.sampled_from(self.live()))
        left = iter(range(steps))

        def dying(name: str) -> Callable[..., Any]:
            does = getattr(snapshot_writer, name)

            def run(*arguments: Any) -> Any:
                if next(left, None) is None:
                    raise StoreError("died")
                return does(*arguments)

            return run

        names = ("put_file_verified", "create_verified")
        with patch.multiple(snapshot_writer, **{name: dying(name) for name in names}):
            try:
                snapshot = self.write(job)
            except StoreError:
                return
        self.saw(job, snapshot)

    @precondition(lambda self: self.states)
    @rule()
    def read(self) -> None:
        number = max(self.states)
        self.readers[number] = opened(self.store, number)

    @precondition(lambda self: self.states)
    @rule()
    def become_old(self) -> None:
        """The newest snapshot is one that an early version wrote."""
        snapshot = latest_snapshot(self.store)
        assert snapshot is not None
        if snapshot.payload_list is not None:
            self.readers.pop(snapshot.number, None)
            in_json(self.store, snapshot.number)

    @rule(keep=st.none() | st.integers(1, 2))
    def sweep(self, keep: int | None) -> None:
        """Garbage goes, and with it the files of attempts whose workers are believed dead."""
        self.attempts.clear()
        collect(self.store, older_than=-60, keep_snapshots=keep)
        for number in sorted(self.states)[: -keep if keep else 0]:
            del self.states[number]
            self.readers.pop(number, None)
        self.every_snapshot()

    @precondition(lambda self: self.states)
    @rule()
    def lose(self) -> None:
        """The newest snapshot is deleted, and made again from the commits of the jobs that had finished."""
        number = max(self.states)
        self.store.delete([layout.snapshot_path(number)])
        del self.states[number]
        self.readers.pop(number, None)
        state = self.newest()
        lost = tuple(name for name in sorted(self.jobs) if self.jobs[name].held and name not in state.jobs)
        assert lost_jobs(self.store) == lost
        assert restore_jobs(self.store) == lost
        for name in lost:
            job = self.jobs[name]
            there = {shard for shard, file in job.files.items() if self.store.exists(layout.shard_path(file))}
            state = self.merged(state, job, gone=set(job.shards) - there)
            self.states[max(self.states, default=0) + 1] = state

    def publish(self, job: Job, number: int, keys: Mapping[str, str | None]) -> ShardCommit:
        """The files of one attempt at a shard."""
        with ShardWriter(self.store, layout.shard_id(job.name, number)) as writer:
            for key, codec in keys.items():
                payload = payload_of(key, (job.name, codec))
                columns: dict[str, Any] = {"mode": "L", "width": 3, "height": 5}
                if codec is not None:
                    columns |= {"status": "compressed", "codec": codec}
                writer.add(make_row(writer.append(payload, b"side"), key, payload, **columns))
            return writer.publish()

    def write(self, job: Job) -> Snapshot:
        return write_snapshot(self.store, job.name, existing="keep" if job.keep else "replace")

    def end(self, job: Job) -> None:
        job.over, job.held = True, job.name in self.newest().jobs
        self.attempts = [one for one in self.attempts if one[0] is not job]

    # --- what must hold ---

    @invariant()
    def the_newest_snapshot_is_right(self) -> None:
        assert snapshot_numbers(self.store) == sorted(self.states)
        if self.states:
            self.check(max(self.states), opened(self.store))

    def teardown(self) -> None:
        self.every_snapshot()

    def every_snapshot(self) -> None:
        for number in self.states:
            self.check(number, opened(self.store, number))
        for number, reader in self.readers.items():
            self.check(number, reader)

    def check(self, number: int, archive: Archive) -> None:
        state, snapshot = self.states[number], archive.snapshot
        assert snapshot is not None
        keys = sorted(state.rows)
        assert list(archive) == keys and set(snapshot.jobs) == set(state.jobs) and snapshot.rows == len(keys)
        places = archive.places(keys)  # each found by its key
        assert [place.key for place in places] == keys
        wanted = [payload_of(key, state.rows[key]) for key in keys]
        assert [payload for payload, _ in archive.payloads(places)] == wanted
        assert all(key not in archive for key in KEYS if key not in state.rows)
        table = archive.table()
        assert snapshot.totals == {name: table_totals(table)[name] for name in TOTALS}
        assert set(snapshot.codecs) >= {codec for _, codec in state.rows.values() if codec}
        for part, file in zip(snapshot.index, archive.index_files, strict=True):
            assert file.endswith(part.record.file)
            within = [key for key in keys if part.min_key <= key <= part.max_key]
            assert (len(within), within[0], within[-1]) == (part.record.rows, part.min_key, part.max_key)
            assert part.codecs == tuple(sorted({codec for key in within if (codec := state.rows[key][1])}))
        payloads = read_payloads(self.store, snapshot)
        counted = Counter(place.shard for place in places)
        assert {one.record.file: one.record.rows for one in payloads} == counted
        assert snapshot.payload_bytes == sum(self.store.size(layout.shard_path(name)) for name in counted)


@pytest.fixture(autouse=True, scope="module")
def small() -> Any:
    """Index files and row groups of a few rows, and a merge that has to sort on the disk."""
    with (
        patch.object(snapshot_writer, "PART_ROWS", 6),
        patch.object(snapshot_writer, "LEAST_ROWS", 2),
        patch.object(snapshot_writer, "sweep", partial(snapshot_writer.sweep, held=5)),
        patch.object(index, "ROW_GROUP", 3),
    ):
        yield


TestArchives = Archives.TestCase
TestArchives.settings = settings(
    max_examples=14, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
