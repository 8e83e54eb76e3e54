"""Processes that begin ahead of who needs them."""

from __future__ import annotations

from lichen.pipeline.engine import spawn
from lichen.pipeline.engine.spawn import ahead, take


def test_a_process_that_nobody_took_ends_with_the_context() -> None:
    with ahead():
        (early,) = spawn._waiting
        assert early.process.poll() is None
    assert early.process.poll() is not None
    assert early.pipe.closed


def test_the_first_takes_the_early_one_and_the_next_a_new_one() -> None:
    with ahead():
        (early,) = spawn._waiting
        first, second = take(), take()
    try:
        assert first is early
        assert second is not early
        assert first.process.poll() is None  # the context leaves it to who took it
    finally:
        for one in (first, second):
            one.kill()
            one.pipe.close()


def test_a_process_ends_when_its_pipe_is_closed() -> None:
    one = take()
    one.pipe.close()
    assert one.process.wait(30) == 0
