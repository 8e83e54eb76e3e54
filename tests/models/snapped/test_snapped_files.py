"""Codec files of the published architectures, and what hostile ones may not do."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from learned_support import damaged
from snapped_support import snapped_codec

from lichen.errors import InvalidCodec
from lichen.models.registry import codec_from_files

VALUES: list[Any] = [
    None, True, -1, 0, 1, 3, 10**6, 10**30, 1.5, float("nan"), float("inf"), "", "many", "hscatb", [], [1, 2, 3],
    [10**6] * 3, {}, [[16]] * 3,
]  # fmt: skip
FIELDS = ["family", "format", "name", "architecture", "arguments", "self_test"]


@pytest.fixture(scope="module", params=["cwam", "hscatb", "factorized"])
def files(request: pytest.FixtureRequest) -> dict[str, bytes]:
    return dict(snapped_codec(request.param).decoder_files())


def refused(files: dict[str, bytes]) -> bool:
    started = time.monotonic()
    try:
        codec_from_files(files)
    except InvalidCodec:
        return True
    finally:
        assert time.monotonic() - started < 5
    return False


def test_absurd_arguments_are_refused(files: dict[str, bytes]) -> None:
    card = json.loads(files["json"])
    for key in card["arguments"]:
        for value in VALUES:
            changed = card | {"arguments": card["arguments"] | {key: value}}
            harmless = value == card["arguments"][key] or key.startswith("weight")  # the decoder has no use for them
            assert refused(files | {"json": json.dumps(changed).encode()}) or harmless, (key, value)
    assert refused(files | {"json": json.dumps(card | {"arguments": {}}).encode()})


@pytest.mark.parametrize("field", FIELDS)
def test_absurd_fields_are_refused(files: dict[str, bytes], field: str) -> None:
    card = json.loads(files["json"])
    for value in VALUES:
        if field == "name" and isinstance(value, str) and value:
            continue
        if value == card[field] and type(value) is type(card[field]):
            continue
        assert refused(files | {"json": json.dumps(card | {field: value}).encode()}), value
    del card[field]
    assert refused(files | {"json": json.dumps(card).encode()})


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_weights_are_refused_or_others(files: dict[str, bytes], data: st.DataObject) -> None:
    weights = damaged(files["safetensors"], data, header=3000)
    try:
        changed = codec_from_files(files | {"safetensors": weights})
    except InvalidCodec:
        return
    assert changed.digest != codec_from_files(files).digest or weights == files["safetensors"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("tables.z_index", lambda a: a.astype(np.int64)),
        ("tables.z_index", lambda a: a[:-1]),
        ("tables.z_index", lambda a: a + 200),
        ("tables.y.minimums", lambda a: a[:-2]),
        ("entropy_bottleneck.quantiles", lambda a: a * np.nan),
        ("entropy_bottleneck.quantiles", lambda a: a.astype(np.float64)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(files: dict[str, bytes], name: str, change: Any) -> None:
    arrays = safetensors.numpy.load(files["safetensors"])
    assert name in arrays
    arrays[name] = np.ascontiguousarray(change(arrays[name]))
    assert refused(files | {"safetensors": safetensors.numpy.save(arrays)})
