"""What documents refer to exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


@pytest.mark.parametrize(("page", "least"), [("cases.md", 50), ("security.md", 15)])
def test_every_case_names_tests_that_exist(page: str, least: int) -> None:
    names = {
        name for path in TESTS.rglob("test_*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(), re.M)
    }
    files = {path.name for path in TESTS.rglob("test_*.py")}
    rows = [
        line for line in (TESTS.parent / "docs" / page).read_text().splitlines()
        if line.startswith("|") and not line.endswith("test |") and "---" not in line
    ]  # fmt: skip
    assert len(rows) > least
    for row in rows:
        cited = row.rstrip("| ").rpartition(" | ")[2]
        assert set(re.findall(r"(test_\w+\.py)", cited)) <= files, row
        told = set(re.findall(r"\btest_\w+\b(?!\.py)", cited))
        assert told <= names, row
        assert told or "test_front_door.py" in row, row


ROOT = TESTS.parent
PLACES = re.compile(r"`((?:lichen|models|pipeline|jobs|lab|tests|docs)/[\w./-]*[\w/])`")
MODULES = re.compile(r"``lichen((?:\.[a-z_0-9]+)+)(?:\.\w+)*(?:\(\))?``")
LINKS = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(?:#[^)]*)?\)")

ANCHORS = re.compile(r"\]\((?!https?:)([^)#\s]*)#([^)\s]+)\)")


OTHERS = {"jobs/lease/", "lichen/codecs"}
"""What looks like one of ours and is a folder of an archive, or of the user's."""


def documents() -> list[Path]:
    """Every page that is read by people."""
    return [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "models").rglob("*.md")]


def test_files_that_pages_name_exist() -> None:
    missing = {
        f"{page.relative_to(ROOT)}: {name}" for page in documents() for name in PLACES.findall(page.read_text())
        if not (ROOT / name).exists() and name not in OTHERS
    }  # fmt: skip
    assert not missing


def test_links_between_pages_lead_somewhere() -> None:
    missing = {
        f"{page.relative_to(ROOT)}: {link}" for page in documents() for link in LINKS.findall(page.read_text())
        if not (page.parent / link).exists()
    }  # fmt: skip
    assert not missing


def test_headings_that_links_name_exist() -> None:
    missing = set()
    for page in documents():
        for link, heading in ANCHORS.findall(page.read_text()):
            target = page.parent / link if link else page
            # As GitHub makes them of headings: lower case, no punctuation, hyphens for spaces.
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            known = {re.sub(r"[^\w\- ]", "", title).lower().replace(" ", "-") for title in titles}
            if heading not in known:
                missing.add(f"{page.relative_to(ROOT)}: {link}#{heading}")
    assert not missing


def test_modules_and_files_that_docstrings_name_exist() -> None:
    missing = set()
    for package in ("lichen", "models", "pipeline", "jobs", "lab"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text()
            for dotted in MODULES.findall(text):
                parts = dotted.strip(".").split(".")
                # The last one may be a name in the module before.
                ends = [top.joinpath(*part) for top in (ROOT, ROOT / "lichen") for part in (parts, parts[:-1])]
                if not any(end.is_dir() or end.with_suffix(".py").exists() for end in ends):
                    missing.add(f"{path.relative_to(ROOT)}: lichen.{'.'.join(parts)}")
            missing |= {
                f"{path.relative_to(ROOT)}: {name}" for name in re.findall(r"``?((?:docs|tests)/[\w./-]+\w)", text)
                if not (ROOT / name).exists()
            }  # fmt: skip
    assert not missing
