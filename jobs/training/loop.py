"""The training loop: one optimisation step, schedule, averaging of weights, validation, checkpoints.

The objective is ``lambda * distortion + bpp`` divided by ``sqrt(lambda)``, so that all rates of the variable-rate
model learn alike; every picture of a batch has a random quality. ``lichen.models.perceptual.distortion`` says what
distortion is.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lichen.errors import TrainingError, UsageError
from lichen.jobs.training.config import TrainConfig
from lichen.jobs.training.data import CropSampler, PictureCache, middles, split
from lichen.jobs.training.gradients import Gradients
from lichen.jobs.training.soap import Soap
from lichen.models.blocks.network import Config
from lichen.models.codec import MAX_QUALITY, MIN_QUALITY
from lichen.models.perceptual.distortion import SMALLEST_SIDE
from lichen.models.registry import config_from_json, scheme_of

RELATIVE_UNIT = 10.0
"""What a relative loss is multiplied with: about the loss, so that gradients are clipped alike."""


Target = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainProgress:
    """What a step reports."""

    step: int
    progress: float
    minutes: float
    loss: float
    bpp: float
    psnr: float
    rate: float
    skipped: int


class Trainer:
    """A run that can be stopped at any step and resumed from ``checkpoint``.

    ``prepare`` gives a new network its starting values, from ``(256, 3, 128, 128)`` patches in [0, 1], in the place of
    what its scheme does (``lichen.models.registry.Scheme``). ``target`` gives what reconstructions of pictures
    ``(B, 3, H, W)`` at qualities ``(B,)`` are compared with in training, where that is not the pictures.
    """

    def __init__(
        self,
        model: Config,
        config: TrainConfig,
        cache: PictureCache,
        folder: Path,
        *,
        device: str = "cpu",
        autocast: bool = False,
        prepare: Callable[[Any, Tensor], None] | None = None,
        target: Target | None = None,
    ) -> None:
        torch.manual_seed(config.seed)
        folder.mkdir(parents=True, exist_ok=True)
        self.model, self.config = model, config
        self.folder = folder
        self.device = torch.device(device)
        self.autocast = autocast
        training, validation = split(cache, config.validation)
        self.sampler = CropSampler(cache, training, config.seed)
        scheme = scheme_of(model)
        self.network = scheme.build(model)
        self.held = middles(cache, validation, self.network.grid)
        if config.crop % self.network.grid or config.large_crop % self.network.grid:
            raise UsageError(f"the sides of crops are multiples of {self.network.grid} for this architecture")
        self.mix = config.mix
        if self.mix.perceptual and min(config.crop, config.large_crop) < SMALLEST_SIDE:
            raise UsageError(f"a perceptual objective needs crops of at least {SMALLEST_SIDE} pixels a side")

        def patches() -> Tensor:
            return torch.from_numpy(CropSampler(cache, training, config.seed).batch(256, 128).copy()) / 255

        factors = scheme.begin(self.network, patches, prepare)
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = {k: v.detach().clone() for k, v in self.network.state_dict().items()}
        self.optimiser = Soap(self._groups(), lr=config.rate)
        self.gradients = Gradients(self._objective, list(self.network.parameters()), config.lanes)
        self.conditioned = [
            (parameter, factors[name].to(self.device))
            for name, parameter in self.network.named_parameters()
            if name in factors
        ]
        self.target = target
        self.step = 0
        self.minutes = 0.0
        self.skipped = 0
        self.best = math.inf

    # --- state ------------------------------------------------------------------------------------

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def adopt(self, network: nn.Module) -> None:
        """Begin with the weights of a network of the same architecture instead of those that the trainer made."""
        self.network.load_state_dict(network.state_dict())
        self.average = {name: value.detach().clone() for name, value in self.network.state_dict().items()}

    def _groups(self) -> list[dict[str, Any]]:
        groups: dict[float, list[Tensor]] = {}
        for name, parameter in self.network.named_parameters():
            groups.setdefault(_rate_scale(name, self.config), []).append(parameter)
        return [{"params": parameters, "scale": scale} for scale, parameters in groups.items()]

    def save(self) -> None:
        """Write everything that resuming needs, atomically."""
        state = {
            "model": self.model.to_json(),
            "config": asdict(self.config),
            "network": self.network.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "minutes": self.minutes,
            "skipped": self.skipped,
            "best": self.best,
            "torch_random": torch.get_rng_state(),
            "numpy_random": self.sampler.random.bit_generator.state,
        }
        temporary = self.checkpoint.with_suffix(".partial")
        torch.save(state, temporary)
        temporary.replace(self.checkpoint)

    def resume(self) -> None:
        """Go on from ``checkpoint``. Raises ``TrainingError`` if it belongs to another architecture."""
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        if config_from_json(state["model"]) != self.model:
            raise TrainingError(f"{self.checkpoint} was trained with another architecture; choose another folder")
        if state["optimiser"]["param_groups"][0].keys() != self.optimiser.param_groups[0].keys():
            raise TrainingError(f"{self.checkpoint} was trained with another optimiser; export it and start from it")
        self.network.load_state_dict(state["network"])
        self.average = state["average"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.step, self.minutes = state["step"], state["minutes"]
        self.skipped, self.best = state["skipped"], state["best"]
        torch.set_rng_state(state["torch_random"].cpu())
        self.sampler.random.bit_generator.state = state["numpy_random"]

    # --- one step ---------------------------------------------------------------------------------

    def _objective(self, x: Tensor, quality: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            target = x if self.target is None else self.target(x, quality)
        losses, mse, bpp = self._losses(x, quality, target)
        if self.config.relative:
            losses = RELATIVE_UNIT * losses.log()
        return losses.mean(), mse, bpp

    def _losses(self, x: Tensor, quality: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, the MSE against ``target`` and the bits per pixel of each crop."""
        context = torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext()
        with context:
            decoded, y_bits, z_bits = self.network(x, quality)
        decoded = decoded.float()
        mse = (decoded - target).square().mean(dim=(1, 2, 3))
        bpp = (y_bits + z_bits) / (x.shape[2] * x.shape[3])
        weight = self.network.lagrangian(quality)
        return (weight * self.mix.distortion(decoded, target) + bpp) / weight.sqrt(), mse, bpp

    def train_step(self) -> TrainProgress:
        """One optimisation step. Steps whose gradient is not finite are skipped and counted."""
        started = time.perf_counter()
        progress = self.config.progress(self.step, self.minutes)
        rate = self.config.learning_rate(self.step, progress)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["scale"]
        count, side = self.config.crops(progress)
        crops = torch.from_numpy(np.ascontiguousarray(self.sampler.batch(count, side)))
        x = (crops.to(self.device, non_blocking=True) / 255).contiguous(memory_format=torch.channels_last)
        # stratified over the batch, so that every step sees low and high rates
        strata = (torch.arange(count) + torch.rand(count)) / count
        quality = (MIN_QUALITY + strata * (MAX_QUALITY - MIN_QUALITY)).to(self.device)
        self.network.train()
        loss, mse, bpp = self.gradients(x, quality)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        if torch.isfinite(norm):
            self._optimise()
            self._update_average()
        else:
            self.skipped += 1
        self.step += 1
        self.minutes += (time.perf_counter() - started) / 60
        return TrainProgress(
            step=self.step,
            progress=progress,
            minutes=self.minutes,
            loss=loss.item(),
            bpp=bpp.mean().item(),
            psnr=(-10 * torch.log10(mse.clamp(min=1e-10))).mean().item(),
            rate=rate,
            skipped=self.skipped,
        )

    @torch.no_grad()
    def _optimise(self) -> None:
        """One step of the optimiser, with the factors of ``conditioning`` on the changes."""
        before = [parameter.clone() for parameter, _ in self.conditioned]
        self.optimiser.step()
        for start, (parameter, factor) in zip(before, self.conditioned, strict=True):
            parameter.sub_(start).mul_(factor).add_(start)

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.network.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)

    # --- validation -------------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Loss of the averaged weights on the held-out pictures with rounded latents, and its rates and PSNRs."""
        trained = {k: v.clone() for k, v in self.network.state_dict().items()}
        self.network.load_state_dict(self.average)
        self.network.eval()
        result: dict[str, float] = {}
        losses = []
        for quality in self.network.watched:
            totals: list[Tensor] = []
            for middle in self.held:
                x = (middle.to(self.device) / 255).contiguous(memory_format=torch.channels_last)
                q = torch.full((len(x),), quality, device=self.device)
                loss, mse, bpp = self._losses(x, q, x)
                totals.append(torch.stack([loss.sum(), -10 * torch.log10(mse).sum(), bpp.sum()]).cpu())
            loss_sum, psnr, bpp_sum = (torch.stack(totals).sum(0) / len(self.held)).tolist()
            result |= {f"psnr_{quality:.0f}": psnr, f"bpp_{quality:.0f}": bpp_sum}
            losses.append(loss_sum)
        self.network.load_state_dict(trained)
        return {"loss": sum(losses) / len(losses)} | result

    # --- the run ----------------------------------------------------------------------------------

    def run(self, report: Callable[[TrainProgress, dict[str, float] | None], None]) -> None:
        """Train to the end of the budget. Calls ``report`` after each step, with the validation where there is one."""
        if self.best == math.inf and self.config.progress(self.step, self.minutes) >= 1:
            self._keep_if_best(self.validate())  # nothing to train, but something to export
        while self.config.progress(self.step, self.minutes) < 1:
            progress = self.train_step()
            if not math.isfinite(progress.loss) and self.skipped > 100:
                raise TrainingError("more than 100 steps had no finite gradient; lower the learning rate")
            last = self.config.progress(self.step, self.minutes) >= 1
            validation = self.validate() if last or self.step % self.config.validate_every == 0 else None
            if validation is not None:
                self._keep_if_best(validation)
            if last or self.step % self.config.checkpoint_every == 0:
                self.save()
            self._log(progress, validation)
            report(progress, validation)

    def _keep_if_best(self, validation: Mapping[str, float]) -> None:
        if validation["loss"] < self.best:
            self.best = validation["loss"]
            torch.save({"model": self.model.to_json(), "average": self.average}, self.folder / "best.pt")

    def _log(self, progress: TrainProgress, validation: dict[str, float] | None) -> None:
        for name, row in (("steps.csv", asdict(progress)), ("validation.csv", validation)):
            if row is None:
                continue
            path = self.folder / name
            fresh = not path.exists()
            with path.open("a", newline="") as handle:
                writer = csv.DictWriter(handle, fieldnames=list({"step": 0} | row))
                if fresh:
                    writer.writeheader()
                writer.writerow({"step": progress.step} | row)


def _rate_scale(name: str, config: TrainConfig) -> float:
    """Learning rate of a parameter relative to the others.

    An optimiser of Adam's family moves every weight by about the learning rate, whatever it is for. The last layer of
    a network writes corrections of a few grey levels and must move less, or noise is all that it learns; the
    linear transform is right from the start; the scales of all latents hang on few weights.
    """
    if name.startswith(("g_a.linear.", "g_s.linear.")):
        return config.linear_rate
    if ".network.head." in name:
        return config.head_rate
    if ".means.head." in name or ".context_out." in name:
        return config.mean_rate
    if ".scales." in name:
        return config.scale_rate
    return 1.0
