"""What an archive has lost: snapshots of jobs that are over, payload files and codecs that its newest snapshot names.

Disks lose files, copies end early, people delete. Then nobody may say that all is good, no sweep may take what is left
for garbage, and a job makes again what can be made again.
"""

from __future__ import annotations

from lichen.errors import CorruptArchive
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.job import finish_job, list_jobs, read_done, read_job
from lichen.pipeline.archive.marker import read_marker
from lichen.pipeline.archive.payload_list import read_payloads
from lichen.pipeline.archive.snapshot import Snapshot, latest_snapshot
from lichen.pipeline.archive.snapshot_writer import write_snapshot
from lichen.pipeline.archive.store import Store
from lichen.pipeline.archive.verified import wrong_size


def lost_jobs(store: Store) -> tuple[str, ...]:
    """The jobs of this archive that ended with a snapshot and that its newest one does not hold, oldest first.

    Every snapshot holds the jobs of the one before, so one that had them is gone.
    """
    # Jobs before the snapshot: what is seen finished has a snapshot, which is then seen, too.
    ends = {job: read_done(store, job) for job in list_jobs(store)}
    finished = [job for job, done in ends.items() if done and (done.state == "finished" or done.snapshot is not None)]
    newest = latest_snapshot(store)
    identity = read_marker(store).id
    lost = [job for job in finished if newest is None or job not in newest.jobs]
    return tuple(job for job in lost if read_job(store, job).archive in (None, identity))


def check_jobs(store: Store) -> None:
    """Raise ``CorruptArchive`` if there are ``lost_jobs``."""
    if lost := lost_jobs(store):
        raise CorruptArchive(
            f"the newest snapshot of {store.url} is gone: job {lost[-1]} finished, and no snapshot holds its pictures. "
            f"Put {layout.SNAPSHOTS}/ back from a copy of the archive, or run `lichen compress` into it again, which "
            "makes the snapshot again from what was committed"
        )


def restore_jobs(store: Store) -> tuple[str, ...]:
    """Make the snapshots of ``lost_jobs`` again from their commits, and return these jobs.

    Raises ``CorruptArchive`` if the index part of a payload file that is still there is not.
    """
    lost = lost_jobs(store)
    for job in lost:
        keep = read_job(store, job).config.get("on_collision") == "keep"
        write_snapshot(store, job, existing="keep" if keep else "replace", restoring=True)
    return lost


def abandon_job(store: Store, job: str) -> None:
    """Give a job up. What a snapshot holds of it already stays, and is missed if that snapshot is lost."""
    newest = latest_snapshot(store)
    finish_job(store, job, newest.number if newest is not None and job in newest.jobs else None, "abandoned")


def lost_payloads(store: Store, snapshot: Snapshot) -> set[str]:
    """The payload files of a snapshot that are not there, or not as long as it says."""
    sizes = {entry.path: entry.size for entry in store.entries(layout.SHARDS)}
    stated = (payload.record for payload in read_payloads(store, snapshot))
    return {record.file for record in stated if sizes.get(layout.shard_path(record.file)) != record.size}


def check_codecs(store: Store) -> None:
    """Raise ``CorruptArchive`` if a file of a codec of the newest snapshot is not there, or not of the stated size."""
    snapshot = latest_snapshot(store)
    sizes = {entry.path: entry.size for entry in store.entries(layout.CODECS)}
    for digest, files in {} if snapshot is None else snapshot.codecs.items():
        for extension, size in files.items():
            path = layout.codec_path(digest, extension)
            if (wrong := wrong_size(sizes.get(path), size)) is not None:
                raise CorruptArchive(
                    f"{path} {wrong}, and pictures of the archive do not decode without it. Put it back from a copy "
                    "of the archive, or delete what is there of it and compress with the codec that wrote it"
                )
