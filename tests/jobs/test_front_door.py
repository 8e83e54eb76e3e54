"""What README and docs tell people to type works: every command, on archives of every kind of codec, as written."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import typer
from learned_support import photograph
from PIL import Image
from snapped_support import SMALL, lively
from typer.testing import CliRunner

from lichen.jobs.cli import build_app
from lichen.models.bundle import write_codec
from lichen.models.snapped.scheme import freeze

ROOT = Path(__file__).parents[2]
RUN = "import sys; sys.argv[0] = 'lichen'; from lichen.jobs.cli import main; main()"
CODECS = ("s2c-conv", "s2c-conv-deep", "s2c-psnr", "webp", "tcm")
"""The ones that ship, a classical one, a published kind."""

ON_ARCHIVES: dict[str, tuple[str, ...]] = {
    "compress": ("{photos}", "{archive}", "--codec", "{codec}"),
    "verify": ("{archive}", "--source", "{photos}"),
    "report": ("{archive}",),
    "ls": ("{archive}",),
    "info": ("{archive}",),
    "gc": ("{archive}",),
    "status": ("{archive}",),
    "decode": ("{archive}", "--to", "{folder}/out-{codec}"),
}
"""Commands that take an archive, here one that ``compress`` has just written: it finds nothing new."""

ON_ANYTHING: dict[str, tuple[str, ...]] = {
    "models": (),
    "models show": ("s2c-conv",),
    "models architectures": (),
    "train": ("{photos}", "--out", "{folder}/run", "--steps", "1", "--batch", "1", "--validation", "1"),
    "evaluate": (
        "{photos}/holiday",
        "--codec",
        "webp",
        "--quality",
        "30,50,70,90",
        "--against",
        "jpeg",
        "--measures",
        "psnr,ssimulacra2",
    ),
    "bench entropy": (),
    "bench portability": ("{tiny}/a.png",),
    "bench pipeline": ("{tiny}", "--repeats", "1"),
}
ELSEWHERE = {"models import"}
"""Tested by a file of its own; it takes checkpoints of other projects."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs in ``photos/holiday``, a tiny picture in ``tiny``, and the files of a small published codec."""
    folder = tmp_path_factory.mktemp("front")
    (folder / "photos" / "holiday").mkdir(parents=True)
    (folder / "tiny").mkdir()
    pixels = photograph()
    for name, size in (("beach", (320, 384)), ("hills", (300, 400))):
        Image.fromarray(pixels[: size[0], : size[1]]).save(folder / "photos" / "holiday" / f"{name}.jpg", quality=95)
    for name in ("a", "b"):
        Image.fromarray(np.ascontiguousarray(pixels[:128, :128])).save(folder / "tiny" / f"{name}.png")
    write_codec(folder, "tcm", freeze(lively("tcm"), "tcm", {}))
    assert "tcm" in SMALL
    return folder


def places(folder: Path, codec: str) -> dict[str, str]:
    return {
        "folder": str(folder),
        "photos": str(folder / "photos"),
        "tiny": str(folder / "tiny"),
        "archive": str(folder / f"{codec}.lichen"),
        "codec": str(folder / "tcm.json") if codec == "tcm" else codec,
    }


def invoke(command: str, arguments: tuple[str, ...], names: dict[str, str], *more: str) -> str:
    filled = [argument.format(**names) for argument in arguments]
    done = CliRunner().invoke(build_app(), [*command.split(), *filled, *more], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def commands(app: typer.Typer, prefix: str = "") -> Iterator[str]:
    """The names of all commands, groups that do something by themselves included."""
    for group in app.registered_groups:
        assert group.typer_instance is not None and group.name
        if group.typer_instance.registered_callback is not None:
            yield f"{prefix}{group.name}"
        yield from commands(group.typer_instance, f"{prefix}{group.name} ")
    for command in app.registered_commands:
        assert command.callback is not None
        yield prefix + (command.name or command.callback.__name__.strip("_").replace("_", "-"))


def test_every_command_is_tried() -> None:
    assert set(commands(build_app())) == ON_ARCHIVES.keys() | ON_ANYTHING.keys() | ELSEWHERE


@pytest.fixture(scope="module", params=CODECS)
def archive(request: pytest.FixtureRequest, folder: Path) -> dict[str, str]:
    """An archive of one kind of codec, written by the command, in its default way."""
    codec: str = request.param
    names = places(folder, codec)
    done = run_lichen(["compress", names["photos"], names["archive"], "--codec", names["codec"], "--json"], folder)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout)["counts"]
    assert counts["compressed"] + counts["packed"] + counts["stored"] == 2
    if codec != "tcm":  # untrained: its pictures are below the floors
        assert counts["compressed"] == 2
    return names


@pytest.mark.parametrize("command", ON_ARCHIVES)
def test_commands_on_archives(archive: dict[str, str], command: str) -> None:
    told = invoke(command, ON_ARCHIVES[command], archive, *(["--overwrite"] if command == "decode" else []))
    assert told.strip()
    assert "Traceback" not in told
    json.loads(
        invoke(command, ON_ARCHIVES[command], archive, "--json", *(["--overwrite"] if command == "decode" else []))
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")
@pytest.mark.parametrize("command", ON_ANYTHING)
def test_other_commands(folder: Path, command: str) -> None:
    assert invoke(command, ON_ANYTHING[command], places(folder, "s2c-conv")).strip()


# --- as it is written -----------------------------------------------------------------------------

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHORTER = {
    "--minutes 60": "--steps 1 --batch 1 --validation 1",
    "--effort 7": "--effort 4",
    "s3://bucket/photos.lichen": "photos2.lichen",
}
"""What would take too long, or a bucket, and what a test does instead."""


def shell_lines(document: Path) -> list[str]:
    """The lines of a document's blocks that call ``lichen``, without comments."""
    lines = re.findall(r"^ {4}(lichen .*)$", document.read_text(), re.MULTILINE)
    return [line.split("  #")[0].strip() for line in lines]


def python_blocks(document: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", document.read_text(), re.MULTILINE | re.DOTALL)


def shorter(text: str) -> str:
    for long, short in SHORTER.items():
        text = text.replace(long, short)
    return text


def run_lichen(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", RUN, *arguments], cwd=folder, capture_output=True, text=True, timeout=250
    )


@pytest.fixture
def desk(folder: Path, tmp_path: Path) -> Path:
    """A folder such as the one in which a reader would type."""
    shutil.copytree(folder / "photos", tmp_path / "photos")
    shutil.copytree(folder / "photos", tmp_path / "KODAK_FOLDER")
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("document", [d for d in DOCUMENTS if shell_lines(d)], ids=lambda d: d.name)
def test_commands_of_documents_run(document: Path, desk: Path) -> None:
    """In their order, in one folder, through a shell."""
    (desk / "lichen").write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{RUN}" "$@"\n')
    (desk / "lichen").chmod(0o755)
    environment = {**os.environ, "PATH": f"{desk}{os.pathsep}{os.environ['PATH']}"}
    for line in shell_lines(document):
        done = subprocess.run(
            ["bash", "-c", shorter(line)], cwd=desk, capture_output=True, text=True, env=environment, timeout=250
        )
        assert done.returncode == 0, f"{line}: {done.stderr}"


@pytest.mark.slow
@pytest.mark.parametrize("document", [d for d in DOCUMENTS if python_blocks(d)], ids=lambda d: d.name)
def test_python_of_documents_runs(document: Path, desk: Path) -> None:
    for block in python_blocks(document):
        done = subprocess.run(
            [sys.executable, "-c", shorter(block)], cwd=desk, capture_output=True, text=True, timeout=250
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"


def test_makefile_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`?make ([a-z]+)", (ROOT / "README.md").read_text()))
    assert named and named <= targets


def test_ci_runs_the_demo() -> None:
    assert re.search(r"^for target in .*\bdemo\b", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
