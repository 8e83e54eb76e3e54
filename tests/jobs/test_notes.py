"""A codec's JSON tells what was measured of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from learned_support import new_network
from PIL import Image
from typer.testing import CliRunner

from lichen.jobs.cli import build_app
from lichen.models.bundle import write_codec
from lichen.models.registry import export

KODAK = Path(__file__).parents[1] / "data" / "kodak"


def test_an_evaluation_goes_into_the_card_and_nothing_else_changes(tmp_path: Path) -> None:
    codec = write_codec(tmp_path, "small", export(new_network(), "small", {"licence": "none"}))
    before = json.loads(codec.read_text())
    one = tmp_path / "one.png"
    with Image.open(next(KODAK.glob("*.png"))) as image:
        image.crop((100, 100, 356, 300)).save(one)
    arguments = ["evaluate", str(one), "--codec", str(codec), "--against", "jpeg", "--quality", "20,50,80,95"]
    done = CliRunner().invoke(build_app(), [*arguments, "--note", str(codec), "--json"])
    assert done.exit_code == 0, done.output
    after = json.loads(codec.read_text())
    note = after["notes"].pop("evaluation")
    assert after == before
    assert [point["quality"] for point in note["points"]] == [20, 50, 80, 95]
    assert {"psnr", "ms_ssim", "ssimulacra2", "bpp"} <= set(note["points"][0])
    assert note["data"] == "1 picture, real bytes"
    shown = CliRunner().invoke(build_app(), ["models", "show", str(codec)])
    assert shown.exit_code == 0 and "SSIMULACRA 2" in shown.stdout


def test_the_card_of_another_codec_is_left_alone(tmp_path: Path) -> None:
    codec = write_codec(tmp_path, "small", export(new_network(), "small", {}))
    before = codec.read_bytes()
    arguments = ["evaluate", str(KODAK), "--codec", "jpeg", "--against", "none", "--quality", "50"]
    done = CliRunner().invoke(build_app(), [*arguments, "--note", str(codec)])
    assert done.exit_code == 2 and codec.read_bytes() == before


@pytest.mark.parametrize("content", ["{}", "[]", '{"digest": "x"}'])
def test_what_is_no_codec_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(content)
    arguments = ["evaluate", str(KODAK), "--codec", "jpeg", "--against", "none", "--quality", "50"]
    done = CliRunner().invoke(build_app(), [*arguments, "--note", str(path)])
    assert done.exit_code != 0 and path.read_text() == content


def test_only_the_measures_that_were_asked_for(tmp_path: Path) -> None:
    one = tmp_path / "one.png"
    with Image.open(next(KODAK.glob("*.png"))) as image:
        image.crop((100, 100, 300, 300)).save(one)
    arguments = ["evaluate", str(one), "--codec", "jpeg", "--against", "none", "--quality", "50", "--json"]
    done = CliRunner().invoke(build_app(), [*arguments, "--measures", "ssimulacra2,psnr"])
    (point,) = json.loads(done.stdout)["curve"]["points"]
    assert point["psnr"] and point["ssimulacra2"] and point["ms_ssim"] is point["butteraugli"] is None
    wrong = CliRunner().invoke(build_app(), [*arguments, "--measures", "vmaf"])
    assert wrong.exit_code == 2 and "ssimulacra2" in wrong.stderr


def test_a_card_that_is_not_there_is_told_before_anything_is_measured(tmp_path: Path) -> None:
    arguments = ["evaluate", str(KODAK), "--codec", "jpeg", "--against", "none", "--quality", "50"]
    done = CliRunner().invoke(build_app(), [*arguments, "--note", str(tmp_path / "none.json")])
    assert done.exit_code == 2 and "none.json" in done.stderr and "jpeg on" not in done.stdout
