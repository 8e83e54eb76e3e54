"""What somebody cannot have meant is answered at once, and nothing is made."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lichen
from lichen.errors import UsageError
from lichen.pipeline.archive.marker import create_marker
from lichen.pipeline.archive.store import open_store
from lichen.pipeline.engine.mistakes import refuse_archives, refuse_pictures

Pictures = Callable[..., Path]


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def test_pictures_and_archive_the_wrong_way_round(pictures: Pictures, tmp_path: Path) -> None:
    source = pictures(2)
    lichen.compress(source, tmp_path / "archive", codec="webp", local=True)
    before = everything(tmp_path)
    with pytest.raises(UsageError, match="is an archive"):
        lichen.compress(tmp_path / "archive", source, codec="webp", local=True)
    with pytest.raises(UsageError, match="is an archive"):
        lichen.compress(tmp_path / "archive", tmp_path / "another", codec="webp", local=True)
    with pytest.raises(UsageError, match="holds pictures"):
        lichen.compress(source, source, codec="webp", local=True)
    assert everything(tmp_path) == before


def test_an_archive_beside_folders_of_pictures_is_no_mistake(pictures: Pictures, tmp_path: Path) -> None:
    source = pictures(2)
    lichen.compress(source, source.parent, codec="webp", local=True)
    assert len(lichen.open(source.parent)) == 2
    lichen.compress(source.parent, source.parent, codec="webp", local=True)  # goes on


@pytest.mark.parametrize("kind", ["local", "memory", "s3"])
def test_every_kind_of_store(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    url, options = str(tmp_path / "store"), {}
    if kind == "memory":
        url = f"memory://{uuid.uuid4().hex}"
    elif kind == "s3":
        url, options = request.getfixturevalue("s3_url"), request.getfixturevalue("s3_options")
    store = open_store(url, options)
    refuse_pictures(store)  # it is not there
    store.put("deep/below/one.jpg", b"picture")
    store.put("notes.txt", b"text")
    refuse_pictures(store)
    store.put("two.JPG", b"picture")
    with pytest.raises(UsageError, match=r"two\.JPG"):
        refuse_pictures(store)

    other = open_store(str(tmp_path / "other"))
    refuse_archives([url], options, other)
    create_marker(store)
    with pytest.raises(UsageError, match="is an archive"):
        refuse_archives([url], options, other)
    refuse_archives([url], options, open_store(url, options))


def test_a_bucket_that_is_not_there_is_named(pictures: Pictures, s3_options: dict[str, Any]) -> None:
    with pytest.raises(lichen.errors.LichenError, match="no-such-bucket"):
        lichen.compress(pictures(1), "s3://no-such-bucket-here/a", codec="webp", local=True, storage_options=s3_options)
