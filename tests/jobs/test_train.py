"""Training runs of a tiny model: files, resuming, stopping, starting weights, curves, the command."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from lichen.errors import TrainingError, UsageError
from lichen.jobs.cli import build_app
from lichen.jobs.training.config import TrainConfig
from lichen.jobs.training.curves import plot_curves, read_log, truncate_log
from lichen.jobs.training.run import TrainResult, source_name, train
from lichen.models.decoupled.network import NetworkConfig
from lichen.models.registry import load_codec

SMALL = NetworkConfig(width=16, depth=1, hidden=16, hyper=16, features=16, context=16)
CONFIG = TrainConfig(
    steps=4, batch=2, crop=64, large_crop=64, validation=1, validate_every=2, checkpoint_every=2, warmup=2
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def steps_of(folder: Path, log: str = "steps.csv") -> list[int]:
    with (folder / log).open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / "checkpoint.pt", weights_only=True)["network"]
    return state


@pytest.fixture(scope="module")
def finished(data_folder: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run of four steps without interruption."""
    folder = tmp_path_factory.mktemp("run")
    return train([data_folder / "samples"], folder, CONFIG, model=SMALL, name="tiny", precision="float32", cache=cache)


def test_a_run_leaves_logs_curves_and_a_codec_that_works(finished: TrainResult, data_folder: Path) -> None:
    folder = finished.folder
    assert finished.steps == 4 and finished.resumed_from == 0 and finished.pictures == 6
    assert steps_of(folder) == [1, 2, 3, 4] and steps_of(folder, "validation.csv") == [2, 4]
    assert finished.codec == folder / "tiny.json" and finished.curves == folder / "curves.png"
    with Image.open(finished.curves) as curves:
        assert curves.size[0] > 1000
    codec = load_codec(str(finished.codec))
    assert codec.digest == finished.digest
    with Image.open(data_folder / "kodak/kodim05.png") as image:
        pixels = np.asarray(image.convert("RGB"))[:100, :130]
    encoded = codec.encode([pixels], 60.0)[0]
    assert codec.decode([encoded.bitstream])[0].symbols == encoded.symbols
    card = json.loads(finished.codec.read_text())
    notes = json.dumps(card["notes"])
    assert card["notes"]["training"]["steps"] == 4 and card["notes"]["training"]["sources"] == ["samples"]
    assert str(data_folder) not in notes and "/" not in card["notes"]["training"]["sources"][0]


def test_a_stopped_run_goes_on_to_the_same_weights(
    finished: TrainResult, data_folder: Path, cache: Path, tmp_path: Path
) -> None:
    def again(stop_after: int) -> TrainResult:
        done = []
        return train(
            [data_folder / "samples"],
            tmp_path,
            CONFIG,
            model=SMALL,
            name="tiny",
            precision="float32",
            cache=cache,
            report=lambda progress, _: done.append(progress.step),
            stop=lambda: done[-1] == stop_after,
        )

    stopped = again(3)
    assert (stopped.steps, stopped.codec, stopped.digest) == (3, None, None)
    assert not (tmp_path / "tiny.json").exists()
    # As if the process had been killed later: rows behind the checkpoint are written again.
    with (tmp_path / "steps.csv").open("a") as log:
        log.write("4," + ",".join(["0"] * 7) + "\n5,")
    result = again(99)
    assert (result.resumed_from, result.steps) == (3, 4) and result.codec is not None
    assert steps_of(tmp_path) == [1, 2, 3, 4]
    found = weights(tmp_path)
    for name, value in weights(finished.folder).items():
        assert torch.equal(value, found[name]), name
    assert result.digest == finished.digest


def test_a_finished_run_only_exports_again(finished: TrainResult, data_folder: Path, cache: Path) -> None:
    sources = [data_folder / "samples"]
    result = train(sources, finished.folder, CONFIG, model=SMALL, name="other", precision="float32", cache=cache)
    assert (result.resumed_from, result.steps) == (4, 4)
    assert steps_of(finished.folder) == [1, 2, 3, 4] and (finished.folder / "other.safetensors").exists()


def test_starting_from_a_codec_keeps_its_weights(
    finished: TrainResult, data_folder: Path, cache: Path, tmp_path: Path
) -> None:
    still = replace(CONFIG, steps=1, rate=0.0, final_rate=0.0)
    assert finished.codec is not None
    result = train([data_folder / "samples"], tmp_path, still, start=str(finished.codec), cache=cache)
    assert result.codec is not None
    best = torch.load(finished.folder / "best.pt", weights_only=True)["average"]
    for name, value in weights(tmp_path).items():
        assert torch.allclose(value, best[name], atol=2e-3, rtol=2e-3), name
    assert json.loads(result.codec.read_text())["notes"]["training"]["started_from"] == "tiny.json"


def test_a_deeper_codec_starts_where_a_shallower_one_ended(
    finished: TrainResult, data_folder: Path, cache: Path, tmp_path: Path
) -> None:
    still = replace(CONFIG, steps=1, rate=0.0, final_rate=0.0)
    deeper = replace(SMALL, blocks="s2c-hybrid", depth=3)
    result = train([data_folder / "samples"], tmp_path, still, model=deeper, start=str(finished.codec), cache=cache)
    assert result.codec is not None
    assert json.loads(result.codec.read_text())["decoder"]["arguments"]["depth"] == 3
    best = torch.load(finished.folder / "best.pt", weights_only=True)["average"]
    for name, value in weights(tmp_path).items():
        if name in best:
            assert torch.allclose(value, best[name], atol=2e-3, rtol=2e-3), name


@pytest.mark.parametrize(
    ("change", "options"),
    [
        ({"steps": None}, {}),
        ({"validation": 0}, {}),
        ({}, {"name": "../evil"}),
        ({}, {"name": ".hidden"}),
        ({}, {"precision": "float16"}),
        ({}, {"start": "webp"}),
        ({}, {"start": "no/such/codec.json"}),
        ({}, {"device": "abacus"}),
    ],
)
def test_wrong_requests(data_folder: Path, tmp_path: Path, change: dict[str, object], options: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        train([data_folder / "samples"], tmp_path / "run", replace(CONFIG, **change), **options)  # type: ignore[arg-type]
    assert not (tmp_path / "run" / "checkpoint.pt").exists()


def test_sources_without_pictures(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError):
        train([tmp_path / "empty"], tmp_path / "run", CONFIG, model=SMALL)


def test_logs_of_resumed_runs(tmp_path: Path) -> None:
    log = tmp_path / "steps.csv"
    log.write_text("step,loss,bpp,psnr\n1,9,1,20\n2,8,1,21\n2,7,1,22\n3,nan,1,23\n")
    table = read_log(log)
    assert table["step"].tolist() == [1, 2, 3] and table["loss"][1] == 7
    plot_curves(tmp_path, tmp_path / "curves.png")  # a loss that is no number and no validation at all
    assert (tmp_path / "curves.png").stat().st_size > 5000
    truncate_log(log, 1)
    assert log.read_text() == "step,loss,bpp,psnr\n1,9,1,20\n"
    truncate_log(tmp_path / "none.csv", 1)
    for text in ("step,loss\n1,x\n", "loss\n1\n", "step,loss\n1\n"):
        log.write_text(text)
        with pytest.raises(TrainingError):
            read_log(log)


def test_the_command(finished: TrainResult, data_folder: Path, cache: Path, tmp_path: Path) -> None:
    arguments = ["train", str(data_folder / "samples"), "--out", str(tmp_path), "--steps", "1", "--batch", "2"]
    arguments += ["--crop", "64", "--large-crop", "64", "--validation", "1", "--cache", str(cache), "--name", "mine"]
    arguments += ["--from-codec", str(finished.codec), "--rate", "0.0001", "--device", "cpu", "--json"]
    arguments += ["--held-out", "--large-part", "0.5"]
    result = CliRunner().invoke(build_app(), arguments)
    assert result.exit_code == 0, result.output
    parsed = json.loads(result.stdout)
    assert parsed["steps"] == 1 and Path(parsed["codec"]) == tmp_path / "mine.json"
    card = json.loads((tmp_path / "mine.json").read_text())
    configuration = card["notes"]["training"]["configuration"]
    assert (configuration["rate"], configuration["large_part"]) == (0.0001, 0.5)
    (held,) = (tmp_path / "validation").iterdir()
    with Image.open(held) as image:
        assert max(image.size) <= 768


def test_a_bucket_is_trained_on_and_no_password_is_told(
    data_folder: Path, s3_url: str, s3_options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    s3fs.S3FileSystem(**s3_options).put(str(data_folder / "samples"), f"{s3_url}/photos", recursive=True)
    monkeypatch.chdir(tmp_path)
    signed = s3_url.replace("s3://", "s3://AKIDEXAMPLE:topsecret@") + "/photos"
    store = json.dumps({"client_kwargs": s3_options["client_kwargs"]})
    arguments = [
        *("train", signed, "--out", "run", "--source-options", store, "--json", "--steps", "1", "--batch", "1"),
        *("--crop", "64", "--large-crop", "64", "--validation", "1", "--context-crops", "0"),
    ]
    done = CliRunner().invoke(build_app(), arguments)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["pictures"] == 6
    told = [done.output, *(path.read_text() for path in tmp_path.rglob("*.json"))]
    assert not any("topsecret" in text or "AKIDEXAMPLE" in text for text in told)
    assert json.loads((tmp_path / result["codec"]).read_text())["notes"]["training"]["sources"] == ["photos"]
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_card_names_sources_without_their_secrets() -> None:
    names = {
        "s3://key:topsecret@bucket": "bucket",
        "https://host/pics.tar?X-Amz-Signature=topsecret": "pics.tar",
        "https://host/pics.tar?t=topsecret": "pics.tar",
        "/home/me/pictures?": "pictures?",
    }
    assert {source: source_name(source) for source in names} == names


def test_what_is_not_there_is_told_without_passwords(tmp_path: Path) -> None:
    url = "https://user:topsecret@127.0.0.1:1/a.jpg"
    done = CliRunner().invoke(build_app(), ["train", url, "--out", str(tmp_path / "run"), "--steps", "1", "--json"])
    assert done.exit_code in (1, 2) and "topsecret" not in done.output
