"""The functions of ``lichen``: what the package offers at its top, as thin as it can be.

Importing this module is cheap: torch, Ray and pyarrow are imported by what needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, TypeAlias

from lichen import defaults
from lichen.pipeline.engine.config import CodecConfig, EngineConfig, JobConfig, QualityConfig, SourceConfig

if TYPE_CHECKING:
    from lichen.models.codec import Codec
    from lichen.pipeline.archive.reader import Archive
    from lichen.pipeline.engine.progress import JobProgress, JobSummary
    from lichen.pipeline.report import Report
    from lichen.pipeline.verify import VerifyResult

__all__ = ["compress", "load_codec", "open", "report", "verify"]

Place: TypeAlias = str | PathLike[str]
"""A local path or any fsspec URL."""


def compress(
    source: Place | Sequence[Place],
    archive: Place,
    *,
    codec: str | CodecConfig = defaults.AUTO,
    quality: float | QualityConfig = defaults.QUALITY,
    sources: SourceConfig | None = None,
    engine: EngineConfig | None = None,
    local: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    progress: Callable[[JobProgress], None] | None = None,
) -> JobSummary:
    """Compress folders, bucket prefixes, tar files, manifests or single files into an archive.

    Goes on with a job that was interrupted, and updates an archive that is there. A codec's name and a number for the
    quality are short for the configurations that have everything else; ``sources`` says how sources are listed and
    read, ``engine`` who works. ``local`` works in this process instead of one of its own, or of Ray.
    ``storage_options`` are fsspec's for the archive. ``progress`` is called a few times a second.

    Raises ``UsageError`` for what cannot work, ``DuplicateKey``, ``LeaseHeld`` while another job has the archive,
    ``TooManyFailures`` and ``StoreError``. Sources that could not be read raise nothing and are counted in the result.
    """
    from lichen.pipeline.engine.driver import run_job

    engine = engine or EngineConfig()
    config = JobConfig(
        source=(fspath(source),) if isinstance(source, str | PathLike) else tuple(fspath(one) for one in source),
        archive=fspath(archive),
        codec=CodecConfig(name=codec) if isinstance(codec, str) else codec,
        quality=quality if isinstance(quality, QualityConfig) else QualityConfig(quality=quality),
        sources=sources or SourceConfig(),
        engine=replace(engine, executor="local") if local else engine,
        archive_options=storage_options or {},
    )
    return run_job(config, progress)


def open(  # noqa: A001, as one says lichen.open
    url: Place,
    *,
    snapshot: int | None = None,
    device: str = defaults.DEVICE,
    precision: str = defaults.PRECISION,
    storage_options: Mapping[str, Any] | None = None,
) -> Archive:
    """Open an archive: a mapping from keys to Pillow images, over its newest snapshot or an older one.

    ``device`` is cpu, cuda, cuda:N or auto, ``precision`` auto, float32, bfloat16 or float16; neither changes what is
    decoded by more than a rounding. Raises ``ArchiveNotFound`` or ``CorruptArchive``.
    """
    from lichen.pipeline.archive.reader import Archive

    return Archive.open(fspath(url), storage_options, snapshot=snapshot, device=device, precision=precision)


def verify(
    archive: Archive | Place,
    patterns: Sequence[str] = (),
    *,
    source: str | Sequence[str] | None = None,
    source_options: Mapping[str, Any] | None = None,
    tolerance: float = defaults.TOLERANCE,
    lanes: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> VerifyResult:
    """Read, decode and check all pictures, or those that keys and globs choose.

    With ``source``, what the archive was made from, pictures are compared with it again: PSNR at most ``tolerance`` dB
    below the recorded one. ``source_options`` are fsspec's for it. ``lanes`` pictures are decoded at once.
    ``progress`` is called with numbers of pictures. What is wrong with the archive ends up in the result; raises
    ``UsageError`` for patterns and sources that do not exist, and ``StoreError`` where nothing can be read.
    """
    from lichen.pipeline.verify import verify_archive

    return verify_archive(
        _opened(archive),
        patterns,
        source=source,
        source_options=source_options,
        tolerance=tolerance,
        lanes=lanes,
        progress=progress,
    )


def report(archive: Archive | Place, *, worst: int = defaults.WORST) -> Report:
    """What the archive saved, and how good its pictures are, from its index alone; ``worst`` of them are named."""
    from lichen.pipeline.report import make_report

    return make_report(_opened(archive), worst=worst)


def _opened(archive: Archive | Place) -> Archive:
    return open(archive) if isinstance(archive, str | PathLike) else archive


def load_codec(name: str, *, device: str = defaults.DEVICE, precision: str = defaults.PRECISION) -> Codec:
    """A codec by its name (``lichen models`` lists them) or the path of its JSON file.

    ``device`` is cpu, cuda, cuda:N or auto, ``precision`` auto, float32, bfloat16 or float16. Raises ``UnknownCodec``,
    ``InvalidCodec`` and ``UsageError``.
    """
    from lichen.models.registry import load_codec as load

    return load(name, device=device, precision=precision)
