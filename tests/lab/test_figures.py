"""The figures that are committed are those that are drawn, and stand on a ground of their own."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from lab.figures import FIGURES, FOLDER

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_what_is_drawn(name: str) -> None:
    assert (FOLDER / f"{name}.svg").read_text() == FIGURES[name]().svg(), "python -m lab figures"


@pytest.mark.parametrize("name", FIGURES)
def test_nothing_leaves_the_picture(name: str) -> None:
    root = ElementTree.fromstring(FIGURES[name]().svg())
    width, height = (float(root.attrib[side]) for side in ("width", "height"))
    ground = root.find(f"{SVG}rect")
    assert ground is not None and ground.attrib["fill"] == "#ffffff" and float(ground.attrib["width"]) == width - 1
    for box in root.iter(f"{SVG}rect"):
        left, top, wide, high = (float(box.attrib[key]) for key in ("x", "y", "width", "height"))
        assert left >= 0 and left + wide <= width and top >= 0 and top + high <= height
    for path in root.findall(f"{SVG}path"):
        numbers = [float(number) for number in re.findall(r"[\d.]+", path.attrib["d"])]
        assert max(numbers[::2]) <= width and max(numbers[1::2]) <= height


def test_every_file_is_drawn_here() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(FIGURES)
