"""What portability costs is measured on the codecs that pay it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from learned_support import photograph
from snapped_support import lively

from lab.snapping import run
from lichen.errors import UsageError
from lichen.models.bundle import write_codec
from lichen.models.snapped.scheme import freeze


def test_time_and_bytes(tmp_path: Path) -> None:
    write_codec(tmp_path, "mbt", freeze(lively("mbt2018-mean"), "mbt", {}))
    picture = np.ascontiguousarray(photograph()[:128, :128])
    (cost,) = run([str(tmp_path / "mbt.json")], picture, device="cpu", repeats=1)
    assert (cost.name, cost.trained) == ("mbt", True)
    assert cost.encode > 0
    assert cost.decode > 0
    assert 0 < cost.listed < 0.02


def test_codecs_that_are_exact_are_refused() -> None:
    with pytest.raises(UsageError, match="integer arithmetic"):
        run(["s2c-conv"], photograph()[:64, :64], device="cpu", repeats=1)
