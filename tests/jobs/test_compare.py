"""Codecs side by side: `lichen evaluate --compare`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from learned_support import new_network
from PIL import Image
from typer.testing import CliRunner

from lichen.errors import UsageError
from lichen.jobs.cli import build_app
from lichen.jobs.compare import compare_codecs
from lichen.models.bundle import write_codec
from lichen.models.registry import config_of, cost, export, load_codec


@pytest.fixture(scope="module")
def codecs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("codecs")
    for number, name in enumerate(("one", "other")):
        write_codec(folder, name, export(new_network(seed=number), name, {}))
    return [folder / "one.json", folder / "other.json"]


def test_one_table(codecs: list[Path], data_folder: Path, tmp_path: Path) -> None:
    with Image.open(data_folder / "kodak/kodim20.png") as image:
        image.crop((0, 0, 256, 192)).save(tmp_path / "part.png")
    arguments = ["evaluate", str(tmp_path / "part.png"), "--compare", ",".join(map(str, codecs)), "--json"]
    arguments += ["--quality", "20,40,60,80", "--plot", str(tmp_path / "plot.png"), "--reference", "one"]
    done = CliRunner().invoke(build_app(), arguments)
    assert done.exit_code == 0, done.output
    one, other = json.loads(done.stdout)
    assert one["against"] is None and other["against"]["anchor"] == "one"
    assert abs(other["against"]["percent"]) < 20  # the same starting values but for the seed
    assert one["parameters"] == sum(p.numel() for p in new_network().parameters())
    assert len(one["curve"]["points"]) == 4 and one["encode_mp_per_s"] > 0
    with Image.open(tmp_path / "plot.png") as plot:
        assert plot.size[0] > 500


def test_what_cannot_be_compared(codecs: list[Path]) -> None:
    with pytest.raises(UsageError, match="none of"):
        compare_codecs({"one": load_codec(str(codecs[0]))}, [], "two")
    with pytest.raises(UsageError, match="no network"):
        compare_codecs({"webp": load_codec("webp")}, [], "webp")


@pytest.mark.parametrize(
    ("name", "millions", "kilomacs"),
    [
        ("tcm-small", 45.18, 560), ("tcm-medium", 59.13, 1098), ("tcm-large", 76.57, 1846),
        ("cwam-128", 10.58, 791), ("cwam-192", 22.97, 988), ("cwam-320", 62.61, 1616),
        ("s2c-hybrid-large", 79.57, 1921),
    ],
)  # fmt: skip
def test_published_sizes_and_costs(name: str, millions: float, kilomacs: float) -> None:
    parameters, multiplications = cost(config_of(name))
    assert parameters / 1e6 == pytest.approx(millions, rel=0.01)
    assert multiplications / 1e3 == pytest.approx(kilomacs, rel=0.01)


def test_codecs_of_one_name_are_told_apart(codecs: list[Path], data_folder: Path, tmp_path: Path) -> None:
    with Image.open(data_folder / "kodak/kodim20.png") as image:
        image.crop((0, 0, 192, 192)).save(tmp_path / "part.png")
    (tmp_path / "again").mkdir()
    for ending in ("json", "safetensors"):
        shutil.copy(codecs[1].with_suffix(f".{ending}"), tmp_path / "again" / f"one.{ending}")
    pair = f"{codecs[0]},{tmp_path / 'again' / 'one.json'}"
    arguments = ["evaluate", str(tmp_path / "part.png"), "--quality", "20,40,60,80", "--json", "--compare", pair]
    done = CliRunner().invoke(build_app(), arguments)
    assert done.exit_code == 0, done.output
    assert len(json.loads(done.stdout)) == 2
    refused = CliRunner().invoke(build_app(), [*arguments, "--effort", "5"])
    assert refused.exit_code != 0
