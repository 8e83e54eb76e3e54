"""Every error has a code that never changes, an exit code, and says what to do; docs/errors.md lists them."""

from __future__ import annotations

import re
from pathlib import Path

from lichen import errors

CLASSES = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.LichenError)
}


def test_codes_are_there_and_unique() -> None:
    for name, kind in CLASSES.items():
        assert "code" in vars(kind), f"{name} has no code of its own"
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", kind.code), name
        assert kind.exit_code in (1, 2, 4), name
    codes = [kind.code for kind in CLASSES.values()]
    assert len(codes) > 25 and len(set(codes)) == len(codes)


def test_the_page_tells_what_the_classes_tell() -> None:
    """docs/errors.md has one row for each class: its code, its exit code, its name and its docstring."""
    page = (Path(__file__).parents[1] / "docs" / "errors.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    expected = [
        f"| `{kind.code}` | {kind.exit_code} | `{name}` | {' '.join((kind.__doc__ or '').split()).replace('``', '`')} |"
        for name, kind in CLASSES.items()
    ]
    assert rows == expected


def test_docstrings_say_what_to_do() -> None:
    """What happened, and then something else."""
    for name, kind in CLASSES.items():
        assert len(re.findall(r"[.;:](?: |$)", " ".join((kind.__doc__ or "").split()))) >= 2, name
