"""How a training should end: from the same weights, short runs of equal budget with one choice changed in each.

``ablation`` ranks what helps a new network learn; here are the choices of the last part of a long run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from torch import Tensor

from lab.variants import Tell, chosen, told, train_to_the_end
from lichen import defaults
from lichen.errors import UsageError
from lichen.jobs.bdrate import Point, bd_rate
from lichen.jobs.training.config import TrainConfig
from lichen.jobs.training.data import open_cache
from lichen.jobs.training.loop import Trainer
from lichen.models.blocks.rounding import noisy, rounded
from lichen.models.decoupled.entropy_model import RateProxy, logistic_bits, secant_bits
from lichen.models.decoupled.network import CodecNetwork
from lichen.models.registry import full_files, network_from_files

RATE = 3e-4
"""Learning rate that all begin with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """One choice changed: fields of ``TrainConfig``, what gives rates a gradient, which parts do not learn, or the
    target."""

    name: str
    note: str
    change: dict[str, Any] = field(default_factory=dict)
    rate: RateProxy = secant_bits
    frozen: tuple[str, ...] = ()
    distilled: float = 0.0
    """Share of the teacher's reconstruction in what reconstructions are compared with (Hinton et al., 2015)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishCase:
    """One run: the validation loss of the averaged weights, and that of the last ones.

    ``bd_rate`` is that of the averaged weights against those before, in per cent (negative: fewer bits for the same
    PSNR), on the validation pictures.
    """

    name: str
    note: str
    loss: float
    last_loss: float
    bd_rate: float
    seconds_per_step: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Finishing:
    """What the runs measured; ``before`` is the validation loss that they all started with."""

    codec: str
    steps: int
    before: float
    cases: tuple[FinishCase, ...]


def noisy_bits(residual: Tensor, _offset: Tensor, log_scale: Tensor) -> Tensor:
    """Bits of the residual with uniform noise instead of rounding."""
    return logistic_bits(noisy(residual), log_scale)


def rounded_bits(residual: Tensor, _offset: Tensor, log_scale: Tensor) -> Tensor:
    """Bits of the rounded residual, with the gradient as if it were not."""
    return logistic_bits(rounded(residual), log_scale)


FINISHES = (
    Finish(
        name="shipped",
        note="2 crops of 384 pixels, learning rate down to nothing, rates that change by whole steps",
    ),
    Finish(name="crops-192", note="8 crops of 192 pixels", change={"crop": 192, "batch": 8}),
    Finish(name="crops-128", note="18 crops of 128 pixels", change={"crop": 128, "batch": 18}),
    Finish(name="constant", note="no decay of the learning rate", change={"final_rate": RATE}),
    Finish(name="relative", note="the logarithm of each crop's loss", change={"relative": True}),
    Finish(name="noise", note="rates of residuals with uniform noise", rate=noisy_bits),
    Finish(name="rounded", note="rates of rounded residuals, straight-through gradients", rate=rounded_bits),
    Finish(name="entropy", note="only the entropy model learns", frozen=("g_a", "g_s")),
    Finish(name="distilled", note="half of the target is what the teacher makes of the picture", distilled=0.5),
)


def run(
    sources: Sequence[str | Path],
    *,
    codec: str = defaults.CODEC,
    teacher: str | None = None,
    steps: int = 200,
    names: Sequence[str] | None = None,
    cache: str | Path | None = None,
    held: int = 24,
    report: Tell | None = None,
) -> Finishing:
    """Go on with a codec's weights for ``steps`` steps in every way of ``FINISHES`` (or those of ``names``).

    ``teacher`` is a stronger codec; without one nothing is distilled. ``held`` pictures are kept for validation. Raises
    ``UsageError`` and ``TrainingError``.
    """
    finishes = chosen(FINISHES, names)
    if teacher is None:
        if names and any(finish.distilled for finish in finishes):
            raise UsageError("distillation needs a teacher")
        finishes = [finish for finish in finishes if not finish.distilled]
    network, master = _network(codec), None if teacher is None else _network(teacher).eval()
    base = TrainConfig(
        steps=steps, batch=2, crop=384, large_part=0.0, rate=RATE, final_rate=1e-6, warmup=max(1, steps // 10),
        ema=0.99, validation=held,
    )  # fmt: skip
    cases = []
    with TemporaryDirectory() as scratch:
        pictures = open_cache([Path(s) for s in sources], Path(scratch) / "cache" if cache is None else Path(cache))
        before: Mapping[str, float] = {}
        for finish, tell in zip(finishes, told([f.name for f in finishes], report), strict=True):
            config, folder = replace(base, **finish.change), Path(scratch) / finish.name
            target = partial(_towards, master, finish.distilled) if finish.distilled and master is not None else None
            trainer = Trainer(network.config, config, pictures, folder, target=target)
            trainer.adopt(network)
            before = before or trainer.validate()
            cases.append(_case(finish, trainer, before, tell))
    return Finishing(codec=codec, steps=steps, before=before["loss"], cases=tuple(cases))


def _network(codec: str) -> CodecNetwork:
    network = network_from_files(full_files(codec))
    if not isinstance(network, CodecNetwork):
        raise UsageError(f"{codec} has another entropy model than the codecs that are compared here")
    return network


def _towards(teacher: CodecNetwork, share: float, x: Tensor, quality: Tensor) -> Tensor:
    """Pictures, moved by ``share`` towards what the teacher makes of them.

    Squared errors against this differ from the weighted sum of those against both by what no student can change.
    """
    return x.lerp(teacher(x, quality)[0].float(), share)


def _case(finish: Finish, trainer: Trainer, before: Mapping[str, float], tell: Callable[[float], None]) -> FinishCase:
    assert isinstance(trainer.network, CodecNetwork)
    trainer.network.entropy.rate = finish.rate
    for part in finish.frozen:
        trainer.network.get_submodule(part).requires_grad_(False)
    train_to_the_end(trainer, tell)
    after = trainer.validate()
    trainer.average = trainer.network.state_dict()
    return FinishCase(
        name=finish.name,
        note=finish.note,
        loss=after["loss"],
        last_loss=trainer.validate()["loss"],
        bd_rate=bd_rate(_points(before), _points(after)).percent,
        seconds_per_step=60 * trainer.minutes / max(1, trainer.step),
    )


def _points(validation: Mapping[str, float]) -> list[Point]:
    return [(validation[f"bpp_{q:.0f}"], validation[f"psnr_{q:.0f}"]) for q in CodecNetwork.watched]
