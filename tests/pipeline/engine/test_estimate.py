"""What a dry run says, held against what happens."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from jobs_support import job_config
from PIL import Image
from typer.testing import CliRunner

import lichen
from lichen.errors import UsageError
from lichen.jobs.cli import build_app
from lichen.pipeline.engine.driver import run_job
from lichen.pipeline.engine.estimate import _interval, _reservoir, estimate
from lichen.pipeline.sources import Source

PICTURES = 60


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of many sizes, some that pack badly, and files that are none."""
    folder = tmp_path_factory.mktemp("mixed")
    random = np.random.default_rng(3)
    for number in range(PICTURES):
        side = int(random.integers(40, 200))
        smooth = random.integers(0, 255, (6, 6, 3), dtype=np.uint8)
        picture = Image.fromarray(smooth).resize((side, side), Image.Resampling.BICUBIC)
        if number % 5 == 0:
            picture = Image.fromarray(random.integers(0, 255, (side // 2, side // 2, 3), dtype=np.uint8))
        picture.save(folder / f"{number:03d}.png")
    for number in range(4):
        (folder / f"notes-{number}.txt").write_text("no picture " * 100)
    return folder


def test_the_interval_covers_what_happens(mixed: Path, tmp_path: Path) -> None:
    config = job_config(mixed, tmp_path / "archive", codec="webp", executor="local", psnr_floor=0, block_psnr_floor=0)
    found = [estimate(config, sample=30, seed=seed) for seed in range(4)]
    assert not (tmp_path / "archive").exists()
    run_job(config)
    truth = lichen.open(tmp_path / "archive").info().archive_bytes
    assert sum(one.low <= truth <= one.high for one in found) >= 3
    assert all(abs(one.archive_bytes - truth) < 0.35 * truth for one in found)
    for one in found:
        assert one.sources == PICTURES + 4 and one.sampled == 30 and one.unknown_sizes == 0
        assert one.compressed + one.packed + one.stored + one.skipped == 30
        assert one.low <= one.archive_bytes <= one.high and one.seconds_low <= one.seconds <= one.seconds_high


def test_a_sample_of_everything_is_exact(mixed: Path, tmp_path: Path) -> None:
    config = job_config(mixed, tmp_path / "archive", codec="webp", executor="local")
    found = estimate(config, sample=1000)
    assert found.low == found.archive_bytes == found.high
    run_job(config)
    info = lichen.open(tmp_path / "archive").info()
    # The snapshot's own index and list come on top of payloads, index parts and codec.
    assert 0 <= info.archive_bytes - found.archive_bytes < 0.2 * info.archive_bytes
    assert found.cost(3600.0) == pytest.approx(found.seconds)


def test_every_source_is_as_likely_as_any_other() -> None:
    sources = [Source(key=str(n), uri=str(n), size=n) for n in range(20)]
    drawn: Counter[str] = Counter()
    for seed in range(2000):
        chosen, number, size, unknown = _reservoir(iter(sources), 5, seed)
        assert (len(chosen), number, size, unknown) == (5, 20, 190, 0)
        drawn.update(source.key for source in chosen)
    assert all(400 < drawn[source.key] < 600 for source in sources)


def test_an_interval_is_narrower_where_more_is_known() -> None:
    random = np.random.default_rng(1)
    weight = random.uniform(1, 2, 100)
    values = weight * random.uniform(0.3, 0.7, 100)

    def width(part: float) -> float:
        low, high = _interval(values, weight, 1000.0, part, 0)
        return high - low

    assert width(1.0) == 0
    assert 0 < width(0.9) < width(0.0)


def test_the_command_says_it(mixed: Path, tmp_path: Path) -> None:
    arguments = ["compress", str(mixed), str(tmp_path / "a"), "--codec", "webp", "--dry-run", "--sample", "10"]
    done = CliRunner().invoke(build_app(), [*arguments, "--price", "2", "--json"], catch_exceptions=False)
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    assert told["sampled"] == 10 and told["sources"] == PICTURES + 4 and told["cost"] > 0
    done = CliRunner().invoke(build_app(), arguments, catch_exceptions=False)
    assert "a sample of 10" in done.stdout and "saved with codecs and index" in done.stdout
    assert not (tmp_path / "a").exists()


def test_nothing_to_estimate_by(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError):
        estimate(job_config(tmp_path / "empty", tmp_path / "a", codec="webp"))
