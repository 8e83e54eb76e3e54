"""What driver and workers say to each other. Plain data, pickled to other processes; imports neither torch nor Ray."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from lichen.pipeline import logs
from lichen.pipeline.archive.commit import ShardCommit
from lichen.pipeline.archive.manifest import Json
from lichen.pipeline.engine.config import CodecConfig, JobConfig, QualityConfig, SourceConfig
from lichen.pipeline.sources import Source

STAGES = ("read", "open", "encode", "decode", "measure", "pack", "write")
"""Where a worker's threads spend their time: reading sources, decoding picture files, the codec in both directions,
comparing pixels, packing originals, and spooling and reading back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """What every worker of a job is told once: the parts of the configuration that concern it. Pickled."""

    archive: str
    archive_options: Mapping[str, Any]
    codec: CodecConfig
    quality: QualityConfig
    sources: SourceConfig
    lanes: int | None
    cpus: int | None
    """Cores that this worker may use; None for all of the process."""
    log_level: int
    """Least level of the records that it sends to the driver."""

    @classmethod
    def of(cls, config: JobConfig, *, cpus: int | None = None) -> WorkerConfig:
        """The part of a job's configuration that its workers need."""
        return cls(
            archive=config.archive,
            archive_options=config.archive_options,
            codec=config.codec,
            quality=config.quality,
            sources=config.sources,
            lanes=config.engine.lanes,
            cpus=cpus,
            log_level=logs.level(),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardTask:
    """One attempt at one shard."""

    shard: str
    attempt: str
    sources: tuple[Source, ...]
    solo: bool = False
    """Nothing else may be in flight on its worker: it may be what kills workers."""
    store_only: bool = False
    """Store the bytes without looking at them: for the picture that kills its worker."""
    conditional: bool = True
    """Whether the store's ``create`` is atomic: then workers commit, otherwise the driver does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """What was done to some pictures. Adds up."""

    compressed: int = 0
    packed: int = 0
    stored: int = 0
    quarantined: int = 0
    skipped: int = 0
    source_bytes: int = 0
    """Of what was compressed, packed or stored, as is ``payload_bytes`` (side data included) and ``pixels``."""
    payload_bytes: int = 0
    pixels: int = 0
    compressed_bytes: int = 0
    """Payload bytes of compressed pictures alone, for bpp with ``compressed_pixels``."""
    compressed_pixels: int = 0
    retries: int = 0
    """Encodings that were repeated at another quality."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Thread seconds by stage (``STAGES``)."""

    def __add__(self, other: Counts) -> Counts:
        sums = {name: getattr(self, name) + getattr(other, name) for name in _COUNTERS}
        stages = self.seconds.keys() | other.seconds.keys()
        seconds = {name: self.seconds.get(name, 0.0) + other.seconds.get(name, 0.0) for name in stages}
        return Counts(**sums, seconds=seconds)

    @property
    def sources(self) -> int:
        """Sources that are done with, however they ended."""
        return self.compressed + self.packed + self.stored + self.quarantined + self.skipped

    @property
    def bpp(self) -> float | None:
        """Bits per pixel of the compressed pictures, side data included."""
        return self.compressed_bytes * 8 / self.compressed_pixels if self.compressed_pixels else None

    @property
    def savings(self) -> float:
        """1 - payload bytes / source bytes, without index and codec; 0 before the first picture."""
        return 1 - self.payload_bytes / self.source_bytes if self.source_bytes else 0.0

    def to_json(self) -> dict[str, Json]:
        """For the summary of a commit and for ``progress.json``."""
        values: dict[str, Json] = {name: getattr(self, name) for name in _COUNTERS}
        return {**values, "seconds": {name: round(self.seconds[name], 3) for name in sorted(self.seconds)}}

    @classmethod
    def of_commit(cls, commit: ShardCommit) -> Counts:
        """From a committed shard, whichever driver saw it: its totals and the engine's summary."""
        totals, notes = commit.totals, commit.summary
        extras = {name: value for name in _NOTED if isinstance(value := notes.get(name), int)}
        seconds = notes.get("seconds")
        return cls(
            compressed=totals["compressed"],
            packed=totals["packed"],
            stored=totals["stored"],
            quarantined=commit.quarantine.rows if commit.quarantine else 0,
            skipped=commit.skipped.rows if commit.skipped else 0,
            source_bytes=totals["source_bytes"],
            payload_bytes=totals["payload_bytes"],
            pixels=totals["pixels"],
            seconds=dict(seconds) if isinstance(seconds, dict) else {},
            **extras,
        )


_COUNTERS = tuple(field.name for field in fields(Counts) if field.name != "seconds")
_NOTED = ("compressed_bytes", "compressed_pixels", "retries")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardResult:
    """A finished attempt. ``committed`` is None where the driver has to commit."""

    commit: ShardCommit
    committed: bool | None
    """False if another attempt, or a split, was first."""
    hung: int = 0
    """Calls in the worker that were given up and still run: it should be replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecFiles:
    """The decoder of a codec as a worker loaded it, on its way into the archive. Empty for a job without one."""

    digest: str
    files: Mapping[str, bytes]
    """Content by extension."""
    others: tuple[CodecFiles, ...] = ()
    """Decoders of the codecs that pictures may get instead, with ``--codec auto``."""

    @property
    def all(self) -> tuple[CodecFiles, ...]:
        """This one and the others; none where nothing is lost."""
        return (self, *self.others) if self.files else ()

    def decoder_files(self) -> Mapping[str, bytes]:
        """What ``put_codec`` asks for."""
        return self.files
