"""Reading ahead of the codec: what is held is bounded, whatever the listing knew."""

from __future__ import annotations

from pathlib import Path

import pytest

from lichen.pipeline.engine import feed
from lichen.pipeline.engine.feed import Feed
from lichen.pipeline.engine.patience import Patience
from lichen.pipeline.sources import Source

SIZE, COUNT = 1 << 16, 64


@pytest.mark.parametrize("known", [True, False])
def test_bytes_read_ahead_are_bounded(tmp_path: Path, known: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that will be stored have no pixels to count."""
    monkeypatch.setattr(feed, "AHEAD_BYTES", 8 * SIZE)
    monkeypatch.setattr(feed, "UNKNOWN_SIZE", SIZE // 2)
    for number in range(COUNT):
        (tmp_path / f"{number:02d}.nef").write_bytes(bytes([number]) * SIZE)
    sources = [
        Source(key=path.name, uri=str(path), size=SIZE if known else None) for path in sorted(tmp_path.iterdir())
    ]
    seen = []
    with Feed(
        sources, options={}, openers=1, group_pictures=COUNT, group_pixels=1 << 20, patience=Patience(60)
    ) as ahead:
        while group := ahead.next_group():
            assert len(group) <= 8
            seen += [item.source.key for item in group]
            held = sum(len(future.result().data) for future in ahead._queue)
            assert held <= (8 if known else 16) * SIZE
            assert ahead._queued_bytes >= 0
    assert seen == [source.key for source in sources]
    assert ahead._queued_bytes == 0
