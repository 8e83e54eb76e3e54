"""Damaged pictures in a job: stored as they are, with the reason, and told in the index and by the commands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from lichen.jobs.cli import build_app
from lichen.pipeline.archive.index import SCHEMA
from lichen.pipeline.archive.index_file import IndexFile
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.store import open_store
from lichen.pipeline.engine.config import JobConfig
from lichen.pipeline.engine.driver import run_job
from lichen.pipeline.verify import verify_archive

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture
def job(tmp_path: Path, config: Callable[..., JobConfig]) -> JobConfig:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("cases/jpeg/base_cut_eoi.jpg", "cases/jpeg/com_between_scans.jpg", "cases/tiff/sparse.tif"):
        shutil.copy(DATA / name, source)
    for name in ("messy/pil_truncated_jpeg.jpg", "samples/budgie_a6d68c32b3a3.jpg", "cases/colour/cicp_pq.png"):
        shutil.copy(DATA / name, source)
    config_ = config(source)
    run_job(config_)
    return config_


def test_what_is_damaged_is_stored_and_told(job: JobConfig) -> None:
    archive = Archive.open(job.archive)
    rows = {row.key: row for row in archive.rows()}
    assert {key: (row.status, row.damaged) for key, row in rows.items()} == {
        "base_cut_eoi.jpg": ("packed", True),
        "pil_truncated_jpeg.jpg": ("packed", True),
        "com_between_scans.jpg": ("compressed", False),
        "budgie_a6d68c32b3a3.jpg": ("compressed", False),
        "sparse.tif": ("packed", None),
        "cicp_pq.png": ("stored", None),
    }
    for key, row in rows.items():
        if row.is_original:
            assert row.reason
            assert archive.original(key) == (Path(str(job.source)) / key).read_bytes()
    assert verify_archive(archive, source=job.source).ok
    listed = CliRunner().invoke(build_app(), ["ls", job.archive, "--json"])
    assert {row["key"]: row["damaged"] for row in json.loads(listed.stdout)} == {k: r.damaged for k, r in rows.items()}
    assert "the JPEG is damaged" in CliRunner().invoke(build_app(), ["ls", job.archive, "--long"]).stdout
    assert "the JPEG is damaged" in CliRunner().invoke(build_app(), ["report", job.archive]).stdout


def test_archives_without_the_column_stay_readable(job: JobConfig, tmp_path: Path) -> None:
    archive = Archive.open(job.archive)
    part = next(iter((Path(job.archive) / "snapshots").glob("*.parquet")))
    old = tmp_path / "old.parquet"
    table = pq.read_table(part)
    assert table.schema.names == SCHEMA.names
    pq.write_table(table.drop_columns(["damaged"]), old)
    file = IndexFile(open_store(str(tmp_path)), "old.parquet", size=old.stat().st_size, rows=table.num_rows)
    found = file.read_all()
    assert found.schema.names == SCHEMA.names
    assert found.column("damaged").null_count == table.num_rows
    assert found.drop_columns(["damaged"]).equals(archive.table().drop_columns(["damaged"]))
