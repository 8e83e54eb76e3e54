"""The comparison under one budget: every name is an architecture, and what is finished is not trained again."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.systems import ABLATIONS, SYSTEMS, config, file_name, run
from lichen.errors import UsageError
from lichen.models.decoupled.network import NetworkConfig
from lichen.models.registry import load_codec


def test_every_system_has_an_architecture_of_its_own() -> None:
    configs = {file_name(name): config(name) for name in (*SYSTEMS, *ABLATIONS)}
    assert len(configs) == len(set(map(repr, configs.values()))) == len(SYSTEMS) + len(ABLATIONS)
    rates = {(c.lambda_min, c.lambda_max) for c in configs.values() if isinstance(c, NetworkConfig)}
    assert len(rates) == 1


def test_what_is_finished_is_not_trained_again(data_folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[float, str]] = []

    def report(share: float, name: str) -> None:
        seen.append((share, name))

    names = ["s2c-identity", "hscatb:no-low"]
    sources, out = [data_folder / "samples"], tmp_path / "systems"
    assert run(sources, out, steps=2, batch=1, names=names, held=1, report=report, stop=lambda: True) == []
    assert seen[-1] == (0.0, "s2c-identity")  # stopped within the first
    codecs = run(sources, out, steps=2, batch=1, names=names, held=1, report=report)
    assert codecs == [out / "s2c-identity" / "s2c-identity.json", out / "hscatb-no-low" / "hscatb-no-low.json"]
    assert [load_codec(str(codec)).name for codec in codecs] == ["s2c-identity", "hscatb-no-low"]
    assert {name for _, name in seen} == set(names)
    seen.clear()
    assert run(sources, out, steps=2, batch=1, names=names, held=1, report=report) == codecs
    assert seen == [(0.0, "s2c-identity"), (0.5, "hscatb:no-low")]


def test_unknown_systems(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no nonsense; there are s2c-identity, "):
        run([tmp_path], tmp_path, names=["nonsense"])
