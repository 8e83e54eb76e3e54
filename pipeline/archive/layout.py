"""Names and paths inside an archive. Every name read from an archive is checked here before it is used."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime, timedelta

from lichen.models.errors import CorruptArchive

FORMAT = 1
MARKER = "lichen.json"
CODECS, SHARDS, JOBS, COMMITS, SNAPSHOTS = "codecs", "shards", "jobs", "commits", "snapshots"
TEMPORARY, PROBES = ".tmp", ".probe"
FOLDERS = (CODECS, SHARDS, JOBS, COMMITS, SNAPSHOTS, TEMPORARY, PROBES)

_JOB = r"\d{8}T\d{6}-[0-9a-f]{6}"
_SHARD = rf"{_JOB}\.\d{{5,9}}(?:\.\d{{1,4}}){{0,40}}"
_ATTEMPT = r"[0-9a-f]{12}"
_PATTERNS = {
    "job": re.compile(_JOB),
    "shard": re.compile(_SHARD),
    "attempt": re.compile(_ATTEMPT),
    "digest": re.compile(r"[0-9a-f]{64}"),
    "extension": re.compile(r"[a-z][a-z0-9]{0,15}"),
    "payload file": re.compile(rf"{_SHARD}-{_ATTEMPT}\.bin"),
    "table file": re.compile(rf"{_SHARD}-{_ATTEMPT}\.parquet"),
    "snapshot file": re.compile(rf"\d{{8}}-{_ATTEMPT}-\d{{5}}\.parquet"),
}
DIGEST_PATTERN = _PATTERNS["digest"].pattern
_STAMP = "%Y%m%dT%H%M%S"


def check(kind: str, name: object) -> str:
    """The name, if it has the form of its kind; else ``CorruptArchive``."""
    if not isinstance(name, str) or not _PATTERNS[kind].fullmatch(name):
        raise CorruptArchive(f"{str(name)[:80]!r} is not the name of a {kind}")
    return name


def is_name(kind: str, name: str) -> bool:
    """Whether the name has the form of its kind."""
    return _PATTERNS[kind].fullmatch(name) is not None


def now() -> str:
    """The time in UTC, ISO 8601, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_job_id(after: str | None = None) -> str:
    """A fresh job id, greater than the id ``after`` even where clocks disagree."""
    moment = datetime.now(UTC)
    if after is not None:
        try:
            previous = datetime.strptime(check("job", after)[:15], _STAMP).replace(tzinfo=UTC)
            moment = max(moment, previous + timedelta(seconds=1))
        except (ValueError, OverflowError) as error:
            raise CorruptArchive(f"job id {after!r} does not begin with a time") from error
    return f"{moment.strftime(_STAMP)}-{secrets.token_hex(3)}"


def new_attempt() -> str:
    """A fresh attempt id."""
    return secrets.token_hex(6)


def shard_id(job: str, number: int) -> str:
    """Of a planned shard."""
    return f"{job}.{number:05d}"


def child_id(shard: str, number: int) -> str:
    """Of a child of a split shard."""
    return f"{shard}.{number}"


def job_of(name: str) -> str:
    """The job of a shard, a payload file or a table file."""
    return name.partition(".")[0]


def codec_path(digest: str, extension: str) -> str:
    """Of a decoder file."""
    return f"{CODECS}/{check('digest', digest)}.{check('extension', extension)}"


def payload_file(shard: str, attempt: str) -> str:
    """The name of an attempt's payload file."""
    return f"{shard}-{attempt}.bin"


def table_file(shard: str, attempt: str) -> str:
    """The name of an attempt's index part, and of its quarantine and skipped tables."""
    return f"{shard}-{attempt}.parquet"


def shard_path(file: str) -> str:
    """Of a payload file or an index part."""
    return f"{SHARDS}/{file}"


def job_path(job: str, name: str) -> str:
    """Of a file of a job."""
    return f"{JOBS}/{job}/{name}"


def plan_path(job: str, part: int) -> str:
    """Of a part of a plan."""
    return job_path(job, f"plan-{part:05d}.parquet")


def lease_folder(job: str | None) -> str:
    """Of a job, or of the whole archive (``None``)."""
    return f"{JOBS}/lease" if job is None else job_path(job, "lease")


def commit_path(shard: str) -> str:
    """Of the commit record of a shard."""
    return f"{COMMITS}/{job_of(shard)}/{check('shard', shard)}.json"


def snapshot_path(number: int) -> str:
    """Of a snapshot's JSON file."""
    return f"{SNAPSHOTS}/{number:08d}.json"


def snapshot_number(path: str) -> int | None:
    """The number of a snapshot's JSON file; None for other paths."""
    match = re.fullmatch(rf"{SNAPSHOTS}/(\d{{8}})\.json", path)
    return int(match[1]) if match else None


def snapshot_file(number: int, attempt: str, part: int) -> str:
    """The name of an index file of a snapshot."""
    return f"{number:08d}-{attempt}-{part:05d}.parquet"


def snapshot_file_path(file: str) -> str:
    """Of an index file of a snapshot."""
    return f"{SNAPSHOTS}/{file}"
