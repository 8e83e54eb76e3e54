"""What a job is told, what its workers are told, and what comes back. Plain data; imports neither torch nor Ray."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from lichen import defaults
from lichen.errors import UsageError
from lichen.models.codec import check_effort
from lichen.pipeline.archive.commit import ShardCommit
from lichen.pipeline.archive.manifest import Json
from lichen.pipeline.sources import MAX_SOURCE_BYTES, Source
from lichen.pipeline.sources.base import is_local, local_path
from lichen.pipeline.sources.secrets import without_secrets
from lichen.pipeline.sources.unique import OnDuplicate
from lichen.pipeline.target import Floors, Target

OnCollision = Literal["error", "replace", "keep"]
ExecutorName = Literal["auto", "process", "ray", "local"]

_SHARES = {1: 1 / 16, 2: 1 / 4}
SHARD_BYTES = 256 * 1024 * 1024
LOOKS = (
    "codec", "quality", "effort", "min_psnr", "min_ms_ssim", "min_ssimulacra2", "target_bpp", "psnr_floor",
    "block_psnr_floor", "lossless", "store_plain",
)  # fmt: skip
"""Frozen settings that decide what becomes of a picture."""
BEFORE: Mapping[str, Json] = {"lossless": False, "store_plain": True}
"""What jobs of versions that did not know a setting did, and do not say."""
STAGES = ("read", "open", "encode", "decode", "measure", "pack", "write")
"""Where a worker's threads spend their time: reading sources, decoding picture files, the codec in both directions,
comparing pixels, packing originals, and spooling and reading back."""


_AT_LEAST_ONE = (
    "shard_bytes", "shard_pictures", "attempts", "workers", "cpus_per_worker", "lanes", "max_source_bytes",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Parts of the pictures, 0 to 1, that a measure is taken of; a picture's key decides whether it is among them."""

    ms_ssim: float
    ssimulacra2: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobConfig:
    """One compression job. Everything after ``archive`` has a default that suits a folder of photographs."""

    source: str | tuple[str, ...]
    """Folders, bucket prefixes, tar files, manifests or single files."""
    archive: str
    """Local path or any fsspec URL."""
    codec: str = defaults.AUTO
    quality: float = defaults.QUALITY
    effort: int = defaults.EFFORT
    """1 to 9: the encoder's time, for fewer bytes at the same quality; decoding does not change."""
    min_psnr: float | None = None
    """dB: gives every picture the lowest quality that reaches it, instead of ``quality``."""
    min_ms_ssim: float | None = None
    """The same for MS-SSIM, 0 to 1. Pictures too small for it are stored."""
    min_ssimulacra2: float | None = None
    """The same for SSIMULACRA 2, at most 100. Pictures too small for it are stored."""
    target_bpp: float | None = None
    """Bits per pixel: gives every picture the highest quality whose payload has no more, instead of ``quality``."""
    psnr_floor: float = 30.0
    """dB over the whole picture; see ``target.Floors``. Gives way to ``min_psnr``."""
    block_psnr_floor: float = 24.0
    """dB in the worst 64x64 block."""
    ms_ssim: float | None = None
    """Share of the pictures whose MS-SSIM is measured, chosen by their keys; by default all, below effort 3 fewer."""
    ssimulacra2: float | None = None
    """The same for SSIMULACRA 2."""
    lossless: bool = False
    """Keep every picture as the file that it is, packed. No codec is loaded, and none is in the archive."""
    store_plain: bool = False
    """Store what is kept as it came byte for byte, instead of packing it without loss."""
    store_others: bool = False
    """Store files that are no pictures, instead of naming them."""
    hidden: bool = False
    on_duplicate: OnDuplicate = "error"
    """Of two sources with one key. ``error`` lists all sources once before the job starts; the others do not."""
    on_collision: OnCollision = "error"
    """Of a key that the archive has from another source: refuse the job, replace the picture, or keep it."""
    abandon: bool = False
    """Give up unfinished jobs of the same source that were begun with other settings, instead of refusing."""
    shard_bytes: int | None = None
    """Bytes of sources in a shard; by default 256 MiB, and less where a small job has to feed several workers."""
    shard_pictures: int = 16_384
    attempts: int = 3
    """Attempts at a shard that fails with an error before the job fails."""
    picture_timeout: float = 120.0
    """Seconds that reading one source, or decoding one picture file, may take."""
    max_source_bytes: int = MAX_SOURCE_BYTES
    """Larger sources are not read."""

    executor: ExecutorName = "auto"
    """``process`` is one worker process on this machine, ``ray`` any number of them anywhere, ``local`` this process.
    ``auto`` takes Ray where there is something for it to do (``lichen.pipeline.engine.executors.choose``)."""
    address: str | None = None
    """Of a Ray cluster; ``local`` starts Ray on this machine."""
    workers: int | None = None
    gpus_per_worker: float | None = None
    """By default 1 where Ray has GPUs and ``device`` is not ``cpu``, else 0. Fractions share a GPU."""
    cpus_per_worker: int | None = None
    """By default the cores of a node, divided among the workers that its GPUs allow."""
    lanes: int | None = None
    """Batches that a worker has in the codec at once: by default its cores, on a GPU 2 to 8."""
    device: str = "auto"
    precision: str = "auto"
    source_options: Mapping[str, Any] = field(default_factory=dict)
    """fsspec storage options. Handed to the workers, never written into the archive."""
    archive_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 1 <= self.quality <= 100:
            raise UsageError(f"quality must be 1 to 100, not {self.quality}")
        for name in ("ms_ssim", "ssimulacra2"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise UsageError(f"{name} is a share from 0 to 1, not {share}")
        check_effort(self.effort)
        if self.min_ms_ssim is not None and not 0 <= self.min_ms_ssim < 1:
            raise UsageError(f"min_ms_ssim is 0 to 1, 1 excluded, not {self.min_ms_ssim}")
        if self.min_ssimulacra2 is not None and not 0 <= self.min_ssimulacra2 < 100:
            raise UsageError(f"min_ssimulacra2 is 0 to 100, 100 excluded, not {self.min_ssimulacra2}")
        if self.min_psnr is not None and not 0 < self.min_psnr <= 60:
            raise UsageError(f"min_psnr is in dB, above 0 and at most 60, not {self.min_psnr}")
        _ = self.target  # its own checks
        if self.lossless and (self.store_plain or self.target.lowest or self.target.bpp is not None):
            raise UsageError("lossless keeps every picture as the file that it is: leave out wishes, and store_plain")
        if math.isnan(self.psnr_floor) or math.isnan(self.block_psnr_floor):
            raise UsageError("a quality floor must be a number")
        if self.executor not in get_args(ExecutorName):
            raise UsageError(f"executor must be one of {', '.join(get_args(ExecutorName))}, not {self.executor!r}")
        if self.executor in ("process", "local") and self.address is not None:
            raise UsageError("an address is Ray's; leave it out, or leave the executor open")
        if not self.picture_timeout > 0:
            raise UsageError(f"picture_timeout is in seconds, above 0, not {self.picture_timeout}")
        if self.on_collision not in ("error", "replace", "keep"):
            raise UsageError(f"on_collision must be error, replace or keep, not {self.on_collision!r}")
        for name in _AT_LEAST_ONE:
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name} must be at least 1, not {value}")
        gpus = self.gpus_per_worker
        if gpus is not None and (gpus < 0 or (gpus > 1 and gpus != int(gpus))):
            raise UsageError(f"gpus_per_worker must be a whole number or below 1, not {gpus}")
        if not self.sources:
            raise UsageError("a job needs a source")

    @property
    def target(self) -> Target:
        """What is asked of every picture."""
        psnr = self.psnr_floor if self.min_psnr is None else self.min_psnr
        return Target(
            quality=self.quality,
            floors=Floors(
                psnr=psnr,
                block_psnr=self.block_psnr_floor,
                ms_ssim=self.min_ms_ssim,
                ssimulacra2=self.min_ssimulacra2,
            ),
            lowest=any(wish is not None for wish in (self.min_psnr, self.min_ms_ssim, self.min_ssimulacra2)),
            bpp=self.target_bpp,
        )

    @property
    def shares(self) -> Shares:
        """Which part of the pictures is measured by what costs time."""
        usual = _SHARES.get(self.effort, 1.0)
        return Shares(
            ms_ssim=usual if self.ms_ssim is None else self.ms_ssim,
            ssimulacra2=usual if self.ssimulacra2 is None else self.ssimulacra2,
        )

    @property
    def origins(self) -> tuple[str, ...]:
        """The sources to list: local ones as absolute paths. May hold passwords and signatures."""
        names = (self.source,) if isinstance(self.source, str) else tuple(self.source)
        return tuple(os.path.abspath(local_path(name)) if name and is_local(name) else name for name in names)

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources as they are frozen: the same whether a password or signature stands in them, or comes
        from elsewhere."""
        return tuple(without_secrets(name) for name in self.origins)

    def frozen(self, shard_bytes: int) -> dict[str, Json]:
        """What is written into the archive and cannot change while the job lasts. Holds no credentials."""
        return {
            "source": list(self.sources),
            "codec": self.codec,
            "quality": self.quality,
            "psnr_floor": self.psnr_floor,
            "block_psnr_floor": self.block_psnr_floor,
            "effort": self.effort,
            "min_psnr": self.min_psnr,
            "min_ms_ssim": self.min_ms_ssim,
            "min_ssimulacra2": self.min_ssimulacra2,
            "target_bpp": self.target_bpp,
            "ms_ssim": self.shares.ms_ssim,
            "ssimulacra2": self.shares.ssimulacra2,
            "lossless": self.lossless,
            "store_plain": self.store_plain,
            "store_others": self.store_others,
            "hidden": self.hidden,
            "on_duplicate": self.on_duplicate,
            "on_collision": self.on_collision,
            "shard_pictures": self.shard_pictures,
            "shard_bytes": shard_bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerConfig:
    """What every worker of a job is told once. Pickled to other processes."""

    archive: str
    archive_options: Mapping[str, Any]
    source_options: Mapping[str, Any]
    codec: str
    target: Target
    effort: int
    shares: Shares
    lossless: bool
    store_plain: bool
    store_others: bool
    picture_timeout: float
    max_source_bytes: int
    device: str
    precision: str
    lanes: int | None
    cpus: int | None
    """Cores that this worker may use; None for all of the process."""

    @classmethod
    def of(cls, config: JobConfig, *, cpus: int | None = None) -> WorkerConfig:
        """The part of a job's configuration that its workers need."""
        own = {field.name for field in fields(cls)} - {"cpus"}
        values = {name: getattr(config, name) for name in own}
        return cls(cpus=cpus, **values)


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
    """Those that pictures may get instead, with ``--codec auto``."""

    @property
    def all(self) -> tuple[CodecFiles, ...]:
        """This one and the others; none where nothing is lost."""
        return (self, *self.others) if self.files else ()

    def decoder_files(self) -> Mapping[str, bytes]:
        """What ``put_codec`` asks for."""
        return self.files
