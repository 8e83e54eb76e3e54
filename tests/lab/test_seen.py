"""The sheet of pictures side by side: equal bytes, chosen by rule, drawn where it hurts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from lab.commands import build_app
from lab.seen import SIDE, chosen, place, run
from lichen.errors import UsageError
from lichen.models.classical import ClassicalCodec

KODAK = Path(__file__).parents[1] / "data" / "kodak"


def pictures() -> dict[str, np.ndarray]:
    found = {path.name: np.asarray(Image.open(path).convert("RGB")) for path in sorted(KODAK.glob("*.png"))[:3]}
    return {name: np.ascontiguousarray(pixels[:320, :384]) for name, pixels in found.items()}


def test_rivals_take_no_more_bytes_and_the_best_quality_that_fits() -> None:
    webp, jpeg = ClassicalCodec("webp"), ClassicalCodec("jpeg")
    sights = run(webp, [jpeg], pictures(), quality=60)
    assert [sight.lead for sight in sights] == sorted(sight.lead for sight in sights)
    for sight in sights:
        own, rival = sight.seen
        assert own.quality == 60 and rival.bytes <= own.bytes
        assert len(jpeg.encode([sight.source], rival.quality + 1)[0].bitstream) > own.bytes
        (again,) = jpeg.decode([jpeg.encode([sight.source], rival.quality)[0].bitstream])
        assert np.array_equal(rival.pixels, again.pixels)
    assert chosen(sights) == sights and chosen(sights[:1]) == sights[:1]


def test_the_square_is_where_the_errors_are() -> None:
    (sight, *_) = run(ClassicalCodec("webp"), [ClassicalCodec("jpeg")], pictures(), quality=90)
    assert place(sight)[0] + SIDE <= 320 and place(sight)[1] + SIDE <= 384
    sight.seen[0].pixels[-40:, -40:] = 255 - sight.source[-40:, -40:]
    assert place(sight) == (320 - SIDE, 384 - SIDE)


def test_the_command_draws_a_sheet(tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    arguments = ["seen", str(KODAK), "--out", str(sheet), "--codec", "webp", "--against", "jpeg", "--json"]
    done = CliRunner().invoke(build_app(), arguments)
    assert done.exit_code == 0, done.output
    scores = json.loads(done.stdout)
    assert len(scores) == 4 and {"jpeg", "webp"} == set(scores[0]["ssimulacra2"])
    with Image.open(sheet) as image:
        assert image.width == 3 * (SIDE + 8) - 8 and image.height > 3 * SIDE


def test_pictures_that_are_too_small() -> None:
    small = {"a": np.zeros((100, 300, 3), np.uint8)}
    with pytest.raises(UsageError, match="256 pixels"):
        run(ClassicalCodec("webp"), [ClassicalCodec("jpeg")], small, quality=50)
