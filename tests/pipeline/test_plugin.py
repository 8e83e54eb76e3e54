"""An architecture from outside of the package: archives are written with it, verified, and opened again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

PLUGIN = Path(__file__).parents[1] / "plugin"
KODAK = Path(__file__).parents[1] / "data" / "kodak"


def lichen(*arguments: str, plugin: bool = True) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(PLUGIN)] * plugin + [p for p in [os.environ.get("PYTHONPATH", "")] if p])
    code = "from lichen.jobs.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env=os.environ | {"PYTHONPATH": path},
        text=True,
        capture_output=True,
        check=False,
    )


def test_an_architecture_from_outside(tmp_path: Path) -> None:
    assert len((PLUGIN / "lichen_example.py").read_text().splitlines()) < 100
    archive = str(tmp_path / "archive")
    done = lichen("compress", str(KODAK), archive, "--codec", "example", "--quality", "60", "--local", "--json")
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)["counts"]
    assert counts["compressed"] == 4
    assert lichen("verify", archive).returncode == 0
    decoded = lichen("decode", archive, "--to", str(tmp_path / "out"))
    assert decoded.returncode == 0, decoded.stderr
    assert len(list((tmp_path / "out").iterdir())) == 4
    without = lichen("verify", archive, plugin=False)
    assert without.returncode not in (0, None)
    assert "unknown family 'example'" in without.stderr + without.stdout
