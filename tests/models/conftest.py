"""A small learned codec for all tests of this package."""

from __future__ import annotations

import pytest
from learned_support import new_network

from lichen.models.checkpoint import export_codec, load_full
from lichen.models.learned import LearnedCodec
from lichen.models.placement import place


@pytest.fixture(scope="session")
def codec_files() -> dict[str, bytes]:
    return export_codec(new_network(), "small", {"training": "starting values"})


@pytest.fixture(scope="session")
def codec(codec_files: dict[str, bytes]) -> LearnedCodec:
    return load_full(codec_files, place("cpu", "float32"))
