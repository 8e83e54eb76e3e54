"""Threads of codecs: how many, how many of torch's each has, and who may go through the gate."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from learned_support import new_network

from lichen.errors import UsageError
from lichen.models.decoupled.codec import DecoupledCodec
from lichen.models.device import find_device
from lichen.models.registry import export, load_codec, load_files
from lichen.pipeline.lanes import Gate, Lanes


@pytest.fixture(scope="module")
def learned() -> DecoupledCodec:
    return load_files(export(new_network(), "small", {}), find_device("cpu", "float32"))


@pytest.fixture
def before() -> Iterator[int]:
    """Torch's threads in this thread, an unusual number."""
    usual = torch.get_num_threads()
    torch.set_num_threads(5)
    yield 5
    torch.set_num_threads(usual)


def threads_in_a_lane(lanes: Lanes, *, alone: bool) -> tuple[int, int]:
    """Torch's threads in a turn and after it."""

    def work() -> tuple[int, int]:
        with lanes.turn(alone=alone):
            inside = torch.get_num_threads()
        return inside, torch.get_num_threads()

    with lanes.pool() as pool:
        return pool.submit(work).result()


@pytest.mark.parametrize(
    ("options", "count", "threads"),
    [
        ({}, 4, 1),
        ({"groups": 9}, 4, 1),
        ({"groups": 2}, 2, 2),  # cores that would have no lane help the others
        ({"groups": 1}, 1, 4),
        ({"groups": 0}, 1, 4),
        ({"count": 3}, 3, 1),
        ({"count": 6, "groups": 2}, 6, 1),
    ],
)
def test_cores_are_divided_among_the_lanes(
    learned: DecoupledCodec, before: int, options: dict[str, int], count: int, threads: int
) -> None:
    with Lanes([learned], cpus=4, **options) as lanes:
        assert lanes.count == count
        assert threads_in_a_lane(lanes, alone=False) == (threads, threads)
        assert threads_in_a_lane(lanes, alone=True) == (4, threads)
    assert torch.get_num_threads() == before


def test_torch_gets_no_more_threads_than_it_would_take(learned: DecoupledCodec, before: int) -> None:
    with Lanes([learned], cpus=64, groups=2) as lanes:
        assert threads_in_a_lane(lanes, alone=False) == (before, before)
        assert threads_in_a_lane(lanes, alone=True) == (before, before)


def test_torch_is_left_alone_where_no_codec_uses_it(before: int) -> None:
    with Lanes([load_codec("webp")], cpus=4) as lanes:
        assert lanes.count == 4
        assert threads_in_a_lane(lanes, alone=True) == (before, before)
    with Lanes([], cpus=3) as lanes:  # only stored originals
        assert lanes.count == 3


def test_no_lanes_are_refused() -> None:
    with pytest.raises(UsageError, match="0 lanes"):
        Lanes([], count=0)


def test_the_gate_lets_large_work_through_alone() -> None:
    gate = Gate()
    inside: list[str] = []
    lock = threading.Lock()

    def work(name: str) -> None:
        for _ in range(50):
            with gate.alone() if name.startswith("large") else gate.shared():
                with lock:
                    inside.append(name)
                    crowd = list(inside)
                assert not any(one.startswith("large") for one in crowd) or len(crowd) == 1
                with lock:
                    inside.remove(name)

    errors: list[BaseException] = []

    def guarded(name: str) -> None:
        try:
            work(name)
        except AssertionError as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(name,)) for name in ("large1", "large2", "a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors
    assert not any(thread.is_alive() for thread in threads)
