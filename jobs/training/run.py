"""A training run from sources to codec files: cache, training, resuming, curves, export, proof."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lichen import defaults
from lichen.errors import InvalidCodec, TrainingError, UsageError
from lichen.jobs.training.config import TrainConfig
from lichen.jobs.training.curves import plot_curves, truncate_log
from lichen.jobs.training.data import PictureCache, open_cache, write_held_out
from lichen.jobs.training.hypercontext import CROPS, SIDE, fit_context
from lichen.jobs.training.loop import Trainer, TrainProgress
from lichen.models.blocks.network import Config, TrainableNetwork
from lichen.models.bundle import check_free, write_codec
from lichen.models.device import find_device
from lichen.models.registry import (
    build,
    check_name,
    config_from_json,
    config_of,
    export,
    full_files,
    load_files,
    network_from_files,
    scheme_of,
)
from lichen.pipeline.secrets import without_query, without_secrets

OnStep = Callable[[TrainProgress, Mapping[str, float] | None], None]
"""Called after every step, with the validation where there was one."""

ARCHITECTURE = "s2c-conv"
"""What is trained where nobody chooses."""
PROOF_SIDE = 256
FEWEST_CROPS = 20
"""With fewer the context of the hyper-latent would hardly learn anything that holds elsewhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """How a run ended. ``codec`` is None if it was stopped before the end of its budget."""

    folder: Path
    codec: Path | None
    """The JSON file of the exported codec; its weights are beside it."""
    digest: str | None
    curves: Path | None
    pictures: int
    resumed_from: int
    """The step that the run went on from; 0 for a fresh run."""
    steps: int
    minutes: float
    skipped: int
    validation_loss: float
    """The lowest validation loss, which the exported weights have."""


def train(
    sources: Sequence[str | Path],
    folder: str | Path,
    config: TrainConfig,
    *,
    model: Config | None = None,
    name: str = defaults.CODEC,
    device: str = "auto",
    precision: str = "auto",
    cache: str | Path | None = None,
    start: str | None = None,
    notes: Mapping[str, Any] | None = None,
    held_out: bool = False,
    options: Mapping[str, Any] | None = None,
    report: OnStep | None = None,
    stop: Callable[[], bool] | None = None,
) -> TrainResult:
    """Train on pictures, and export ``<name>.json`` and ``<name>.safetensors``.

    Sources are what a job takes: folders, tar files, pictures, any fsspec URL with its ``options``.
    A folder with a checkpoint goes on from it, under the budget of ``config``; a fresh run begins with random
    weights (of ``model``) or with those of the codec ``start`` (a name or the path of a codec JSON); with both,
    ``model`` is deeper, and starts as what ``start`` computes (``lichen.models.decoupled.growing``). ``cache`` holds
    decoded pictures, by default inside ``folder``. ``stop`` is asked after every step and ends the run with a
    checkpoint. ``notes`` go into the codec's card. With ``held_out`` the middles of the validation pictures are written
    into ``folder / "validation"`` first. Raises ``TrainingError`` and ``UsageError``.
    """
    if config.steps is None and config.minutes is None:
        raise UsageError("a training run needs a budget of steps or minutes")
    if config.validation < 1:
        raise UsageError("at least one picture must be held out for validation")
    check_free(Path(folder), check_name(name))
    where = find_device(device, precision)
    if where.half not in (None, torch.bfloat16):
        raise UsageError("training is in float32 or bfloat16")
    folder = Path(folder)
    pictures = open_cache(sources, folder / "cache" if cache is None else Path(cache), options=options)
    if held_out:
        write_held_out(pictures, config.validation, folder / "validation")
    network = None if start is None else network_from_files(full_files(start))
    if network is not None and model is not None:
        network = scheme_of(network.config).grow(network, model)
    architecture = model or config_of(ARCHITECTURE) if network is None else network.config
    trainer = Trainer(architecture, config, pictures, folder, device=str(where.on), autocast=where.half is not None)
    if trainer.checkpoint.exists():
        trainer.resume()
        for log in ("steps.csv", "validation.csv"):
            truncate_log(folder / log, trainer.step)
    elif network is not None:
        trainer.adopt(network)
    resumed_from = trainer.step
    last: dict[str, float] = {}

    def each(progress: TrainProgress, validation: Mapping[str, float] | None) -> None:
        if validation is not None:
            last.update(validation)
            plot_curves(folder, folder / "curves.png")
        if report is not None:
            report(progress, validation)
        if stop is not None and stop():
            trainer.save()
            raise _StoppedError

    try:
        trainer.run(each)
        stopped = False
    except _StoppedError:
        stopped = True
    codec = digest = None
    if not stopped:
        card = _card(sources, config, trainer, pictures, last, start) | dict(notes or {})
        codec, digest = _export(folder, name, trainer, pictures, card)
    curves = folder / "curves.png"
    if (folder / "steps.csv").exists():
        plot_curves(folder, curves)
    return TrainResult(
        folder=folder,
        codec=codec,
        digest=digest,
        curves=curves if curves.exists() else None,
        pictures=len(pictures),
        resumed_from=resumed_from,
        steps=trainer.step,
        minutes=trainer.minutes,
        skipped=trainer.skipped,
        validation_loss=trainer.best,
    )


class _StoppedError(Exception):
    """Leaves the loop between two steps."""


def best_network(path: Path, device: torch.device | str = "cpu") -> TrainableNetwork:
    """The averaged weights of the ``best.pt`` of a run. Raises ``UsageError`` if the file holds none."""
    try:
        best = torch.load(path, map_location=device, weights_only=True)
        network = build(config_from_json(best["model"]))
        network.load_state_dict(best["average"])
    except (OSError, KeyError, TypeError, RuntimeError, InvalidCodec) as error:
        raise UsageError(f"{path} holds no weights of this architecture: {error}") from error
    return network


def _export(
    folder: Path, name: str, trainer: Trainer, pictures: PictureCache, card: Mapping[str, Any]
) -> tuple[Path, str]:
    """Write the codec files of the best weights, and prove that they decode what they encode."""
    network, context = best_network(folder / "best.pt", trainer.device), None
    if scheme_of(network.config).fits_context and (crops := _context_crops(trainer)):
        fitted = fit_context(network, pictures, trainer.config.validation, crops=crops, seed=trainer.config.seed)
        context = fitted.context
        card = {**card, "hyper_context": {"crops": crops, "saved": round(fitted.saved, 4)}}
    files = export(network, name, card, context, trainer.mix)
    codec = load_files(files, find_device("cpu", "float32"))
    picture = np.ascontiguousarray(pictures.picture(0)[:PROOF_SIDE, :PROOF_SIDE])
    encoded = codec.encode([picture], 50.0)[0]
    decoded = codec.decode([encoded.bitstream])[0]
    if decoded.symbols != encoded.symbols or decoded.pixels.shape != picture.shape:
        raise TrainingError("the exported codec does not decode what it encodes")
    return write_codec(folder, name, files), codec.digest


def _context_crops(trainer: Trainer) -> int:
    """How many crops the context of the hyper-latent is fitted to."""
    config = trainer.config
    if config.context_crops is not None:
        return config.context_crops
    crops = min(CROPS, trainer.step * config.batch * config.crop**2 // (10 * SIDE**2))
    return crops if crops >= FEWEST_CROPS else 0


def source_name(source: str | Path) -> str:
    """The name of a source as the codec's card has it, which goes wherever the codec goes: without passwords,
    signatures, and where on this machine it lies."""
    return Path(without_query(without_secrets(str(source)))).name


def _card(
    sources: Sequence[str | Path],
    config: TrainConfig,
    trainer: Trainer,
    pictures: PictureCache,
    validation: Mapping[str, float],
    start: str | None,
) -> dict[str, Any]:
    """What the codec's JSON tells about its training; no paths of this machine."""
    hardware = torch.cuda.get_device_name(trainer.device) if trainer.device.type == "cuda" else platform.machine()
    return {
        "training": {
            "sources": sorted(map(source_name, sources)),
            "pictures": len(pictures),
            "megapixels": round(sum(h * w for h, w in pictures.sizes) / 1e6, 1),
            "steps": trainer.step,
            "minutes": round(trainer.minutes, 1),
            "skipped_steps": trainer.skipped,
            "device": f"{trainer.device.type} ({hardware}, {torch.get_num_threads()} threads)",
            "precision": "bfloat16" if trainer.autocast else "float32",
            "torch": torch.__version__,
            "started_from": None if start is None else Path(start).name,
            "configuration": asdict(config),
        },
        "validation": {"best_loss": trainer.best, "last": {key: round(value, 4) for key, value in validation.items()}},
    }
