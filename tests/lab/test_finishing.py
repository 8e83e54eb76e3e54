"""Ways to finish a training: all start from the same weights, and each does what it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from learned_support import new_network
from snapped_support import lively

from lab.finishing import FINISHES, run
from lichen import defaults
from lichen.errors import UsageError
from lichen.models.bundle import write_codec
from lichen.models.registry import export


@pytest.fixture(scope="module")
def codec(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_codec(tmp_path_factory.mktemp("codec"), "small", export(new_network(), "small", {})))


def test_every_way_goes_on_from_the_same_weights(codec: str, data_folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[float, str]] = []

    def report(share: float, name: str) -> None:
        seen.append((share, name))

    photos = [data_folder / "samples"]
    result = run(photos, codec=codec, teacher=defaults.CODEC, steps=4, cache=tmp_path, held=1, report=report)
    assert [name for _, name in seen[:: len(seen) // len(FINISHES)]] == [finish.name for finish in FINISHES]
    assert [case.name for case in result.cases] == [finish.name for finish in FINISHES]
    assert [share for share, _ in seen] == sorted(share for share, _ in seen) and seen[-1][0] == 1
    losses = [result.before, *(case.loss for case in result.cases), *(case.last_loss for case in result.cases)]
    assert len(set(losses)) == len(losses)  # none of the choices is without effect
    assert all(abs(loss / result.before - 1) < 0.2 for loss in losses)
    assert all(0 < abs(case.bd_rate) < 50 for case in result.cases)


def test_unknown_ways_and_other_codecs(codec: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no nonsense; there are shipped, "):
        run([tmp_path], codec=codec, names=["nonsense"])
    with pytest.raises(UsageError, match="needs a teacher"):
        run([tmp_path], codec=codec, names=["distilled"])
    published = write_codec(tmp_path, "published", export(lively("mbt2018-mean"), "published", {}))
    with pytest.raises(UsageError, match="another entropy model"):
        run([tmp_path], codec=str(published))
