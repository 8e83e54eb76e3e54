"""Hostile bitstreams: an error of ours or a picture of the right size, quickly, whatever the bytes.

Four of five attacks know the format: they change fields, lengths and sections and then repair the checksum.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from learned_support import photograph
from snapped_support import SMALL, snapped_codec

from lichen.errors import LichenError
from lichen.models.batched import BatchedCodec
from lichen.models.bitstream import Bitstream, Section, pack, unpack

LONGEST_SECONDS = 5.0


def attacks(seeds: list[bytes], count: int, seed: int) -> Iterator[bytes]:
    chance = random.Random(seed)
    for _ in range(count):
        data = chance.choice(seeds)
        if chance.random() < 0.2:
            yield _blind(data, chance)
        else:
            yield _aware(unpack(data), chance, seeds)


def _blind(data: bytes, chance: random.Random) -> bytes:
    kind = chance.randrange(3)
    if kind == 0:
        return chance.randbytes(chance.randrange(400))
    if kind == 1:
        return data[: chance.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(chance.randrange(1, 9)):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _aware(parsed: Bitstream, chance: random.Random, seeds: list[bytes]) -> bytes:
    for _ in range(chance.randrange(1, 4)):
        kind = chance.randrange(6)
        first, *rest = parsed.sections
        if kind == 0:
            parsed = replace(parsed, quality=chance.choice([0, 1, 400, 792, 793, 65535]))
        elif kind == 1:
            side = chance.choice(["width", "height"])
            parsed = replace(parsed, **{side: chance.choice([1, 63, 64, 65, 128, 200, 1000, 1 << 20])})
        elif kind == 2:
            first = Section(z=_mutated(first.z, chance), y=first.y)
        elif kind == 3:
            first = Section(z=first.z, y=_mutated(first.y, chance))
        elif kind == 4:
            first = Section(z=first.y, y=first.z)
        else:
            first = replace(first, y=unpack(chance.choice(seeds)).sections[0].y)
        parsed = replace(parsed, sections=(first, *rest))
    return pack(parsed)


def _mutated(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    kind = chance.randrange(4)
    if kind == 0 and changed:
        for _ in range(chance.randrange(1, 20)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    elif kind == 1:
        del changed[chance.randrange(len(changed) + 1) :]
    elif kind == 2:
        changed += chance.randbytes(chance.randrange(1, 50))
    else:
        changed[:] = chance.randbytes(chance.randrange(len(changed) + 1))
    return bytes(changed)


def survive(codec: BatchedCodec, count: int, seed: int) -> dict[str, int]:
    picture = photograph()
    images = [picture[:64, :64], picture[:100, :70], picture[:1, :1]]
    seeds = [e.bitstream for q in (5, 60, 100) for e in codec.encode(images, q)]
    codec.max_pixels = 1 << 20  # what a caller who knows the size allows
    outcomes = {"refused": 0, "decoded": 0}
    for data in attacks(seeds, count, seed):
        started = time.monotonic()
        try:
            (decoded,) = codec.decode([data])
        except LichenError:
            outcomes["refused"] += 1
        else:
            parsed = unpack(data)
            assert decoded.pixels.shape == (parsed.height, parsed.width, 3)
            outcomes["decoded"] += 1
        assert time.monotonic() - started < LONGEST_SECONDS
    return outcomes


def test_five_thousand_attacks(codec: BatchedCodec) -> None:
    outcomes = survive(codec, 5_000, seed=1)
    assert min(outcomes.values()) > 50  # both ends are reached: the attacks get past the checksum


@pytest.mark.fuzz
@pytest.mark.timeout(7200)
def test_a_hundred_thousand_attacks(codec: BatchedCodec) -> None:
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes = survive(codec, 100_000, seed=2)
    assert min(outcomes.values()) > 1_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # kilobytes: under 1 GB


@pytest.mark.parametrize("name", ["tcm", "cwam-serial", "factorized"])
def test_attacks_on_the_snapped_scheme(name: str) -> None:
    assert min(survive(snapped_codec(name), 120, seed=3).values()) > 5


@pytest.mark.fuzz
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", SMALL)
def test_two_thousand_attacks_on_the_snapped_scheme(name: str) -> None:
    assert min(survive(snapped_codec(name), 2_000, seed=4).values()) > 60
