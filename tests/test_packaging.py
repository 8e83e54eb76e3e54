"""What is built for users: everything the source tree has, under one import name, and nothing else."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("lichen", "models", "pipeline", "jobs")
"""Folders at the top: ``lichen`` itself and the packages inside it."""
DATA = (".json", ".safetensors", ".typed", ".html", ".csv", ".md")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy, so that leftovers of other builds are neither used nor made."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in (*PACKAGES, "lab"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    program = f"from setuptools.build_meta import build_wheel; build_wheel({str(out)!r})"
    subprocess.run([sys.executable, "-c", program], cwd=source, check=True, capture_output=True, timeout=120)
    (built,) = out.glob("*.whl")
    return built


def test_every_module_and_data_file_is_in_the_wheel(wheel: Path) -> None:
    expected = {
        f"lichen/{path.relative_to(ROOT).as_posix()}".removeprefix("lichen/" if name == "lichen" else "")
        for name in PACKAGES
        for path in (ROOT / name).rglob("*")
        if path.suffix in (".py", *DATA) and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(wheel) as content:
        shipped = {name for name in content.namelist() if ".dist-info/" not in name}
    assert shipped == expected
    assert {"lichen/__init__.py", "lichen/py.typed"} <= shipped
    assert {f"lichen/{name}/py.typed" for name in PACKAGES[1:]} <= shipped
    assert not any("lab/" in name for name in shipped)


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        info = {name.split(".dist-info/")[1]: name for name in content.namelist() if ".dist-info/" in name}
        metadata = content.read(info["METADATA"]).decode()
        assert "lichen = lichen.jobs.cli:main" in content.read(info["entry_points.txt"]).decode()
    assert "licenses/LICENSE" in info
    assert "License-Expression: Apache-2.0" in metadata
    assert "Requires-Dist: compressai==1.2.8" in metadata


def test_the_wheel_imports_from_anywhere(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as content:
        content.extractall(tmp_path)
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import lichen.jobs.cli as c; print(c.__file__)"
    # In the root of the repository, where folders of the same names lie.
    done = subprocess.run(
        [sys.executable, "-P", "-S", "-c", _with_site_packages(program)],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert Path(done.stdout.strip()).is_relative_to(tmp_path)


def _with_site_packages(program: str) -> str:
    """Without -S an editable install of this very tree would come along."""
    paths = [path for path in sys.path if path.endswith("site-packages")]
    return f"import sys; sys.path += {paths!r}; {program}"
