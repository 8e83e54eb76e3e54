"""What a job is told: nested configurations, one for each part of the pipeline that uses it.

Each setting has one home here, with its default, its limits and the sentence that the command line shows as its help
(``lichen.settings``). Light: ``lichen --help`` reads this module.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lichen import defaults
from lichen.choices import ExecutorName, OnCollision, OnDuplicate, Precision
from lichen.errors import UsageError
from lichen.settings import check, described, setting

if TYPE_CHECKING:
    from lichen.pipeline.archive.manifest import Json
    from lichen.pipeline.target import Target

_SHARES = {1: 1 / 16, 2: 1 / 4}
SHARD_BYTES = 256 * 1024 * 1024
LOOKS = (
    "codec", "quality", "effort", "min_psnr", "min_ms_ssim", "min_ssimulacra2", "target_bpp", "psnr_floor",
    "block_psnr_floor", "lossless", "store_plain",
)  # fmt: skip
"""Frozen settings that decide what becomes of a picture."""
BEFORE: Mapping[str, Json] = {"lossless": False, "store_plain": True}
"""What jobs of versions that did not know a setting did, and do not say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shares:
    """Parts of the pictures, 0 to 1, that a measure is taken of; a picture's key decides whether it is among them."""

    ms_ssim: float
    ssimulacra2: float


@described
@dataclass(frozen=True, slots=True, kw_only=True)
class CodecConfig:
    """Which codec compresses, how hard it tries, and where its networks run.

    Settings:
    """

    name: str = setting(
        defaults.AUTO,
        "`lichen models` lists them; or the .json of a trained one; or auto: each picture its best one.",
        option="codec",
    )
    effort: int = setting(
        defaults.EFFORT,
        "Time of the encoder, for fewer bytes; decoding is as fast.",
        short="-e",
        at_least=defaults.EFFORTS[0],
        at_most=defaults.EFFORTS[1],
    )
    device: str = setting(defaults.DEVICE, "Where networks run: cpu, cuda, cuda:N or auto.")
    precision: Precision = setting(
        defaults.PRECISION,
        "What the transforms compute in: auto, float32, bfloat16, float16. Entropy coding is always exact.",
    )

    def __post_init__(self) -> None:
        check(self)


@described
@dataclass(frozen=True, slots=True, kw_only=True)
class QualityConfig:
    """What becomes of a picture: the quality that it gets, the floors that it must reach, and how it is kept otherwise.

    With a least quality (``min_psnr``, ``min_ms_ssim``, ``min_ssimulacra2``), or with ``target_bpp``, each picture gets
    a quality of its own instead of ``quality``.

    Settings:
    """

    quality: float = setting(
        defaults.QUALITY,
        "1 to 100; higher is better and larger.",
        short="-q",
        at_least=defaults.QUALITIES[0],
        at_most=defaults.QUALITIES[1],
    )
    min_psnr: float | None = setting(
        None, "dB: every picture at the lowest quality that reaches it, or stored.", above=0, at_most=60
    )
    min_ms_ssim: float | None = setting(
        None, "MS-SSIM, 0 to 1: every picture at the lowest quality that reaches it, or stored.", at_least=0, below=1
    )
    min_ssimulacra2: float | None = setting(
        None,
        "SSIMULACRA 2 that every picture reaches at the lowest quality, or it is stored: 90 visually lossless, "
        "80 no difference side by side, 70 high.",
        at_least=0,
        below=100,
    )
    target_bpp: float | None = setting(
        None, "Bits per pixel: every picture at the highest quality that needs no more.", above=0
    )
    psnr_floor: float = setting(defaults.PSNR_FLOOR, "dB that a picture must reach, or it is stored.")
    block_psnr_floor: float = setting(defaults.BLOCK_PSNR_FLOOR, "dB that its worst 64x64 block must reach.")
    ms_ssim: float | None = setting(
        None, "Share of the pictures whose MS-SSIM is measured. Default: all from effort 3.", at_least=0, at_most=1
    )
    ssimulacra2: float | None = setting(
        None, "Share of the pictures whose SSIMULACRA 2 is measured. Default: all from effort 3.", at_least=0, at_most=1
    )
    lossless: bool = setting(False, "Keep every picture as its file, byte for byte, in fewer bytes.")
    store_plain: bool = setting(False, "Store what the codec does not take as it is, without packing it.")

    def __post_init__(self) -> None:
        check(self)
        if self.lossless and (self.store_plain or self._searched or self.target_bpp is not None):
            raise UsageError("lossless keeps every picture as the file that it is: leave out wishes, and store_plain")
        if self._searched and self.target_bpp is not None:
            raise UsageError("ask for a least quality or for bits per pixel, not for both")
        if not (math.isfinite(self.psnr_floor) and math.isfinite(self.block_psnr_floor)):
            raise UsageError("a quality floor must be a number")

    @property
    def target(self) -> Target:
        """What is asked of every picture."""
        from lichen.pipeline.target import Floors, Target

        psnr = self.psnr_floor if self.min_psnr is None else self.min_psnr
        return Target(
            quality=self.quality,
            floors=Floors(
                psnr=psnr,
                block_psnr=self.block_psnr_floor,
                ms_ssim=self.min_ms_ssim,
                ssimulacra2=self.min_ssimulacra2,
            ),
            lowest=self._searched,
            bpp=self.target_bpp,
        )

    @property
    def _searched(self) -> bool:
        return any(wish is not None for wish in (self.min_psnr, self.min_ms_ssim, self.min_ssimulacra2))

    def shares(self, effort: int) -> Shares:
        """Which part of the pictures is measured by what costs time; the usual one depends on the effort."""
        usual = _SHARES.get(effort, 1.0)
        return Shares(
            ms_ssim=usual if self.ms_ssim is None else self.ms_ssim,
            ssimulacra2=usual if self.ssimulacra2 is None else self.ssimulacra2,
        )


@described
@dataclass(frozen=True, slots=True, kw_only=True)
class SourceConfig:
    """How sources are listed and read, and what becomes of those that have no place.

    Settings:
    """

    store_others: bool = setting(False, "Store files that are no pictures instead of naming them.")
    hidden: bool = setting(False, "Include hidden files and folders.")
    on_duplicate: OnDuplicate = setting(
        "error",
        "What becomes of a second source with the same key. error lists all sources once before the job starts.",
    )
    on_collision: OnCollision = setting("error", "What becomes of a key that the archive has from other sources.")
    picture_timeout: float = setting(
        120.0, "Seconds to read one source, or to decode one: then it is stored undecoded.", above=0
    )
    max_source_bytes: int = setting(
        defaults.SOURCE_BYTES, "Larger sources are not read, but named. Default: 2 GiB.", at_least=1
    )
    options: Mapping[str, Any] = setting(
        {},
        "fsspec options for the store of the sources: a JSON object, or @FILE with one in it. "
        "Never written into the archive.",
        option="source_options",
    )

    def __post_init__(self) -> None:
        check(self)


@described
@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Who works on a job, and in which portions.

    ``process`` is one worker process on this machine, ``ray`` any number of them anywhere, ``local`` this process.
    ``auto`` takes Ray where there is something for it to do (``lichen.pipeline.engine.executors.choose``).

    Settings:
    """

    executor: ExecutorName = setting("auto", "auto, process, ray or local: see above.", cli=False)
    address: str | None = setting(
        None, "Address of a Ray cluster; `local` starts Ray on this machine. Default: a process here."
    )
    workers: int | None = setting(
        None, "How many; more than one take Ray. Default: one for each GPU, or one for each node.", at_least=1
    )
    cpus_per_worker: int | None = setting(
        None, "Cores of each worker. Default: those of a node divided by its workers.", at_least=1
    )
    gpus_per_worker: float | None = setting(
        None,
        "GPUs of each worker; fractions share one. Default: 1 where there are GPUs and the device is not cpu.",
        at_least=0,
    )
    lanes: int | None = setting(
        None,
        "Batches that a worker has in the codec at once. Default: its cores, on a GPU 2 to 8.",
        cli=False,
        at_least=1,
    )
    shard_bytes: int | None = setting(
        None,
        "Megabytes of sources in one shard. Default: 256, less where a small job has to feed several workers.",
        option="shard_megabytes",
        unit=1_000_000,
        at_least=1,
    )
    shard_pictures: int = setting(16_384, "Most sources in one shard.", cli=False, at_least=1)
    attempts: int = setting(3, "Attempts at a shard that fails before the job fails.", cli=False, at_least=1)
    abandon: bool = setting(False, "Give up an unfinished job of these sources with other settings.")

    def __post_init__(self) -> None:
        check(self)
        if self.executor in ("process", "local") and self.address is not None:
            raise UsageError("an address is Ray's; leave it out, or leave the executor open")
        gpus = self.gpus_per_worker
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise UsageError(f"gpus_per_worker must be a whole number or below 1, not {gpus}")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobConfig:
    """One compression job. Everything after ``archive`` has a default that suits a folder of photographs."""

    source: str | tuple[str, ...]
    """Folders, bucket prefixes, tar files, manifests or single files."""
    archive: str
    """Local path or any fsspec URL."""
    codec: CodecConfig = field(default_factory=CodecConfig)
    quality: QualityConfig = field(default_factory=QualityConfig)
    sources: SourceConfig = field(default_factory=SourceConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    archive_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """fsspec options for the store of the archive. Handed to the workers, never written into it."""

    def __repr__(self) -> str:
        """Without the passwords and signatures that may stand in source and archive."""
        from lichen.pipeline.secrets import redact_uri

        sources = (self.source,) if isinstance(self.source, str) else tuple(self.source)
        parts = (self.codec, self.quality, self.sources, self.engine)
        shown = f"source={tuple(map(redact_uri, sources))!r}, archive={redact_uri(self.archive)!r}"
        return f"JobConfig({shown}, {', '.join(map(repr, parts))})"

    def __post_init__(self) -> None:
        if not self.names:
            raise UsageError("a job needs a source")

    @property
    def origins(self) -> tuple[str, ...]:
        """The sources to list: local ones as absolute paths. May hold passwords and signatures."""
        from lichen.pipeline.sources.base import is_local, local_path

        names = (self.source,) if isinstance(self.source, str) else tuple(self.source)
        return tuple(os.path.abspath(local_path(name)) if name and is_local(name) else name for name in names)

    @property
    def names(self) -> tuple[str, ...]:
        """The sources as they are frozen: the same whether a password or signature stands in them, or comes
        from elsewhere."""
        from lichen.pipeline.secrets import without_secrets

        return tuple(without_secrets(name) for name in self.origins)

    def frozen(self, shard_bytes: int) -> dict[str, Json]:
        """What is written into the archive and cannot change while the job lasts. Holds no credentials."""
        quality, shares = self.quality, self.quality.shares(self.codec.effort)
        return {
            "source": list(self.names),
            "codec": self.codec.name,
            "quality": quality.quality,
            "psnr_floor": quality.psnr_floor,
            "block_psnr_floor": quality.block_psnr_floor,
            "effort": self.codec.effort,
            "min_psnr": quality.min_psnr,
            "min_ms_ssim": quality.min_ms_ssim,
            "min_ssimulacra2": quality.min_ssimulacra2,
            "target_bpp": quality.target_bpp,
            "ms_ssim": shares.ms_ssim,
            "ssimulacra2": shares.ssimulacra2,
            "lossless": quality.lossless,
            "store_plain": quality.store_plain,
            "store_others": self.sources.store_others,
            "hidden": self.sources.hidden,
            "on_duplicate": self.sources.on_duplicate,
            "on_collision": self.sources.on_collision,
            "shard_pictures": self.engine.shard_pictures,
            "shard_bytes": shard_bytes,
        }
