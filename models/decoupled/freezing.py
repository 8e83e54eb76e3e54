"""From a trained network to the frozen integers of its entropy model."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lichen.errors import TrainingError
from lichen.models.decoupled.entropy_model import LOG_STEP, SCALE_MAX, SCALE_MIN, SCALES, Z_STEP_MIN, EntropyModel
from lichen.models.decoupled.fixedpoint import UNIT, WEIGHT_UNIT
from lichen.models.decoupled.hypercontext import LEVELS, PHASES, HyperContext
from lichen.models.decoupled.integer import KERNELS, LAYERS, IntegerPrior
from lichen.models.entropy.tables import SKIP_BELOW, CoderTables, tables_from_pmfs


def coder_tables() -> CoderTables:
    """Tables of discretised logistic densities at the scales of the entropy model, of least expected length."""
    scales = _scales()
    return _tables([(scale, 0.0) for scale in scales.tolist()], int(np.searchsorted(scales, SKIP_BELOW)))


def context_tables() -> CoderTables:
    """Tables for the context of the hyper-latent: the lower scales, each with ``PHASES`` means between 0 and 1/2."""
    scales = _scales()[:LEVELS]
    phases = [(phase + 0.5) / (2 * PHASES) for phase in range(PHASES)]
    skip = PHASES * int(np.searchsorted(scales, SKIP_BELOW))
    return _tables([(scale, phase) for scale in scales.tolist() for phase in phases], skip)


def _scales() -> NDArray[np.float64]:
    scales: NDArray[np.float64] = np.exp(math.log(SCALE_MIN) + LOG_STEP * np.arange(SCALES))
    return scales


def _tables(densities: Sequence[tuple[float, float]], skip_index: int) -> CoderTables:
    pmfs = [_logistic_pmf(scale, mean) for scale, mean in densities]
    return tables_from_pmfs(pmfs, [-(len(p) // 2) for p in pmfs], skip_index=skip_index)


def _logistic_pmf(scale: float, mean: float) -> NDArray[np.float64]:
    """Probabilities of -half..half under a logistic density of standard deviation ``scale`` around ``mean``."""
    spread = scale * math.sqrt(3) / math.pi
    half = max(1, math.ceil(spread * math.log(2.0**15)))  # beyond, a value is rarer than the least frequency
    values = np.arange(-half, half + 1)
    near = (np.abs(values - mean) - 0.5) / spread  # the edge towards the mean; the tail side is exact
    survival, beyond = (1 / (1 + np.exp(edge)) for edge in (near, near + 1 / spread))
    return np.asarray(survival - beyond)


def integer_context(hidden: nn.Linear, head: nn.Linear) -> HyperContext:
    """Freeze a context network (``lichen.jobs.training.hypercontext``) into integers. Raises ``TrainingError``."""
    weights: dict[str, NDArray[np.int16]] = {}
    biases: dict[str, NDArray[np.int32]] = {}
    for name, layer in (("hidden", hidden), ("head", head)):
        weight, bias = (t.detach().double().cpu().numpy() for t in (layer.weight.T.contiguous(), layer.bias))
        weights[name] = _fixed(weight, WEIGHT_UNIT, np.int16, f"context {name}").astype(np.int16)
        biases[name] = _fixed(bias, WEIGHT_UNIT * UNIT, np.int32, f"context {name}").astype(np.int32)
    return HyperContext(weights=weights, biases=biases, tables=context_tables())


@torch.no_grad()
def integer_prior(model: EntropyModel) -> IntegerPrior:
    """Freeze the scale network and the quality tables of a trained entropy model into integers.

    Raises ``TrainingError`` if a weight does not fit its fixed point (a diverged training).
    """
    weights: dict[str, NDArray[np.int16]] = {}
    biases: dict[str, NDArray[np.int32]] = {}
    for name in LAYERS:
        layer = getattr(model.scales, name)
        kernel = layer.weight.detach().double().cpu().permute(2, 3, 1, 0)  # (k, k, inputs, outputs)
        outputs = kernel.shape[3]
        matrix = kernel.reshape(KERNELS[name] ** 2 * kernel.shape[2], outputs).numpy()
        weights[name] = _fixed(matrix, WEIGHT_UNIT, np.int16, f"scale network {name}").astype(np.int16)
        bias = layer.bias.detach().double().cpu().numpy()
        biases[name] = _fixed(bias, WEIGHT_UNIT * UNIT, np.int32, f"scale network {name}").astype(np.int32)
    gain = model.gain.table.detach().double().cpu().numpy()
    step = model.z_step.table.detach().double().cpu().numpy().clip(min=Z_STEP_MIN)
    z_scale = model.z_scale.table.detach().double().cpu().numpy()
    base = math.log(SCALE_MIN)
    return IntegerPrior(
        weights=weights,
        biases=biases,
        offset=_fixed((gain - base) / LOG_STEP, UNIT, np.int32, "gains").astype(np.int32),
        z_step=_fixed(step, UNIT, np.int32, "hyper-latent steps").astype(np.int32),
        z_index=_fixed((z_scale.clip(base, math.log(SCALE_MAX)) - base) / LOG_STEP, UNIT, np.int32, "z").astype(
            np.int32
        ),
        tables=coder_tables(),
    )


def _fixed(
    values: NDArray[np.float64], unit: int, dtype: type[np.int16] | type[np.int32], what: str
) -> NDArray[np.int64]:
    scaled = np.rint(values * unit)
    if not np.isfinite(scaled).all() or np.abs(scaled).max(initial=0) > np.iinfo(dtype).max:
        raise TrainingError(f"{what}: a value does not fit its fixed point; the training has diverged")
    integers: NDArray[np.int64] = scaled.astype(np.int64)
    return integers


@torch.no_grad()
def restore_floats(model: EntropyModel, prior: IntegerPrior) -> None:
    """Set the scale network and the quality tables of ``model`` from frozen integers (the inverse of the export)."""
    for name in LAYERS:
        layer = getattr(model.scales, name)
        shape = layer.weight.shape  # (outputs, inputs, k, k)
        matrix = torch.from_numpy(prior.weights[name].astype(np.float32)) / WEIGHT_UNIT
        kernel = matrix.reshape(shape[2], shape[3], shape[1], shape[0]).permute(3, 2, 0, 1).contiguous()
        layer.weight = torch.nn.Parameter(kernel)
        layer.bias = torch.nn.Parameter(torch.from_numpy(prior.biases[name].astype(np.float32)) / (WEIGHT_UNIT * UNIT))
    model.z_step.table = torch.nn.Parameter(torch.from_numpy(prior.z_step.astype(np.float32)) / UNIT)
    index = torch.from_numpy(prior.z_index.astype(np.float32)) / UNIT
    model.z_scale.table = torch.nn.Parameter(index * LOG_STEP + math.log(SCALE_MIN))
