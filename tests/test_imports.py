"""Who imports whom: a package is read floor by floor, and a house with circles has no floors."""

from __future__ import annotations

from graphlib import TopologicalSorter

import imports
import pytest


def test_what_is_counted(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "high").mkdir(parents=True)
    (tmp_path / "models" / "__init__.py").touch()
    (tmp_path / "models" / "high" / "__init__.py").touch()
    (tmp_path / "models" / "low.py").write_text("from lichen.errors import UsageError")
    (tmp_path / "models" / "high" / "one.py").write_text("from lichen.models import low\nimport lichen.models.high.two")
    (tmp_path / "models" / "high" / "two.py").write_text("def late():\n    from lichen.models.low import name")
    monkeypatch.setattr(imports, "ROOT", tmp_path)
    inner = imports.modules("models")
    assert inner["models.high.one"] == {"models.low", "models.high.two"}
    assert imports.rooms(inner) == {"models.low": set(), "models.high": {"models.low"}}
    assert imports.arrows(imports.rooms(inner)) == 1
    assert imports.floors(imports.rooms(inner)) == 2


def test_models_have_few_arrows_and_no_circle() -> None:
    inner = imports.modules("models")
    rooms = imports.rooms(inner)
    TopologicalSorter(inner).prepare()
    assert len(rooms) <= 15
    assert imports.arrows(rooms) < 45
    assert imports.floors(rooms) <= 6


def test_jobs_have_no_circle() -> None:
    inner = imports.modules("jobs")
    TopologicalSorter(inner).prepare()
    assert imports.floors(imports.rooms(inner)) <= 6


def test_neither_scheme_knows_the_other() -> None:
    rooms = imports.rooms(imports.modules("models"))
    assert "models.snapped" not in rooms["models.decoupled"]
    assert "models.decoupled" not in rooms["models.snapped"]
    assert [room for room, used in rooms.items() if {"models.decoupled", "models.snapped"} & used] == [
        "models.registry"
    ]


def test_packages_import_one_way() -> None:
    for package, above in (("models", ("pipeline", "jobs")), ("pipeline", ("jobs",))):
        for path in (imports.ROOT / package).rglob("*.py"):
            text = path.read_text()
            assert not any(f"from lichen.{other}" in text or f"import lichen.{other}" in text for other in above), path
