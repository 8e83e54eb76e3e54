"""The functions of ``lichen``: what the package offers at its top, as thin as it can be.

Importing this module is cheap: torch and Ray are imported by what needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Any

from lichen import defaults

if TYPE_CHECKING:
    from lichen.models.codec import Codec
    from lichen.pipeline.archive.reader import Archive
    from lichen.pipeline.engine.progress import JobProgress, JobSummary
    from lichen.pipeline.report import Report
    from lichen.pipeline.verify import VerifyResult

__all__ = ["compress", "load_codec", "open", "report", "verify"]


def compress(
    source: str | PathLike[str] | Sequence[str | PathLike[str]],
    archive: str | PathLike[str],
    *,
    codec: str = defaults.AUTO,
    quality: float = defaults.QUALITY,
    local: bool = False,
    progress: Callable[[JobProgress], None] | None = None,
    **settings: Any,
) -> JobSummary:
    """Compress folders, bucket prefixes, tar files, manifests or single files into an archive.

    Goes on with a job that was interrupted, and updates an archive that is there. ``local`` works in this process
    instead of one of its own, or of Ray. ``progress`` is called a few times a second. ``settings`` are the other fields
    of ``lichen.pipeline.engine.config.JobConfig``. Raises the errors of ``run_job``; sources that could not be read
    raise nothing and are counted in the result.
    """
    from lichen.pipeline.engine.config import JobConfig
    from lichen.pipeline.engine.driver import run_job

    sources = (fspath(source),) if isinstance(source, str | PathLike) else tuple(fspath(one) for one in source)
    config = JobConfig(
        source=sources,
        archive=fspath(archive),
        codec=codec,
        quality=quality,
        **({"executor": "local"} if local else {}) | settings,
    )
    return run_job(config, progress)


def open(  # noqa: A001, as one says lichen.open
    url: str | PathLike[str],
    *,
    snapshot: int | None = None,
    device: str = "auto",
    precision: str = "auto",
    storage_options: Mapping[str, Any] | None = None,
) -> Archive:
    """Open an archive: a mapping from keys to Pillow images, over its newest snapshot or an older one.

    Raises ``ArchiveNotFound`` or ``CorruptArchive``.
    """
    from lichen.pipeline.archive.reader import Archive

    return Archive.open(fspath(url), storage_options, snapshot=snapshot, device=device, precision=precision)


def verify(
    archive: Archive | str | PathLike[str],
    patterns: Sequence[str] = (),
    *,
    source: str | Sequence[str] | None = None,
    **settings: Any,
) -> VerifyResult:
    """Read, decode and check all pictures, or those that keys and globs choose (``verify_archive``)."""
    from lichen.pipeline.verify import verify_archive

    return verify_archive(_opened(archive), patterns, source=source, **settings)


def report(archive: Archive | str | PathLike[str]) -> Report:
    """What the archive saved, and how good its pictures are, from its index alone."""
    from lichen.pipeline.report import make_report

    return make_report(_opened(archive))


def _opened(archive: Archive | str | PathLike[str]) -> Archive:
    return open(archive) if isinstance(archive, str | PathLike) else archive


def load_codec(name: str, *, device: str = "auto", precision: str = "auto") -> Codec:
    """A codec by its name (``lichen models`` lists them) or the path of its JSON file.

    ``device`` is cpu, cuda, cuda:N or auto, ``precision`` auto, float32, bfloat16 or float16. Raises ``UnknownCodec``,
    ``InvalidCodec`` and ``UsageError``.
    """
    from lichen.models.zoo import load_codec as load

    return load(name, device=device, precision=precision)
