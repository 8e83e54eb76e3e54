"""Archives of every release, decoded for ever (``golden.py`` writes them)."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from golden import FOLDER
from PIL import Image

import lichen
from lichen.pipeline.archive.job import list_jobs, read_job
from lichen.pipeline.pictures.reading import unpack_side

VERSIONS = sorted(path for path in FOLDER.iterdir() if path.is_dir())


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def golden(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A copy: what reads an archive must not write to it, but the fixture has to stay whatever happens."""
    folder = tmp_path / "golden"
    shutil.copytree(request.param, folder)
    return folder


def test_the_current_version_has_one() -> None:
    assert ".".join(lichen.__version__.split(".")[:2]) in {path.name for path in VERSIONS}


def test_no_path_of_a_checkout_is_in_it(golden: Path) -> None:
    store = lichen.open(golden / "archive").store
    jobs = list_jobs(store)
    assert jobs
    for job in jobs:
        names = [*read_job(store, job).config["source"]]
        for part in sorted((golden / "archive" / "jobs" / job).glob("plan-*.parquet")):
            names += pq.read_table(part, columns=["uri"]).column("uri").to_pylist()
        assert len(names) > 1
        assert not any("tests" in Path(name).parts or "archives" in Path(name).parts for name in names)


def test_everything_decodes_to_the_same_symbols(golden: Path) -> None:
    result = lichen.verify(str(golden / "archive"))
    assert result.ok and not result.failures
    assert result.pictures == len(lichen.open(golden / "archive"))


def test_each_job_is_as_good_as_it_was(golden: Path) -> None:
    for source in sorted((golden / "sources").iterdir()):
        result = lichen.verify(str(golden / "archive"), [path.name for path in source.iterdir()], source=str(source))
        assert result.ok, (source.name, result.failures)


def test_every_status_and_kind_of_side_data_is_there(golden: Path) -> None:
    archive = lichen.open(golden / "archive")
    rows = list(archive.rows())
    assert set(Counter(row.status for row in rows)) == {"compressed", "packed", "stored"}
    assert {row.packing for row in rows} == {None, "jxl-jpeg", "zstd"}
    assert len({row.codec for row in rows if row.codec}) >= 4
    sides = {row.key: unpack_side(archive.side(row)) for row in rows if row.side_length}
    photo = sides["photo.jpg"]
    assert photo.exif and photo.icc
    assert sides["grey.png"].xmp and sides["grey.png"].blocks
    assert sides["rgba.png"].alpha is not None and sides["la.png"].alpha is not None
    assert sides["flat.png"].flat


def test_what_was_exact_is_exact(golden: Path) -> None:
    archive = lichen.open(golden / "archive")
    for row in archive.rows():
        (source,) = (golden / "sources").rglob(row.key)
        if row.is_original:
            assert archive.original(row.key) == source.read_bytes()
    alpha = np.asarray(Image.open(golden / "sources/shipped/rgba.png"))[:, :, 3]
    assert np.array_equal(archive.array("rgba.png")[:, :, 3], alpha)
    assert (archive.array("flat.png")[128:, 160:] == 255).all()
    assert archive["photo.jpg"].getexif()[0x010E] == "a golden picture"
