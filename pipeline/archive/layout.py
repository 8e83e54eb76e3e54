"""Names and paths inside an archive. Every name read from an archive is checked here before it is used."""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime, timedelta

from lichen.errors import CorruptArchive

FORMAT = 2
"""1: the payload files of a snapshot were listed in its JSON file."""
MARKER = "lichen.json"
CODECS, SHARDS, JOBS, COMMITS, SNAPSHOTS = "codecs", "shards", "jobs", "commits", "snapshots"
TEMPORARY, PROBES = ".tmp", ".probe"
FOLDERS = (CODECS, SHARDS, JOBS, COMMITS, SNAPSHOTS, TEMPORARY, PROBES)

_JOB = r"\d{8}T\d{6}-[0-9a-f]{6}"
_SHARD = rf"{_JOB}\.\d{{5,9}}(?:\.\d{{1,4}}){{0,40}}"
_ATTEMPT = r"[0-9a-f]{12}"
_PATTERNS = {
    "job": re.compile(_JOB, re.ASCII),
    "shard": re.compile(_SHARD, re.ASCII),
    "attempt": re.compile(_ATTEMPT),
    "digest": re.compile(r"[0-9a-f]{64}"),
    "extension": re.compile(r"[a-z][a-z0-9]{0,15}"),
    "payload file": re.compile(rf"{_SHARD}-{_ATTEMPT}\.bin", re.ASCII),
    "table file": re.compile(rf"{_SHARD}-{_ATTEMPT}\.parquet", re.ASCII),
    "snapshot file": re.compile(rf"\d{{8}}-{_ATTEMPT}-\d{{5}}\.parquet", re.ASCII),
    "payload list": re.compile(rf"\d{{8}}-{_ATTEMPT}\.payloads", re.ASCII),
}
DIGEST_PATTERN = _PATTERNS["digest"].pattern
_STAMP = "%Y%m%dT%H%M%S"
_LEASE = r"lease/\d{8}(?:\.beat)?\.json"
_TABLE = _PATTERNS["table file"].pattern
_OWN = re.compile(
    "|".join(
        (
            re.escape(MARKER),
            rf"{CODECS}/{DIGEST_PATTERN}\.(?:json|safetensors)",
            rf"{SHARDS}/(?:{_PATTERNS['payload file'].pattern}|{_TABLE})",
            rf"{JOBS}/{_LEASE}",
            rf"{JOBS}/{_JOB}/(?:{_LEASE}|(?:job|plan|done|progress)\.json|plan-\d{{5,9}}\.parquet)",
            rf"{JOBS}/(?P<table_job>{_JOB})/(?:quarantine|skipped)/(?=(?P=table_job)\.){_TABLE}",
            rf"{COMMITS}/(?P<commit_job>{_JOB})/(?=(?P=commit_job)\.){_SHARD}\.json",
            rf"{SNAPSHOTS}/(?:\d{{8}}\.json|{_PATTERNS['snapshot file'].pattern}|{_PATTERNS['payload list'].pattern})",
            rf"{re.escape(TEMPORARY)}/lichen-[0-9a-f]{{32}}",
            rf"{re.escape(PROBES)}/lichen-[0-9a-f]{{32}}",
        )
    ),
    re.ASCII,
)


def check(kind: str, name: object) -> str:
    """The name, if it has the form of its kind; else ``CorruptArchive``."""
    if not isinstance(name, str) or not _PATTERNS[kind].fullmatch(name):
        raise CorruptArchive(f"{str(name)[:80]!r} is not the name of a {kind}")
    return name


def is_name(kind: str, name: str) -> bool:
    """Whether the name has the form of its kind."""
    return _PATTERNS[kind].fullmatch(name) is not None


def is_own(path: str) -> bool:
    """Whether a path in an archive has the form of a name that lichen gives. Others there are the user's.

    Of codecs only the two files of lichen's own: a picture may well be named by its SHA-256.
    """
    return _OWN.fullmatch(path) is not None


def temporary_path() -> str:
    """A fresh name for a file that is being written."""
    return f"{TEMPORARY}/lichen-{secrets.token_hex(16)}"


def probe_path() -> str:
    """A fresh name to try a store with."""
    return f"{PROBES}/lichen-{secrets.token_hex(16)}"


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
    """The id of a planned shard: that of its job, and its number."""
    return f"{job}.{number:05d}"


def child_id(shard: str, number: int) -> str:
    """The id of a child of a split shard: that of its parent, and its number."""
    return f"{shard}.{number}"


def job_of(name: str) -> str:
    """The job of a shard, a payload file or a table file."""
    return name.partition(".")[0]


def codec_path(digest: str, extension: str) -> str:
    """The path of a codec's decoder file."""
    return f"{CODECS}/{check('digest', digest)}.{check('extension', extension)}"


def payload_file(shard: str, attempt: str) -> str:
    """The name of an attempt's payload file."""
    return f"{shard}-{attempt}.bin"


def table_file(shard: str, attempt: str) -> str:
    """The name of an attempt's index part, and of its quarantine and skipped tables."""
    return f"{shard}-{attempt}.parquet"


def shard_path(file: str) -> str:
    """The path of a payload file or an index part."""
    return f"{SHARDS}/{file}"


def job_path(job: str, name: str) -> str:
    """The path of a file of a job."""
    return f"{JOBS}/{job}/{name}"


def plan_path(job: str, part: int) -> str:
    """The path of a part of a job's plan."""
    return job_path(job, f"plan-{part:05d}.parquet")


def lease_folder(job: str | None) -> str:
    """The folder with the leases of a job, or of the whole archive (``None``)."""
    return f"{JOBS}/lease" if job is None else job_path(job, "lease")


def commit_path(shard: str) -> str:
    """The path of the commit record of a shard."""
    return f"{COMMITS}/{job_of(shard)}/{check('shard', shard)}.json"


def snapshot_path(number: int) -> str:
    """The path of a snapshot's JSON file."""
    return f"{SNAPSHOTS}/{number:08d}.json"


def snapshot_number(path: str) -> int | None:
    """The number of a snapshot's JSON file; None for other paths."""
    match = re.fullmatch(rf"{SNAPSHOTS}/(\d{{8}})\.json", path, re.ASCII)
    return int(match[1]) if match else None


def snapshot_file(number: int, attempt: str, part: int) -> str:
    """The name of an index file of a snapshot."""
    return f"{number:08d}-{attempt}-{part:05d}.parquet"


def payload_list(number: int, attempt: str) -> str:
    """The name of a snapshot's list of payload files: no ``.parquet``, which means index files to DuckDB's users."""
    return f"{number:08d}-{attempt}.payloads"


def snapshot_file_path(file: str) -> str:
    """The path of an index file of a snapshot, or of its list of payload files."""
    return f"{SNAPSHOTS}/{file}"
