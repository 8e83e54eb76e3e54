"""What documents refer to exists."""

from __future__ import annotations

import re
from pathlib import Path

TESTS = Path(__file__).parent


def test_every_case_names_tests_that_exist() -> None:
    names = {
        name for path in TESTS.rglob("test_*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    files = {path.name for path in TESTS.rglob("test_*.py")}
    rows = [
        line for line in (TESTS.parent / "docs" / "cases.md").read_text().splitlines()
        if line.startswith("|") and not line.startswith(("| input", "| ---"))
    ]  # fmt: skip
    assert len(rows) > 50
    for row in rows:
        cited = row.rstrip("| ").rpartition(" | ")[2]
        assert set(re.findall(r"(test_\w+\.py)", cited)) <= files, row
        told = set(re.findall(r"\btest_\w+\b(?!\.py)", cited))
        assert told <= names, row
        assert told or "test_front_door.py" in row, row
