"""What one configuration encodes, every other decodes to the same symbols."""

from __future__ import annotations

from pathlib import Path

import pytest
from learned_support import photograph
from PIL import Image
from snapped_support import SMALL, lively

from lichen.jobs.bench.portability import CONFIGURATIONS, run
from lichen.models.bundle import write_codec
from lichen.models.snapped.scheme import freeze

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def codec_path(codec_files: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("codec") / "small.json"
    for kind, data in codec_files.items():
        path.with_suffix(f".{kind}").write_bytes(data)
    return path


def test_every_pair_of_configurations(codec_path: Path) -> None:
    kept = [c for c in CONFIGURATIONS if c.name in ("reference", "2 threads", "no oneDNN", "other CPU", "noise 1e-4")]
    pictures = [DATA / "kodak" / "kodim20.png", sorted((DATA / "samples").glob("*.jpg"))[0]]
    pairs = run(str(codec_path), pictures, quality=60, configurations=kept)
    assert len(pairs) == len(kept) ** 2
    assert [p for p in pairs if p.differing] == []
    exact = [p for p in pairs if not p.decoder.startswith("noise") and not p.encoder.startswith("noise")]
    assert max(p.apart for p in exact) <= 1e-4
    assert max(p.psnr_change for p in exact) <= 0.02


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SMALL)
def test_every_pair_of_configurations_in_the_snapped_scheme(name: str, tmp_path: Path) -> None:
    write_codec(tmp_path, name, freeze(lively(name), name, {}))
    pictures = [tmp_path / f"{n}.png" for n in range(2)]
    for n, picture in enumerate(pictures):
        Image.fromarray(photograph(n)[:200, : 256 - n]).save(picture)
    pairs = run(str(tmp_path / f"{name}.json"), pictures)
    assert len(pairs) == len(CONFIGURATIONS) ** 2
    assert [p for p in pairs if p.differing] == []
    exact = [p for p in pairs if not p.decoder.startswith("noise") and not p.encoder.startswith("noise")]
    assert max(p.psnr_change for p in exact) <= 0.02
