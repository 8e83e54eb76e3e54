"""Effort level by level."""

from __future__ import annotations

import numpy as np
import pytest
from learned_support import photograph

from lab.effort import run
from lichen.errors import UsageError
from lichen.models.registry import load_codec


def test_levels_against_the_default() -> None:
    picture = np.ascontiguousarray(photograph()[:160, :160])
    levels = run(load_codec("jxl"), [picture], [1, 5], qualities=(30.0, 50.0, 70.0, 90.0))
    assert [level.effort for level in levels] == [1, 3, 5]
    assert levels[1].against is None
    for level in (levels[0], levels[2]):
        assert level.against is not None
        assert level.against.percent is not None
        assert level.encode_mp_per_s > 0
    with pytest.raises(UsageError, match="effort"):
        run(load_codec("jxl"), [picture], [12])
    with pytest.raises(UsageError, match="which efforts"):
        run(load_codec("jxl"), [picture], [])
