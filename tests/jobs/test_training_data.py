"""Crops for training come from pictures that are large enough."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lichen.errors import TrainingError
from lichen.jobs.training.data import CropSampler, open_cache


def test_large_crops_come_from_large_pictures(tmp_path: Path) -> None:
    for number, (width, height) in enumerate([(300, 256), (400, 390), (384, 500)]):
        Image.new("RGB", (width, height), (40 * number + 40, 0, 0)).save(tmp_path / f"{number}.png")
    cache = open_cache([tmp_path], tmp_path / "cache")
    sampler = CropSampler(cache, range(3), seed=1)
    seen = {side: set(np.unique(sampler.batch(60, side)[:, 0]).tolist()) for side in (256, 384, 390)}
    assert seen == {256: {40, 80, 120}, 384: {80, 120}, 390: {80}}
    with pytest.raises(TrainingError, match="both sides of at least 448 pixels; choose smaller crops"):
        sampler.batch(1, 448)


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    Image.new("RGB", (300, 300)).save(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    with pytest.raises(TrainingError, match=r"bad\.jpg"):
        open_cache([tmp_path], tmp_path / "cache")
    (tmp_path / "bad.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(TrainingError, match=r"bad\.tar"):
        open_cache([tmp_path / "bad.tar"], tmp_path / "cache")


def test_equal_names_and_sizes_are_not_equal_pictures(tmp_path: Path) -> None:
    for shade, folder in ((40, "one"), (80, "two")):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (256, 256), (shade, 0, 0)).save(tmp_path / folder / "0.bmp")
    shades = [int(open_cache([tmp_path / f], tmp_path / "cache").picture(0)[0, 0, 0]) for f in ("one", "two")]
    assert shades == [40, 80]


def test_what_a_job_would_not_give_a_codec_is_left_out(tmp_path: Path) -> None:
    Image.new("RGB", (300, 300), (40, 0, 0)).save(tmp_path / "good.png")
    Image.new("P", (300, 300)).save(tmp_path / "palette.png")
    Image.new("I;16", (300, 300)).save(tmp_path / "deep.png")
    (tmp_path / "notes.txt").write_text("no picture")
    assert len(open_cache([tmp_path], tmp_path / "cache")) == 1


def test_pictures_come_from_any_store(tmp_path: Path) -> None:
    import fsspec

    Image.new("RGB", (256, 256), (60, 0, 0)).save(tmp_path / "one.png")
    with fsspec.open("memory://photos/deep/one.png", "wb") as file:
        file.write((tmp_path / "one.png").read_bytes())
    cache = open_cache(["memory://photos"], tmp_path / "cache")
    assert int(cache.picture(0)[0, 0, 0]) == 60
