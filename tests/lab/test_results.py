"""The page of results is what its JSON files say, and those agree with the cards of the weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from lab.record import record
from lab.results import FOLDER, PAGE, README, SECTIONS, load, page, readme
from lichen.errors import JobError, UsageError

WEIGHTS = Path(__file__).parents[2] / "models" / "weights"
SHIPPED = ("s2c-conv", "s2c-psnr", "s2c-conv-deep")


def test_the_page_and_the_readme_are_up_to_date() -> None:
    assert PAGE.read_text() == page(), "make results"
    assert README.read_text() == readme(README.read_text()), "make results"


def test_the_page_is_one_page_and_shows_every_file() -> None:
    assert len(PAGE.read_text().splitlines()) <= 150
    assert sorted(name for _, names in SECTIONS for name in names) == sorted(path.stem for path in FOLDER.iterdir())


@pytest.mark.parametrize("codec", SHIPPED)
def test_results_are_those_of_the_weights_that_ship(codec: str) -> None:
    card = json.loads((WEIGHTS / f"{codec}.json").read_text())
    kodak, held = (load(f"{pictures}-{codec}")["result"] for pictures in ("kodak", "held-out"))
    assert kodak["digest"] == held["digest"] == card["digest"]
    noted = card["notes"]["evaluation"]
    for point, same in zip(kodak["curve"]["points"], noted["points"], strict=True):
        assert {name: point[name] for name in same} == same
    found = {(one["metric"], one["anchor"]): one["percent"] for one in kodak["comparisons"]}
    for metric, rates in noted["bd_rate_percent"].items():
        for anchor, percent in rates.items():
            # The card of the deep codec knows s2c-psnr by its earlier name.
            assert round(found[metric, "s2c-psnr" if anchor == "s2c-conv" else anchor], 2) == percent


def test_a_command_is_recorded_with_its_machine(tmp_path: Path) -> None:
    (tmp_path / "cores.json").write_text(json.dumps({"kind": "table", "notes": ["As it is."]}))
    program = "import json, sys; assert sys.argv[1:] == ['--json']; print(json.dumps({'columns': ['a'], 'rows': []}))"
    record("cores", [sys.executable, "-c", program], folder=tmp_path)
    kept = load("cores", tmp_path)
    assert kept["kind"] == "table" and kept["notes"] == ["As it is."] and kept["result"]["columns"] == ["a"]
    assert "cores of" in kept["machine"] and kept["command"].startswith(sys.executable)


def test_what_cannot_be_recorded_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no"):
        record("cores", ["true"], folder=tmp_path)
    path = tmp_path / "cores.json"
    path.write_text(json.dumps({"kind": "table", "notes": []}))
    before = path.read_text()
    with pytest.raises(JobError, match="ended with 1"):
        record("cores", ["false"], folder=tmp_path)
    with pytest.raises(JobError, match="no JSON"):
        record("cores", ["echo", "a"], folder=tmp_path)
    assert path.read_text() == before
