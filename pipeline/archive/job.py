"""Jobs: their frozen configuration, their progress, their end."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lichen.errors import CorruptArchive, JobError
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.manifest import Fields, Json, dump, load, require
from lichen.pipeline.archive.marker import read_marker
from lichen.pipeline.archive.store import Store
from lichen.pipeline.archive.verified import create_verified


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it was created. ``config`` is the engine's; it holds no credentials and never changes."""

    job: str
    created: str
    config: Mapping[str, Any]
    codecs: tuple[str, ...]
    """Digests of the codecs that the job may use; their files are in the archive."""
    archive: str | None = None
    """The id of its archive (``Marker.id``); None in records of earlier versions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The end of a job: finished in a snapshot, or abandoned (what it committed may be swept)."""

    job: str
    state: Literal["finished", "abandoned"]
    snapshot: int | None


def create_job(store: Store, config: Mapping[str, Json], codecs: Sequence[str], *, after: str | None = None) -> Job:
    """Create a job with an id greater than ``after`` (the newest job of the archive).

    The codecs must have been put into the archive before (``reader.put_codec``).
    """
    archive = read_marker(store).id
    for _ in range(8):
        job = Job(
            job=layout.new_job_id(after),
            created=layout.now(),
            config=dict(config),
            codecs=tuple(layout.check("digest", digest) for digest in codecs),
            archive=archive,
        )
        stated: dict[str, Json] = {"job": job.job, "archive": archive, "created": job.created}
        record = dump({**stated, "config": job.config, "codecs": list(job.codecs)})
        if create_verified(store, layout.job_path(job.job, "job.json"), record):
            return job
    raise JobError(f"cannot create a job in {store.url}: every id is taken")


def read_job(store: Store, job: str) -> Job:
    """A job as it was created; ``CorruptArchive`` if there is none of this id."""
    layout.check("job", job)
    fields = require(store, layout.job_path(job, "job.json"))
    if fields.text("job") != job:
        raise CorruptArchive(f"{fields.where} describes another job")
    return Job(
        job=job,
        created=fields.text("created"),
        config=fields.mapping("config"),
        codecs=fields.names("codecs", "digest"),
        archive=None if fields.values.get("archive") is None else fields.text("archive"),
    )


def list_jobs(store: Store) -> list[str]:
    """The ids of all jobs, oldest first."""
    found = set()
    for entry in store.entries(layout.JOBS):
        match = re.fullmatch(rf"{layout.JOBS}/([^/]+)/job\.json", entry.path)
        if match and layout.is_name("job", match[1]):
            found.add(match[1])
    return sorted(found)


def finish_job(
    store: Store,
    job: str,
    snapshot: int | None,
    state: Literal["finished", "abandoned"] = "finished",
) -> Done:
    """Mark a job as over and return how it ended; the first such mark counts."""
    layout.check("job", job)
    record: dict[str, Json] = {
        "job": job,
        "state": state,
        "snapshot": snapshot,
        "created": layout.now(),
        "attempt": layout.new_attempt(),
    }
    create_verified(store, layout.job_path(job, "done.json"), dump(record))
    done = read_done(store, job)
    if done is None:
        raise CorruptArchive(f"{layout.job_path(job, 'done.json')} has vanished")
    return done


def read_done(store: Store, job: str) -> Done | None:
    """How a job ended; None while it has not."""
    fields = load(store, layout.job_path(layout.check("job", job), "done.json"))
    if fields is None:
        return None
    return Done(job=job, state=_state(fields), snapshot=fields.optional_integer("snapshot"))


def _state(fields: Fields) -> Literal["finished", "abandoned"]:
    match fields.text("state"):
        case "finished":
            return "finished"
        case "abandoned":
            return "abandoned"
        case other:
            raise CorruptArchive(f"{fields.where}: unknown state {other[:40]!r}")


def unfinished_jobs(store: Store) -> list[Job]:
    """Jobs without an end, oldest first: what a driver may resume."""
    return [read_job(store, job) for job in list_jobs(store) if read_done(store, job) is None]


def write_progress(store: Store, job: str, progress: Mapping[str, Json]) -> None:
    """Overwrite ``progress.json``; nothing depends on it."""
    store.put(layout.job_path(layout.check("job", job), "progress.json"), dump(progress))


def read_progress(store: Store, job: str) -> dict[str, Any] | None:
    """The last ``progress.json``, as it was given to ``write_progress``; None before the first."""
    fields = load(store, layout.job_path(layout.check("job", job), "progress.json"))
    return None if fields is None else fields.values
