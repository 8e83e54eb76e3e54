"""The entropy coder's benchmark measures what it says, and its comparison comes out as promised."""

from __future__ import annotations

import json

import pytest

from lichen.jobs.bench.entropy import run


@pytest.mark.timeout(120)
def test_both_coders_agree_on_the_rate_and_ours_is_faster() -> None:
    result = run(pictures=1, repeats=2)
    latents, complete, dense = result.cases
    assert latents.coded < latents.symbols == complete.coded == dense.coded
    for case in result.cases:
        assert 0 <= case.lichen_excess < 0.001
        assert case.lichen_rate < case.compressai_rate * 1.001
        # Far under what an idle machine measures, so that a busy one does not fail.
        assert case.encode.ratio > 2 and case.decode.ratio > 2
    assert latents.ideal_rate < complete.ideal_rate < dense.ideal_rate
    assert json.loads(result.to_json())["cases"][1]["coded"] == complete.symbols
