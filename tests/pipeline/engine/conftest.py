"""Small jobs, what is in an archive whichever shard it lies in, and codecs that misbehave."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs_support import job_config
from PIL import Image

from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.engine.config import JobConfig

PLUGIN = '''
import os
import sys
from lichen.models.classical import ClassicalCodec
from lichen.models.codec import Decoded
from lichen.errors import CorruptBitstream

WIDTH = 77  # of the pictures that hurt


class Hurt(ClassicalCodec):
    """WebP with a weakness."""

    def __init__(self, **_placement):
        super().__init__("webp")

    def hurts(self, images):
        return any(image.shape[1] == WIDTH for image in images)


class Fails(Hurt):
    def encode(self, images, quality, *, effort=3):
        if self.hurts(images):
            raise RuntimeError("a kernel failed")
        return super().encode(images, quality)


class Lies(Hurt):
    def decode(self, bitstreams):
        decoded = super().decode(bitstreams)
        return [Decoded(pixels=d.pixels, symbols=bytes(16)) if self.hurts([d.pixels]) else d for d in decoded]


class DiesAtOnce(Hurt):
    def encode(self, images, quality, *, effort=3):
        os._exit(11)


class Dies(Hurt):
    def encode(self, images, quality, *, effort=3):
        if self.hurts(images):
            os._exit(11)
        return super().encode(images, quality)
'''
ENTRY_POINTS = """[lichen.codecs]
test-fails = lichen_test_codecs:Fails
test-lies = lichen_test_codecs:Lies
test-dies = lichen_test_codecs:Dies
test-dies-at-once = lichen_test_codecs:DiesAtOnce
"""
HURTFUL_WIDTH = 77


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package with the codecs that ``ENTRY_POINTS`` names, for this process and those that it starts."""
    folder = tmp_path / "site"
    info = folder / "lichen_test_codecs-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "lichen_test_codecs.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lichen-test-codecs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.syspath_prepend(str(folder))
    before = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *([before] if before else [])]))
    return str(folder)


def make_picture(path: Path, *, width: int = 96, height: int = 80, seed: int = 0, **settings: Any) -> None:
    """A smooth picture with some texture; noise is not what photographs are made of."""
    generator = np.random.default_rng(seed)
    rough = generator.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    image = Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)
    pixels = np.asarray(image).astype(np.int16) + generator.integers(-3, 4, (height, width, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, **settings)


@pytest.fixture
def pictures(tmp_path: Path) -> Callable[..., Path]:
    """A folder with ``count`` PNG pictures; ``hurtful`` ones are of the width that the test codecs dislike."""

    def make(count: int, *, hurtful: tuple[int, ...] = (), name: str = "pictures") -> Path:
        folder = tmp_path / name
        for n in range(count):
            width = HURTFUL_WIDTH if n in hurtful else 96
            make_picture(folder / f"{n:03d}.png", width=width, seed=n)
        return folder

    return make


@pytest.fixture
def config(tmp_path: Path) -> Callable[..., JobConfig]:
    """A job in this process with WebP, whose shards hold one picture or two, unless told otherwise."""

    def make(source: Path | str | tuple[str, ...], archive: str = "", **changes: Any) -> JobConfig:
        values: dict[str, Any] = {
            "source": str(source) if isinstance(source, Path) else source,
            "archive": archive or str(tmp_path / "archive"),
            "codec": "webp",
            "executor": "local",
            "shard_pictures": 2,
            "lanes": 2,
            **changes,
        }
        return job_config(**values)

    return make


def content(url: str) -> dict[str, tuple[Any, ...]]:
    """What an archive holds, wherever it lies: per key the columns that no crash may change."""
    archive = Archive.open(url)
    rows = list(archive.rows())
    return {
        row.key: (row.status, row.source_sha256, row.length, row.crc32c, row.quality, row.symbols_digest, row.psnr)
        for row in rows
    }


@pytest.fixture
def contents() -> Callable[[str], dict[str, tuple[Any, ...]]]:
    return content
