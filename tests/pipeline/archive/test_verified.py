"""Whatever a job writes is read back: a store that damages it makes the command fail, and leaves nothing behind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jobs_support import job_config

from lichen.errors import VerificationFailed
from lichen.pipeline.archive.reader import Archive
from lichen.pipeline.archive.store import LocalStore
from lichen.pipeline.archive.verified import create_verified
from lichen.pipeline.engine.driver import run_job
from lichen.pipeline.verify import verify_archive


@pytest.mark.parametrize(
    "name",
    [
        r"/lichen\.json",
        r"/codecs/",
        r"/job\.json",
        r"/plan-\d+\.parquet",
        r"/plan\.json",
        r"/commits/",
        r"/snapshots/\d+\.json",
        r"/done\.json",
    ],
)
def test_files_that_a_store_damages_on_their_way(
    name: str, photo_files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources, folder = tmp_path / "sources", tmp_path / "archive"
    for key, data in photo_files.items():
        (sources / key).parent.mkdir(parents=True, exist_ok=True)
        (sources / key).write_bytes(data)
    config = job_config(sources, folder, codec="jpeg", executor="local", attempts=1)
    damaged: list[str] = []

    def create(store: LocalStore, path: str, data: bytes) -> bool:
        if re.search(name, path) and "/lease/" not in path and path not in damaged:
            damaged.append(path)
            data = data[:10] + bytes([data[10] ^ 1]) + data[11:]
        return honest(store, path, data)

    honest = LocalStore._create
    monkeypatch.setattr(LocalStore, "_create", create)
    with pytest.raises(Exception, match=r"does not hold the .* bytes that were written") as found:
        run_job(config)
    assert isinstance(found.value, VerificationFailed) or isinstance(found.value.__cause__, VerificationFailed)
    assert damaged and not Path(damaged[0]).exists()
    monkeypatch.undo()
    run_job(config)
    result = verify_archive(Archive.open(str(folder)))
    assert result.ok and result.pictures == 6  # and a text


def test_what_another_wrote_is_not_looked_at(store: LocalStore) -> None:
    assert create_verified(store, "codecs/x", b"one")
    assert not create_verified(store, "codecs/x", b"two")
    assert store.read("codecs/x") == b"one"
