"""The mixed set and the choice among codecs in hindsight."""

from __future__ import annotations

import numpy as np
import pytest
from learned_support import photograph

from lab.graphics import KINDS, middle, mixed
from lab.mixed import run, show
from lichen.errors import UsageError


def test_a_seed_gives_the_same_pictures() -> None:
    photo = middle(photograph(), 160)
    assert photo.shape == (160, 160, 3)
    once, again, other = (mixed([photo], seed=seed) for seed in (3, 3, 4))
    assert once.keys() == {"photograph-00", *(f"{kind}-00" for kind in KINDS)}
    assert all(np.array_equal(once[name], again[name]) for name in once)
    assert not np.array_equal(once["page-00"], other["page-00"])


def test_auto_against_hindsight() -> None:
    pictures = mixed([middle(photograph(), 128)], seed=1)
    chosen = {name: middle(pictures[name], 200) for name in ("photograph-00", "page-00", "drawing-00")}
    rows = run(chosen, quality=80.0, names=("webp", "avif", "webp-lossless"))
    assert [row.photograph for row in rows] == [True, False, False]
    for row in rows:
        assert row.hindsight <= row.bytes["webp"]
        assert row.auto_score >= row.score
        assert row.auto_block_psnr >= min(row.block_psnr, 60.0)
    assert rows[0].codec == "webp"
    for row in rows[1:]:
        assert row.auto <= row.bytes["webp"]
        assert row.auto <= 1.05 * row.hindsight
    tables = show(rows)
    assert [table.row_count for table in tables] == [4, 4]
    with pytest.raises(UsageError, match="at least two"):
        run(chosen, names=("webp",))
