"""A small learned codec for all tests of this package."""

from __future__ import annotations

import pytest
from learned_support import new_network

from lichen.models.decoupled.codec import DecoupledCodec
from lichen.models.device import find_device
from lichen.models.registry import export, load_files


@pytest.fixture(scope="session")
def codec_files() -> dict[str, bytes]:
    return export(new_network(), "small", {"training": "starting values"})


@pytest.fixture(scope="session")
def codec(codec_files: dict[str, bytes]) -> DecoupledCodec:
    return load_files(codec_files, find_device("cpu", "float32"))
