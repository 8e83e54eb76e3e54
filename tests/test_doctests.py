"""The examples in the documentation of modules run, and give what they say."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

MODULES = ("lichen.models.entropy.rans", "lichen.pipeline.archive.index", "lichen.pipeline.archive.reader")


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    results = doctest.testmod(import_module(name))
    assert results.attempted and not results.failed
