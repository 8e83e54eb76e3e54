"""What the benchmarks share that train several variants one after the other: which ones, and how far they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Protocol, TypeVar

from lichen.errors import UsageError
from lichen.jobs.training.loop import Trainer

Tell = Callable[[float, str], None]
"""Called with the share of all work that is done, 0 to 1, and the name of what is being trained."""


class Named(Protocol):
    """What has a name."""

    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=Named)


def chosen(among: Sequence[T], names: Collection[str] | None) -> list[T]:
    """Those of ``among`` with one of ``names``, all where there are none. Raises ``UsageError`` for unknown names."""
    check_names([one.name for one in among], names or ())
    return [one for one in among if not names or one.name in names]


def check_names(known: Collection[str], names: Collection[str]) -> None:
    """Raises ``UsageError`` unless all ``names`` are ``known``."""
    if unknown := sorted(set(names) - set(known)):
        raise UsageError(f"there is no {', '.join(unknown)}; there are {', '.join(known)}")


def told(names: Sequence[str], report: Tell | None) -> Iterator[Callable[[float], None]]:
    """For each of ``names``, in order, what tells ``report`` how much of it is done, 0 to 1."""

    def tell(number: int, share: float) -> None:
        if report is not None:
            report((number + share) / len(names), names[number])

    for number in range(len(names)):
        tell(number, 0.0)
        yield lambda share, number=number: tell(number, share)  # type: ignore[misc]


def train_to_the_end(trainer: Trainer, tell: Callable[[float], None]) -> None:
    """Train for the steps that are left, without files."""
    steps = trainer.config.steps or 0
    while trainer.step < steps:
        trainer.train_step()
        tell(trainer.step / steps)
