"""`lichen models`: architectures, and published checkpoints as codecs that other commands then know by name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from learned_support import photograph
from PIL import Image
from typer.testing import CliRunner

from lichen import defaults
from lichen.errors import UsageError
from lichen.jobs.cli import build_app
from lichen.models.bundle import write_codec
from lichen.models.registry import architectures, check_name, codec_names, full_files, load_codec, training_notes
from lichen.models.snapped.cwam import CWAM, CWAMConfig


def test_architectures() -> None:
    done = CliRunner().invoke(build_app(), ["models", "architectures", "--json"])
    assert done.exit_code == 0, done.output
    found = {one["name"]: one for one in json.loads(done.stdout)}
    assert list(found) == list(architectures())
    assert found["tcm-small"]["rates"] == "one" and found["hscatb"]["rates"] == "continuous"
    assert "no-channel" in found["hscatb"]["switches"]
    table = CliRunner().invoke(build_app(), ["models", "architectures"])
    assert "cwam-320" in table.stdout


def test_a_codec_that_ships_tells_how_it_was_trained() -> None:
    for name in (defaults.CODEC, defaults.STRONG_CODEC, defaults.EXACT_CODEC):
        done = CliRunner().invoke(build_app(), ["models", "show", name, "--json"])
        assert done.exit_code == 0, done.output
        shown = json.loads(done.stdout)
        assert shown["name"] == shown["configuration"]["name"] == name
        assert shown["digest"] == load_codec(name).digest
        assert shown["notes"]["training"]["steps"] > 1000 and len(shown["notes"]["evaluation"]["points"]) == 8
        readable = CliRunner().invoke(build_app(), ["models", "show", name]).stdout
        percent = shown["notes"]["evaluation"]["bd_rate_percent"]["psnr"]["AVIF iq (speed 6, 4:4:4)"]
        assert f"{percent:+.1f} %" in readable and '"minutes"' in readable
    classical = json.loads(CliRunner().invoke(build_app(), ["models", "show", "webp", "--json"]).stdout)
    assert classical["notes"] == {} and classical["configuration"]["family"] == "classical"


def test_the_stronger_codec_is_stronger_and_ships_small() -> None:
    """Of those for squared error."""
    same, strong = (training_notes(name)["evaluation"] for name in (defaults.EXACT_CODEC, defaults.STRONG_CODEC))
    avif = [notes["bd_rate_percent"]["psnr"]["AVIF iq (speed 6, 4:4:4)"] for notes in (same, strong)]
    assert avif[1] < avif[0] < 0
    assert sum(map(len, full_files(defaults.STRONG_CODEC).values())) < 16e6


def test_an_imported_checkpoint_is_a_codec_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LICHEN_CODECS", str(tmp_path / "codecs"))
    torch.manual_seed(0)
    torch.save({"state_dict": CWAM(CWAMConfig(channels=16, context="serial")).state_dict()}, tmp_path / "best.pth.tar")
    arguments = ["models", "import", "cwam", str(tmp_path / "best.pth.tar"), "--name", "cwam-16", "--lambda", "0.0175"]
    done = CliRunner().invoke(build_app(), [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["name"] == "cwam-16"
    assert "cwam-16" in codec_names()
    codec = load_codec("cwam-16")
    image = np.ascontiguousarray(photograph()[:64, :128])
    (encoded,) = codec.encode([image], 50)
    assert codec.decode([encoded.bitstream])[0].symbols == encoded.symbols
    Image.fromarray(image).save(tmp_path / "picture.png")
    floors = ["--psnr-floor", "0", "--block-psnr-floor", "0"]
    command = ["compress", str(tmp_path / "picture.png"), str(tmp_path / "archive"), "--codec", "cwam-16", "--local"]
    done = CliRunner().invoke(build_app(), [*command, *floors, "--json"])
    assert done.exit_code == 0, done.output


def test_a_name_that_ships_is_the_shipped_codec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LICHEN_CODECS", str(tmp_path / "codecs"))
    shipped = full_files(defaults.CODEC)
    for name in (defaults.CODEC, "webp", "mine"):
        write_codec(tmp_path / "codecs", name, full_files(defaults.STRONG_CODEC))
    assert full_files(defaults.CODEC) == shipped
    assert load_codec(defaults.CODEC).digest != load_codec("mine").digest == load_codec(defaults.STRONG_CODEC).digest
    assert full_files("mine") == full_files(defaults.STRONG_CODEC)
    assert training_notes("webp") == {}
    torch.save({"state_dict": CWAM(CWAMConfig(channels=16, context="serial")).state_dict()}, tmp_path / "best.pth.tar")
    arguments = ["models", "import", "cwam", str(tmp_path / "best.pth.tar"), "--name", defaults.CODEC]
    refused = CliRunner().invoke(build_app(), arguments)
    assert refused.exit_code != 0 and "ships with lichen" in " ".join(refused.output.split())
    assert CliRunner().invoke(build_app(), [*arguments, "--out", str(tmp_path)]).exit_code == 0


def test_a_checkpoint_of_something_else(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    done = CliRunner().invoke(
        build_app(), ["models", "import", "tcm", str(tmp_path / "other.pth"), "--out", str(tmp_path)]
    )
    assert done.exit_code != 0
    assert list(tmp_path.glob("*.json")) == []


@pytest.mark.parametrize("name", ["", "../x", ".x", "a b", "ä"])
def test_names_of_codecs(name: str) -> None:
    with pytest.raises(UsageError, match="no name"):
        check_name(name)


def test_files_that_are_no_codecs_are_not_replaced(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save({"state_dict": CWAM(CWAMConfig(channels=16, context="serial")).state_dict()}, tmp_path / "best.pth")
    command = ["models", "import", "cwam", str(tmp_path / "best.pth"), "--out", str(tmp_path)]
    for name, content in (
        ("best.json", b'{"learning_rate": 1e-4}'),
        ("best.safetensors", b"weights"),
        ("best.json", b"["),
    ):
        (tmp_path / name).write_bytes(content)
        done = CliRunner().invoke(build_app(), command)
        assert done.exit_code == 2 and f"{name} is there already" in done.stderr
        assert (tmp_path / name).read_bytes() == content
        (tmp_path / name).unlink()
    (tmp_path / "best.safetensors.partial").symlink_to(tmp_path / "best.pth")
    before = (tmp_path / "best.pth").read_bytes()
    for _ in range(2):  # its own are replaced
        assert CliRunner().invoke(build_app(), command).exit_code == 0
    assert (tmp_path / "best.pth").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {
        "best.pth", "best.json", "best.safetensors", "best.safetensors.partial",
    }  # fmt: skip
