"""How fast whole jobs are, beside the bare networks on the same pictures.

``compress`` runs with full verification into an archive on local disk, ``decode`` writes every picture of it as a
PNG file there, as ``lichen decode`` does with the codec loaded.
Starting Ray is timed apart, because it is paid once for a job of any size.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lichen import defaults
from lichen.errors import ArchiveError, UsageError
from lichen.jobs.bench.bare import BareSpeed, measure
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.engine.config import CodecConfig, EngineConfig, JobConfig, QualityConfig
from lichen.pipeline.engine.driver import run_job
from lichen.pipeline.export import export


@dataclass(frozen=True, kw_only=True, slots=True)
class PipelineBench:
    """Megapixels a second, best of the repeats. ``*_of_bare``: as a share of the bare networks."""

    pictures: int
    megapixels: float
    cores: int
    precision: str
    executor: str
    start_seconds: float
    compress: float
    decode: float
    bare: BareSpeed
    compress_of_bare: float
    decode_of_bare: float

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


def run(
    source: str,
    *,
    codec: str = defaults.CODEC,
    quality: float = defaults.QUALITY,
    executor: str = "local",
    device: str = "auto",
    precision: str = "auto",
    copies: int = 1,
    repeats: int = 3,
) -> PipelineBench:
    """Measure jobs over the pictures at ``source``, each taken ``copies`` times."""
    from lichen.models.decoupled.codec import DecoupledCodec
    from lichen.models.registry import load_codec

    loaded = load_codec(codec, device=device, precision=precision)
    if not isinstance(loaded, DecoupledCodec):
        raise UsageError(f"{codec} has no networks to compare with; name a learned codec")
    cores = len(os.sched_getaffinity(0))
    with TemporaryDirectory() as name:
        folder = Path(name)
        sources = _copies(source, folder / "pictures", copies)
        settings: dict[str, Any] = {
            "codec": CodecConfig(name=codec, device=device, precision=precision),  # type: ignore[arg-type]  # it checks
            "quality": QualityConfig(quality=quality),
            "engine": EngineConfig(executor=executor),  # type: ignore[arg-type]
        }
        runs = []
        for number in range(repeats):
            target = folder / f"archive{number}"
            config = JobConfig(source=str(sources), archive=str(target), **settings)
            runs.append(run_job(config))
        best = max(runs, key=lambda summary: summary.megapixels_per_second)
        archive = Archive.open(str(folder / "archive0"), device=device, precision=precision)
        rows = [row for row in archive.rows() if row.status == "compressed"]
        images = [archive.array(row.key) for row in rows]
        pixels = sum(image.shape[0] * image.shape[1] for image in images) / 1e6
        decoded = []
        for number in range(repeats):
            began = time.perf_counter()
            written = export(archive, [rows], folder / f"decoded{number}")
            decoded.append(pixels / (time.perf_counter() - began))
            if written.problems:
                raise ArchiveError(f"{written.problems[0].key} was not decoded: {written.problems[0].message}")
        bare = measure(loaded, images, quality, cores=cores)
        return PipelineBench(
            pictures=len(images),
            megapixels=pixels,
            cores=cores,
            precision=loaded.device.precision,
            executor=executor,
            start_seconds=best.startup_seconds,
            compress=best.megapixels_per_second,
            decode=max(decoded),
            bare=bare,
            compress_of_bare=best.megapixels_per_second / bare.compress,
            decode_of_bare=max(decoded) / bare.decode,
        )


def _copies(source: str, folder: Path, copies: int) -> Path:
    """The pictures of a local folder, ``copies`` times under other names (links)."""
    files = sorted(path for path in Path(source).rglob("*") if path.is_file())
    if not files:
        raise UsageError(f"there are no pictures at {source}")
    for copy in range(copies):
        part = folder / f"{copy:03d}"
        part.mkdir(parents=True)
        for path in files:
            (part / path.name).symlink_to(path.resolve())
    return folder
