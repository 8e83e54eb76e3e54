"""Jobs with all their settings in one row, by the names that the command line gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lichen.pipeline.engine.config import CodecConfig, EngineConfig, JobConfig, QualityConfig, SourceConfig
from lichen.settings import settings

GROUPS = {"codec": CodecConfig, "quality": QualityConfig, "sources": SourceConfig, "engine": EngineConfig}


def job_config(source: Any, archive: Any, **given: Any) -> JobConfig:
    """A job; ``given`` are settings of all groups."""
    groups: dict[str, Any] = {}
    for group, kind in GROUPS.items():
        names = {option if known.unit == 1 else one.name: one.name for option, (one, known) in settings(kind).items()}
        groups[group] = kind(**{names[name]: given.pop(name) for name in list(given) if name in names})
    source = str(source) if isinstance(source, Path) else source
    return JobConfig(source=source, archive=str(archive), **groups, **given)
