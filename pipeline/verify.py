"""Proof, at any time and on any machine, that an archive still gives back what was put in.

Reads every payload, tests its checksum, decodes it, and compares the digest of the decoded symbols with the one
that was recorded when the picture was compressed: symbols are integers and equal on every device. Decoded pixels
may differ by a little between devices and library versions, so their digest is only counted. Packed files are rebuilt,
and their SHA-256 compared with that of the source, as that of stored ones is. With the sources at
hand the decoded pixels are compared with them again, and those that must not be deleted are named.
"""

from __future__ import annotations

import dataclasses
import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from lichen import defaults
from lichen.errors import ArchiveError, LichenError
from lichen.models.codec import symbol_digest
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.commit import ShardCommit, list_commits
from lichen.pipeline.archive.decoding import Unpacked
from lichen.pipeline.archive.index import IndexRow, to_rows
from lichen.pipeline.archive.index_file import open_part
from lichen.pipeline.archive.losses import check_jobs
from lichen.pipeline.archive.manifest import FileRecord
from lichen.pipeline.archive.payload_list import PayloadSizes, read_payloads
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.snapshot import PayloadFile, Snapshot, snapshot_numbers
from lichen.pipeline.archive.verified import stored_sha256, wrong_size
from lichen.pipeline.images import read_picture, to_pil
from lichen.pipeline.originals import Kept, Originals
from lichen.pipeline.quality import measure
from lichen.pipeline.select import select
from lichen.pipeline.unpack import unpack

EXACT = 50.0
"""dB from which on a picture is as good as its source: single levels of single pixels differ between devices."""
MAX_FAILURES = 1000
MAX_KEPT = 1000
_COUNTS = (
    "pictures",
    "compressed",
    "packed",
    "stored",
    "files",
    "bytes_read",
    "pixels",
    "pixels_differ",
)

Check = Literal["file", "index", "payload", "symbols", "original", "source"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Something that is not as it was written. ``key`` is None where it is not one picture's."""

    key: str | None
    file: str
    check: Check
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyResult:
    """What was looked at and what was wrong.

    ``failures`` holds the first ``MAX_FAILURES`` of ``failed``, ``keep`` the first ``MAX_KEPT`` sources that must not
    be deleted, by key; ``keep_counts`` counts all of them by reason.
    """

    snapshot: int | None
    pictures: int
    compressed: int
    packed: int
    stored: int
    files: int
    """Files whose presence and size were checked."""
    bytes_read: int
    pixels: int
    pixels_differ: int
    """Pictures whose symbols are right but whose pixels are not bit for bit those of the writer; advisory."""
    sources_compared: int
    sources_missing: int
    sources_changed: int
    sources_not_archived: int
    """Sources that the archive has no picture of, though it did not find them to be none: quarantined or new."""
    sources_skipped: int
    """Sources that are in the archive only as names of what was no picture."""
    sources_unreadable: int
    """Sources of pictures that could not be read now."""
    keep: tuple[Kept, ...]
    keep_counts: Mapping[str, int]
    failed: int
    failures: tuple[Failure, ...]

    @property
    def ok(self) -> bool:
        return self.failed == 0

    @property
    def exit_code(self) -> int:
        """4 when something failed, 1 when there is nothing in the archive, 3 when sources must be kept, else 0."""
        if not self.ok:
            return 4
        if self.pictures == 0:
            return 1
        return 3 if self.keep_counts else 0

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"ok": self.ok, "exit_code": self.exit_code, **dataclasses.asdict(self)}


def verify_archive(
    archive: Archive,
    patterns: Sequence[str] = (),
    *,
    source: str | Sequence[str] | None = None,
    source_options: Mapping[str, Any] | None = None,
    tolerance: float = defaults.TOLERANCE,
    lanes: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> VerifyResult:
    """Verify all pictures of a snapshot, or those that keys and globs choose (``select``).

    Without patterns the snapshot's files are checked too: payload files and index parts by size, index files by
    SHA-256. ``source`` (what the archive was made from) has its pictures compared again: PSNR at most ``tolerance``
    dB below the recorded one. A source that has changed since or is not in the archive is no failure, but named as
    one to keep; one that is gone is counted; and it is a failure if no picture at all has its source there.
    Pictures are decoded and checked in ``lanes`` (``unpack``). ``progress`` is called with numbers of pictures.
    Whatever is wrong with the archive ends up in the result; raises ``UsageError`` for patterns or sources that do not
    exist, and ``StoreError`` only where nothing can be read.
    """
    run = _Verification(archive, tolerance)
    if source is not None:
        run.originals = Originals(archive, source, source_options)
    if patterns:
        batches = select(archive, patterns)
    else:
        run.check_files()
        batches = run.all_rows()
    for batch in batches:
        rows = sorted(batch, key=lambda row: (row.shard, row.offset))
        for checked in unpack(archive, rows, run.check, lanes=lanes):
            if progress is not None:
                progress(len(checked))
    if run.originals is not None:
        run.check_originals(run.originals, everything=not patterns)
    return run.result()


class _Verification:
    """Counts and failures of one run. ``check`` is called from several threads, on different pictures."""

    def __init__(self, archive: Archive, tolerance: float) -> None:
        self.archive, self.tolerance = archive, tolerance
        self.originals: Originals | None = None
        self.failures: list[Failure] = []
        self.counts = dict.fromkeys(_COUNTS, 0)
        self._lock = threading.Lock()

    def result(self) -> VerifyResult:
        snapshot = self.archive.snapshot
        self.failures.sort(key=lambda failure: (failure.key is not None, failure.key or failure.file))
        originals = self.originals
        kept = {} if originals is None else originals.counts()
        return VerifyResult(
            snapshot=None if snapshot is None else snapshot.number,
            **self.counts,
            sources_compared=0 if originals is None else originals.compared,
            sources_missing=0 if originals is None else originals.missing,
            sources_changed=kept.get("changed", 0),
            sources_not_archived=kept.get("not in the archive", 0) + kept.get("quarantined", 0),
            sources_skipped=kept.get("only skipped", 0),
            sources_unreadable=kept.get("could not be read now", 0),
            keep=() if originals is None else tuple(originals.kept[:MAX_KEPT]),
            keep_counts=kept,
            failed=len(self.failures),
            failures=tuple(self.failures[:MAX_FAILURES]),
        )

    # --- files ---

    def check_files(self) -> None:
        """Sizes of all that the snapshot names, digests of all indexes, and whether it is the newest there was."""
        snapshot = self.archive.snapshot
        # An older snapshot, asked for while the newest is there, is complete without the jobs that came later.
        if (0 if snapshot is None else snapshot.number) == max(snapshot_numbers(self.archive.store), default=0):
            try:
                check_jobs(self.archive.store)
            except ArchiveError as error:
                self._fail(None, layout.SNAPSHOTS, "file", str(error))
        if snapshot is None:
            return
        try:
            payloads = read_payloads(self.archive.store, snapshot)
        except ArchiveError as error:
            self._fail(None, layout.SNAPSHOTS, "file", str(error))
            payloads = ()
        for payload in payloads:
            self._check_size(layout.shard_path(payload.record.file), payload.record.size)
        self._check_parts(snapshot, payloads)
        for digest, files in snapshot.codecs.items():
            for extension, size in files.items():
                self._check_size(layout.codec_path(digest, extension), size)
        listed = () if snapshot.payload_list is None else (snapshot.payload_list,)
        for record in (*(part.record for part in snapshot.index), *listed):
            self._check_whole(layout.snapshot_file_path(record.file), record.size, record.sha256, "the snapshot")

    def _check_parts(self, snapshot: Snapshot, payloads: Sequence[PayloadFile]) -> None:
        """The index parts beside the payload files, from which a lost snapshot is made again."""
        stated: dict[str, FileRecord] = {}
        for job in snapshot.jobs:
            try:
                commits = list_commits(self.archive.store, job).values()
            except ArchiveError as error:
                self._fail(None, layout.COMMITS, "file", str(error))
                continue
            stated |= {one.payload.file: one.index for one in commits if isinstance(one, ShardCommit)}
        for payload in payloads:
            path = layout.shard_path(payload.record.file).removesuffix(".bin") + ".parquet"
            record = stated.get(payload.record.file)
            self._check_whole(path, payload.index_size, None if record is None else record.sha256, "its commit")

    def _check_whole(self, path: str, size: int, sha256: str | None, by: str) -> None:
        """A file's size, and its digest where somebody states it."""
        if not self._check_size(path, size) or sha256 is None:
            return
        try:
            if stored_sha256(self.archive.store, path, size) != sha256:
                self._fail(None, path, "index", f"its SHA-256 is not the one that {by} states")
        except ArchiveError as error:
            self._fail(None, path, "index", str(error))

    def _check_size(self, path: str, size: int) -> bool:
        self._add("files")
        try:
            found = self.archive.store.size(path)
        except ArchiveError as error:
            self._fail(None, path, "file", str(error))
            return False
        if (wrong := wrong_size(found, size)) is not None:
            self._fail(None, path, "file", wrong)
        return found == size

    def all_rows(self) -> Iterator[list[IndexRow]]:
        """Every row that can be read; a damaged row group does not hide the others."""
        snapshot = self.archive.snapshot
        sizes = PayloadSizes(self.archive.store, snapshot)
        for part in () if snapshot is None else snapshot.index:
            path = layout.snapshot_file_path(part.record.file)
            try:
                file = open_part(self.archive.store, part, sizes)
            except ArchiveError as error:
                self._fail(None, path, "index", str(error))
                continue
            for group in range(file.groups):
                try:
                    rows = to_rows(file.read(group))
                except ArchiveError as error:
                    self._fail(None, path, "index", str(error))
                    continue
                yield rows

    def check_originals(self, originals: Originals, *, everything: bool) -> None:
        """What the sources have beyond the pictures that were checked, and those whose pictures are not good."""
        if everything:
            originals.add_others()
        originals.damage(failure.key for failure in self.failures if failure.key is not None)
        if originals.strange:
            message = "no picture has a source of its key there; name what the archive was made from"
            self._fail(None, "sources", "source", message)

    # --- pictures ---

    def check(self, item: Unpacked[IndexRow]) -> None:
        """Everything about one picture that was read and decoded."""
        row = item.place
        if self.originals is not None:
            self.originals.see(row.key)
        self._add("pictures")
        self._add(row.status)
        self._add("bytes_read", row.length + (row.side_length or 0))
        if item.decoded is not None:
            self._add("pixels", (row.width or 0) * (row.height or 0))
        if item.error is not None:
            self._fail(row.key, row.shard, "payload", str(item.error))
        elif item.decoded is None:
            self._check_original(row, item.payload)
        else:
            self._check_decoded(item)

    def _check_original(self, row: IndexRow, payload: bytes) -> None:
        if len(payload) != row.source_bytes or hashlib.sha256(payload).digest() != row.source_sha256:
            self._fail(row.key, row.shard, "original", "the original file is not the source: its SHA-256 differs")
        elif self.originals is not None:
            self.originals.read(row)

    def _check_decoded(self, item: Unpacked[IndexRow]) -> None:
        row, decoded = item.place, item.decoded
        assert decoded is not None
        if row.symbols_digest is None:
            return self._fail(row.key, row.shard, "symbols", "the index has no digest to compare with")
        if decoded.symbols != row.symbols_digest:
            return self._fail(row.key, row.shard, "symbols", "the decoded symbols are not those that were encoded")
        try:
            to_pil(decoded.pixels, row.mode or "", item.side)
        except ArchiveError as error:
            return self._fail(row.key, row.shard, "payload", str(error))
        if row.pixels_digest is not None and symbol_digest(decoded.pixels) != row.pixels_digest:
            self._add("pixels_differ")
        if self.originals is not None and (data := self.originals.read(row)) is not None:
            self._compare(item, data)
        return None

    def _compare(self, item: Unpacked[IndexRow], data: bytes) -> None:
        row, decoded = item.place, item.decoded
        assert decoded is not None
        try:
            picture = read_picture(data, name=row.key)
            found = measure(picture.pixels, decoded.pixels, picture.mode, with_ms_ssim=False)
        except LichenError as error:
            return self._fail(row.key, row.shard, "source", f"cannot be compared with its source: {error}")
        if picture.mode != row.mode:
            return self._fail(row.key, row.shard, "source", f"is of mode {row.mode}, its source of {picture.mode}")
        if row.psnr is not None and not found.psnr >= min(row.psnr, EXACT) - self.tolerance:
            message = f"PSNR against the source is {found.psnr:.3f} dB, recorded were {row.psnr:.3f}"
            return self._fail(row.key, row.shard, "source", message)
        for name in ("exif", "icc", "xmp", "blocks"):
            if getattr(picture, name) != getattr(item.side, name):
                return self._fail(row.key, row.shard, "source", f"its {name.upper()} is not the source's")
        kept, original = (None if alpha is None else alpha.tobytes() for alpha in (item.side.alpha, picture.alpha))
        if kept != original:
            return self._fail(row.key, row.shard, "source", "its alpha plane is not the source's")
        return None

    def _add(self, name: str, more: int = 1) -> None:
        with self._lock:
            self.counts[name] += more

    def _fail(self, key: str | None, file: str, check: Check, message: str) -> None:
        self.failures.append(Failure(key=key, file=file, check=check, message=message))
