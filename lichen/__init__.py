"""Image datasets as small, verified, random-access archives with learned codecs.

    import lichen

    summary = lichen.compress("photos/", "photos.lichen", quality=90)   # goes on with, and updates, what is there
    lichen.compress("photos/", "s3://bucket/photos.lichen",             # every setting of the command line, typed
                    quality=lichen.QualityConfig(min_ssimulacra2=80), engine=lichen.EngineConfig(workers=8))
    archive = lichen.open("photos.lichen")        # a mapping by key; any fsspec URL
    picture = archive["holiday/beach.jpg"]        # a Pillow image; archive.array(...) is a NumPy array
    result = lichen.verify(archive)               # reads and decodes everything again
    report = lichen.report(archive)               # what it saved, and how good the pictures are

    codec = lichen.load_codec("s2c-conv")         # pixels to bitstreams and back, without an archive
    [encoded] = codec.encode([pixels], 85)        # pixels: height x width x 3, uint8
    [decoded] = codec.decode([encoded.bitstream])

Importing it costs nothing: torch, Ray and pyarrow are loaded by what needs them. ``lichen.errors`` has everything that
can go wrong; the command line is ``lichen --help``.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from lichen import errors
    from lichen.api import compress, load_codec, open, report, verify  # noqa: A004
    from lichen.pipeline.archive.reader import Archive
    from lichen.pipeline.engine.config import CodecConfig, EngineConfig, JobConfig, QualityConfig, SourceConfig

__version__: Final = "0.1.0"

_here = Path(__file__).parent
if not (_here / "models").exists():  # imported from a checkout, where the packages lie beside this folder
    __path__.append(str(_here.parent))

__all__ = [
    "Archive",
    "CodecConfig",
    "EngineConfig",
    "JobConfig",
    "QualityConfig",
    "SourceConfig",
    "__version__",
    "compress",
    "errors",
    "load_codec",
    "open",
    "report",
    "verify",
]

_HOMES: Final = {
    "Archive": "lichen.pipeline.archive.reader",
    "CodecConfig": "lichen.pipeline.engine.config",
    "EngineConfig": "lichen.pipeline.engine.config",
    "JobConfig": "lichen.pipeline.engine.config",
    "QualityConfig": "lichen.pipeline.engine.config",
    "SourceConfig": "lichen.pipeline.engine.config",
    "compress": "lichen.api",
    "load_codec": "lichen.api",
    "open": "lichen.api",
    "report": "lichen.api",
    "verify": "lichen.api",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("lichen.errors")
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'lichen' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
