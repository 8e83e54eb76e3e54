"""The laboratory from outside: its commands run, and what is installed knows nothing of it."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from learned_support import photograph
from PIL import Image
from snapped_support import lively
from typer.main import get_command
from typer.testing import CliRunner

from lab.commands import build_app
from lichen.models.bundle import write_codec
from lichen.models.snapped.scheme import freeze

ROOT = Path(__file__).parents[2]

HERE: dict[str, tuple[str, ...]] = {
    "rate": ("{folder}", "--quality", "50"),
    "effort": ("{folder}", "--codec", "webp", "--effort", "1", "--quality", "50", "--quality", "60"),
    "scale": ("--rows", "2", "--mixed"),
    "snapping": ("{folder}/a.png", "--codec", "{folder}/codecs/tcm.json", "--repeats", "1", "--side", "128"),
}
ELSEWHERE = {"compressai", "seen", "mixed", "ablation", "finishing", "systems", "mixes", "results", "record", "figures"}
"""Tested by files of their own."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny pictures, and the files of a small published codec."""
    folder = tmp_path_factory.mktemp("lab")
    pixels = np.ascontiguousarray(photograph()[:128, :128])
    for name in ("a", "b"):
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "codecs").mkdir()
    write_codec(folder / "codecs", "tcm", freeze(lively("tcm"), "tcm", {}))
    return folder


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
@pytest.mark.parametrize("command", HERE)
def test_commands_run(folder: Path, command: str) -> None:
    arguments = [argument.format(folder=folder) for argument in HERE[command]]
    done = CliRunner().invoke(build_app(), [command, *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert done.stdout.strip()


def test_every_command_is_tried_and_every_option_explained() -> None:
    commands = get_command(build_app()).commands  # type: ignore[attr-defined]
    assert set(commands) == HERE.keys() | ELSEWHERE
    mute = [f"{name} {one.name}" for name, command in commands.items() for one in command.params if not one.help]
    assert not mute


def test_it_runs_from_a_checkout() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lab", "rate", "no/such/folder"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert done.stderr == "lichen: no/such/folder does not exist\n"


def test_nothing_that_is_installed_imports_it() -> None:
    guilty = {
        str(path.relative_to(ROOT))
        for package in ("lichen", "models", "pipeline", "jobs")
        for path in (ROOT / package).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for module in _imported(node)
        if module.split(".")[0] == "lab"
    }
    assert not guilty


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
