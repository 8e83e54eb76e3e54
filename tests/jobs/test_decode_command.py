"""``lichen decode`` tells once what the files cannot hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lichen.jobs.cli import build_app


@pytest.fixture
def archive(write_archive: Callable[..., str], data_folder: Path, tmp_path: Path) -> str:
    data = (data_folder / "samples/budgie_a6d68c32b3a3.jpg").read_bytes()
    commented = data[:2] + b"\xff\xfe\0\x07hello" + data[2:]
    return write_archive(tmp_path / "archive", {"a.jpg": commented, "b.jpg": commented, "c.jpg": data})


def test_one_line_for_a_whole_run(archive: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(build_app(), ["decode", archive, "--to", str(tmp_path / "out")])
    assert done.exit_code == 0
    assert [line for line in done.stderr.split("\n") if "cannot hold" in line] == [
        "PNG files cannot hold everything; in the archive alone: comments (2 pictures)"
    ]
    done = CliRunner().invoke(build_app(), ["decode", archive, "--to", str(tmp_path / "jpeg"), "--format", "jpeg"])
    assert done.exit_code == 0 and "cannot hold" not in done.stderr


def test_as_json(archive: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(build_app(), ["decode", archive, "--to", str(tmp_path / "out"), "--json"])
    assert json.loads(done.stdout)["not_carried"] == {"comments": 2}
