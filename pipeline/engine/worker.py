"""One worker: runs attempts at shards, from source bytes to a published, committed shard.

Threads read and open pictures ahead (``feed``). A number of lanes, one for each core on a CPU, take groups of
them through the codec and back, compare, and append to the spool file; so while one lane waits for a GPU, others
code entropy and measure. Publishing a shard overlaps with the work on the next one.

What is verified: the decoded payload (symbols, size, quality, side data) before it is appended; the appended bytes
read back from the spool file, with their CRC; the whole uploaded object against the spool file (``ShardWriter``).
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, wait
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np

from lichen import defaults
from lichen.errors import (
    CommitConflict,
    DamagedPicture,
    JobInterrupted,
    NotAPicture,
    PictureTimeout,
    SourceUnreadable,
    UsageError,
)
from lichen.models.codec import Codec
from lichen.pipeline import formats
from lichen.pipeline.archive.commit import commit_shard
from lichen.pipeline.archive.index import IndexRow
from lichen.pipeline.archive.layout import MARKER
from lichen.pipeline.archive.shard import Location, ShardWriter, crc32c
from lichen.pipeline.archive.store import LocalStore, open_store
from lichen.pipeline.closing import Closing
from lichen.pipeline.engine.choice import Choice
from lichen.pipeline.engine.compress import (
    LOSSLESS,
    NOT_LOOKED_AT,
    SMALLER,
    Compressed,
    Compressor,
    Kept,
    Stopwatch,
    check_written,
)
from lichen.pipeline.engine.feed import Feed, Item
from lichen.pipeline.engine.flatness import FlatMaps
from lichen.pipeline.engine.look import look_at
from lichen.pipeline.engine.messages import CodecFiles, Counts, ShardResult, ShardTask, WorkerConfig
from lichen.pipeline.engine.patience import Patience
from lichen.pipeline.lanes import LARGE_PIXELS, Lanes, group_pixels
from lichen.pipeline.logs import Log
from lichen.pipeline.packing import Packed, pack
from lichen.pipeline.quality import measure

Observer = Callable[[str, Counts], None]
"""Called with the attempt and what was added to it, after every group, from any thread."""

log = Log(__name__)
GROUP_PICTURES = 128
RIVALRY = 0.7
"""Part of its file from which on a compressed picture is held against the file packed without loss, which is better
where it is no larger. JPEGs rarely lose more than a quarter without loss."""


class Worker(Closing):
    """A loaded codec and an open archive. ``run`` may be called from two threads at once.

    As a context manager it gives torch its threads back. A job without loss needs no codec, and loads none.
    """

    def __init__(self, config: WorkerConfig) -> None:
        self.config = config
        self.store = open_store(config.archive, config.archive_options)
        loaded = _load(config)
        self.codec: Codec | None = loaded[0] if loaded else None
        self._codecs: dict[str, Codec] = {codec.digest: codec for codec in loaded}
        self.lanes = Lanes(loaded[:1], count=config.lanes, cpus=config.cpus)
        self.patience = Patience(config.sources.picture_timeout)
        effort = config.codec.effort
        shares = config.quality.shares(effort)
        self._target = config.quality.target
        rules: dict[str, Any] = {"target": self._target, "shares": shares, "effort": effort}
        self._compressor: Compressor | Choice | None = None
        if loaded:
            first, *rivals = loaded
            self._compressor = Choice(first, rivals, **rules) if rivals else Compressor(first, **rules)
        self._turn = threading.Lock()
        self._stop = threading.Event()
        self.lanes.begin()
        self._warm_up()
        codecs = ", ".join(codec.name for codec in loaded) or "none"
        log.info("worker loaded, codecs %s, %d lanes", codecs, self.lanes.count)

    def close(self) -> None:
        """Stop what is running (``JobInterrupted`` in its threads) and restore torch's threads."""
        self._stop.set()
        self.patience.close()
        self.lanes.close()

    def _warm_up(self) -> None:
        """Load or compile every kernel now, not while all lanes wait for it."""
        if self.codec is None:
            return
        picture = np.full((192, 192, 3), 128, np.uint8)
        encoded = self.codec.encode([picture], self._target.start, effort=self.config.codec.effort)
        decoded = self.codec.decode([encoded[0].bitstream])
        FlatMaps(picture).side(b"", 0, decoded[0].pixels)
        look_at(picture)
        measure(picture, decoded[0].pixels)

    def codec_files(self) -> CodecFiles:
        """The decoder as it goes into the archive, and those of the codecs beside it."""
        if not self._codecs:
            return CodecFiles(digest="", files={})
        first, *rivals = (
            CodecFiles(digest=digest, files=codec.decoder_files()) for digest, codec in self._codecs.items()
        )
        return replace(first, others=tuple(rivals))

    def run(self, task: ShardTask, digest: str, observe: Observer) -> ShardResult:
        """Make one attempt at a shard, and commit it where workers commit (``conditional``).

        ``digest`` is the codec of the job. Raises ``UsageError`` if this worker's is another, ``StoreError`` and
        ``VerificationFailed`` if the archive cannot be written, ``JobInterrupted`` after ``close``.
        """
        own = "" if self.codec is None else self.codec.digest
        if digest != own:
            raise UsageError(
                f"codec {self.config.codec.name!r} is {own[:12]} here, but the job uses {digest[:12]}; "
                "install the same version of lichen everywhere"
            )
        if isinstance(self.store, LocalStore) and not self.store.exists(MARKER):
            raise UsageError(
                f"{self.store.url} is no archive on {socket.gethostname()}; "
                "on a cluster, use a folder that all nodes share"
            )
        with ShardWriter(self.store, task.shard, attempt=task.attempt) as writer:
            with self._turn:
                counts = _Attempt(self, writer, task, observe).fill()
            commit = writer.publish(
                {digest: tuple(sorted(codec.decoder_files())) for digest, codec in self._codecs.items()},
                {
                    "compressed_bytes": counts.compressed_bytes,
                    "compressed_pixels": counts.compressed_pixels,
                    "retries": counts.retries,
                    "seconds": {name: round(value, 3) for name, value in counts.seconds.items()},
                    "lanes": self.lanes.count,
                },
            )
        committed: bool | None = None
        if task.conditional:
            try:
                commit_shard(self.store, commit)
                committed = True
            except CommitConflict:
                committed = False
        return ShardResult(commit=commit, committed=committed, hung=self.patience.abandoned)

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def compress(self, items: Sequence[Item], watch: Stopwatch) -> Sequence[Compressed | Kept]:
        """One outcome for each opened picture."""
        if self._compressor is None:
            return [Kept(reason=LOSSLESS)] * len(items)
        return self._compressor.compress(items, watch)

    def pack(self, item: Item, kept: Kept) -> Packed | None:
        """An original in fewer bytes; None where it stays as it is, and for what must not be looked at again."""
        if self.config.quality.store_plain or kept.reason == NOT_LOOKED_AT or isinstance(item.failure, PictureTimeout):
            return None
        try:  # large pictures are in a turn alone here, if they were opened
            return self.patience.call(partial(pack, item.data, max_pixels=max(item.pixels, LARGE_PIXELS)))
        except TimeoutError:
            return None

    def feed(self, task: ShardTask) -> Feed:
        """The pictures of a shard, opened ahead of the lanes."""
        return Feed(
            task.sources,
            options=self.config.sources.options,
            openers=self.lanes.cpus,
            group_pictures=GROUP_PICTURES,
            group_pixels=group_pixels(self.codec),
            patience=self.patience,
            max_bytes=self.config.sources.max_source_bytes,
            store_only=task.store_only,
        )


class _Attempt:
    """The lanes of one attempt, filling one shard."""

    def __init__(self, worker: Worker, writer: ShardWriter, task: ShardTask, observe: Observer) -> None:
        self._worker, self._writer, self._task, self._observe = worker, writer, task, observe
        self._where = {"shard": task.shard, "attempt": task.attempt}
        self._failed = threading.Event()
        self._lock = threading.Lock()
        self._counts = Counts()

    def fill(self) -> Counts:
        """Bring every source into the shard, one way or the other."""
        lanes = self._worker.lanes
        with self._worker.feed(self._task) as feed, lanes.pool() as pool:
            futures = [pool.submit(self._lane, feed) for _ in range(lanes.count)]
            done, _ = wait(futures, return_when=FIRST_EXCEPTION)
            if any(future.exception() for future in done):
                self._failed.set()
        for future in futures:
            future.result()
        return self._counts

    def _lane(self, feed: Feed) -> None:
        while not self._failed.is_set() and (group := feed.next_group()):
            if self._worker.stopped:
                raise JobInterrupted(f"stopped in the middle of shard {self._task.shard}")
            watch = Stopwatch()
            with self._worker.lanes.turn(alone=group[0].alone):
                if group[0].alone:
                    feed.open_alone(group[0])
                counts = self._work(group, watch)
            for item in group:
                watch.seconds["read"] += item.read_seconds
                watch.seconds["open"] += item.open_seconds
            counts += Counts(seconds=watch.seconds)
            with self._lock:
                self._counts += counts
            self._observe(self._task.attempt, counts)

    def _work(self, group: list[Item], watch: Stopwatch) -> Counts:
        opened = [item for item in group if item.picture is not None]
        outcomes = self._worker.compress(opened, watch) if opened else []
        counts = Counts()
        for item, outcome in zip(opened, outcomes, strict=True):
            if isinstance(outcome, Kept):
                counts += self._add_original(item, outcome, watch)
            elif (packed := self._rival(item, outcome, watch)) is not None:
                counts += self._add(item, Kept(reason=SMALLER, retries=outcome.retries), packed, watch)
            else:
                with watch.stage("write"):
                    counts += self._add_compressed(item, outcome)
        for item in group:
            if item.picture is None:
                counts += self._add_unopened(item, watch)
        return counts

    # --- rows ---

    def _append(self, key: str, payload: bytes, side: bytes = b"") -> Location:
        location = self._writer.append(payload, side)
        back = self._writer.read(location.offset, len(payload) + len(side))
        written, extra = back[: len(payload)], back[len(payload) :]
        check_written(written, payload, location.crc32c, crc32c(written), key)
        check_written(extra, side, location.side_crc32c or 0, crc32c(extra), key)
        return location

    def _add_compressed(self, item: Item, outcome: Compressed) -> Counts:
        assert item.picture is not None and self._worker.codec is not None
        location = self._append(item.source.key, outcome.payload, outcome.side)
        size = outcome.size
        self._writer.add(
            IndexRow(
                status="compressed",
                codec=outcome.codec,
                quality=outcome.quality,
                bpp=size * 8 / item.pixels,
                psnr=outcome.measured.psnr,
                ms_ssim=outcome.measured.ms_ssim,
                block_psnr=outcome.measured.block_psnr,
                ssimulacra2=outcome.measured.ssimulacra2,
                symbols_digest=outcome.symbols,
                pixels_digest=outcome.pixels,
                **_picture_columns(item),
                **_source_columns(item),
                **location.columns(),
            )
        )
        return Counts(
            compressed=1,
            source_bytes=len(item.data),
            payload_bytes=size,
            pixels=item.pixels,
            compressed_bytes=size,
            compressed_pixels=item.pixels,
            retries=outcome.retries,
        )

    def _add_original(self, item: Item, kept: Kept, watch: Stopwatch) -> Counts:
        """The file itself, packed if that saves bytes."""
        with watch.stage("pack"):
            packed = self._worker.pack(item, kept)
        return self._add(item, kept, packed, watch)

    def _rival(self, item: Item, outcome: Compressed, watch: Stopwatch) -> Packed | None:
        """The file itself, packed, where that takes no more bytes than the compressed picture."""
        size = len(outcome.payload) + len(outcome.side)
        if size < RIVALRY * len(item.data):
            return None
        with watch.stage("pack"):
            packed = self._worker.pack(item, Kept(reason=SMALLER))
        return packed if packed is not None and len(packed.payload) <= size else None

    def _add(self, item: Item, kept: Kept, packed: Packed | None, watch: Stopwatch) -> Counts:
        kind: Literal["packed", "stored"] = "stored" if packed is None else "packed"
        log.debug("picture kept as its file, %s: %s", kind, kept.reason, key=item.source.key, **self._where)
        payload = item.data if packed is None else packed.payload
        with watch.stage("write"):
            location = self._append(item.source.key, payload)
            self._writer.add(
                IndexRow(
                    status=kind,
                    packing=None if packed is None else packed.packing,
                    reason=kept.reason,
                    **_picture_columns(item),
                    **_source_columns(item),
                    **location.columns(),
                )
            )
        return Counts(
            packed=int(packed is not None),
            stored=int(packed is None),
            source_bytes=len(item.data),
            payload_bytes=len(payload),
            pixels=item.pixels,
            retries=kept.retries,
        )

    def _add_unopened(self, item: Item, watch: Stopwatch) -> Counts:
        source, failure = item.source, item.failure
        known: dict[str, Any] = {"size": source.size, "mtime": source.mtime, "etag": source.etag}
        if failure is None:
            return self._add_original(item, Kept(reason=NOT_LOOKED_AT), watch)
        if isinstance(failure, SourceUnreadable | UsageError):
            log.info("source quarantined: %s", failure, key=source.key, **self._where)
            self._writer.quarantine(source.key, source.uri, failure, **known)
            return Counts(quarantined=1)
        if isinstance(failure, NotAPicture) and not self._worker.config.sources.store_others:
            log.debug("left out: %s", failure, key=source.key, **self._where)
            self._writer.skip(source.key, source.uri, str(failure), **known)
            return Counts(skipped=1)
        return self._add_original(item, Kept(reason=str(failure)), watch)


def _load(config: WorkerConfig) -> list[Codec]:
    """The codecs of a job, the one that pictures get by default first; none where nothing is lost."""
    from lichen.models.registry import load_codec

    if config.quality.lossless:
        return []
    codec = config.codec
    names = defaults.CHOICE if codec.name == defaults.AUTO else (codec.name,)
    return [load_codec(name, device=codec.device, precision=codec.precision) for name in names]


def _source_columns(item: Item) -> dict[str, Any]:
    source = item.source
    return {
        "key": source.key,
        "source_bytes": len(item.data),
        "source_sha256": item.sha256,
        "source_mtime": source.mtime,
        "source_etag": source.etag,
    }


def _picture_columns(item: Item) -> dict[str, Any]:
    """What is known of a picture: all of one that was opened, its format of another."""
    if item.picture is None:
        damaged = True if isinstance(item.failure, DamagedPicture) else None
        return {"source_format": formats.sniff(item.data), "damaged": damaged}
    height, width = item.picture.pixels.shape[:2]
    return {
        "width": width,
        "height": height,
        "mode": item.picture.mode,
        "bit_depth": item.picture.bit_depth,
        "source_format": item.picture.source_format,
        "damaged": False,
    }
