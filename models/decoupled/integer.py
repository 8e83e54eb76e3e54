"""The exact half of a codec: from hyper-latent symbols to coder table indexes in integer arithmetic only.

Everything that selects a coder table is computed here, from integers by integers, so that it is the same on every
device (integer networks: Balle, Johnston and Minnen, ICLR 2019). The arithmetic runs in float64 tensors whose
values are integers below 2^53: sums of products are then exact whatever the order, on CPUs and GPUs alike.
Convolutions are written as matrix products of shifted copies, because a library's convolution may choose
a Winograd or FFT algorithm, which multiplies by fractions.

Fixed point: activations, log scales and index offsets count 1/256, weights 1/4096; after each layer
``floor((sum + 2048) / 4096)``, then a leaky ReLU of slope 1/4 and clamping. The log scale of the last layer becomes
an index by ``floor(x * 2285 / 256)``. Quality tables are interpolated by integers as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lichen.errors import InvalidCodec
from lichen.models.codec import QUALITY_CODES, symbol_digest
from lichen.models.decoupled.fixedpoint import LIMIT, SLOPE, UNIT, WEIGHT_UNIT
from lichen.models.decoupled.hypercontext import LEVELS, HyperContext
from lichen.models.entropy import rans
from lichen.models.entropy.tables import CoderTables

LAYERS = ("conv1", "up1", "conv2", "up2", "head")
KERNELS = {"conv1": 3, "up1": 1, "conv2": 3, "up2": 1, "head": 1}
_LARGEST_WIDTH = 2048
_CONTEXT = "context."


def interpolate(table: NDArray[np.int32], codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Rows of an ``(anchors, channels)`` integer table at quality codes ``(n,)``: ``(n, channels)`` int64, rounded."""
    position = codes * (table.shape[0] - 1)
    low = np.minimum(position // (QUALITY_CODES - 1), table.shape[0] - 2)
    part = (position - low * (QUALITY_CODES - 1))[:, None]
    wide = table.astype(np.int64)
    total = wide[low] * (QUALITY_CODES - 1 - part) + wide[low + 1] * part
    rows: NDArray[np.int64] = (total + (QUALITY_CODES - 1) // 2) // (QUALITY_CODES - 1)
    return rows


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerPrior:
    """Integer scale network, quality tables and coder tables of a codec with the decoupled entropy model.

    ``weights[layer]`` int16 ``(kernel**2 * inputs, outputs)`` (kernel positions in row-major order, then inputs) and
    ``biases[layer]`` int32 ``(outputs,)`` in units of ``1 / (UNIT * WEIGHT_UNIT)``. ``offset`` int32
    ``(anchors, latent)`` is added to the network's output; ``z_step`` int32 ``(anchors, hyper)`` is
    the hyper-latent's quantisation step; ``z_index`` int32 ``(anchors, hyper)`` selects its tables; all in 1/UNIT.
    With a ``context`` that is only where its scales start from.
    """

    weights: Mapping[str, NDArray[np.int16]]
    biases: Mapping[str, NDArray[np.int32]]
    offset: NDArray[np.int32]
    z_step: NDArray[np.int32]
    z_index: NDArray[np.int32]
    tables: CoderTables
    context: HyperContext | None = None

    def __post_init__(self) -> None:
        _validate(self)

    @property
    def latent(self) -> int:
        return self.offset.shape[1]

    @property
    def hyper(self) -> int:
        return self.z_step.shape[1]

    # --- the hyper-latent -------------------------------------------------------------------------

    def encode_z(self, symbols: NDArray[np.int16], code: int) -> bytes:
        """The stream of hyper-latent symbols ``(h, w, hyper)``; those of channels that are not coded must be zero."""
        if self.context is not None:
            return self.context.encode(symbols, self._z_base(code))
        return rans.encode(symbols.astype(np.int32), self._z_table(symbols.shape[:2], code), self.tables)

    def decode_z(self, data: bytes, height: int, width: int, code: int) -> NDArray[np.int32]:
        """The symbols ``(height, width, hyper)`` of a stream. Raises ``CorruptBitstream``."""
        if self.context is not None:
            return self.context.decode(data, height, width, self._z_base(code))
        return rans.decode(data, self._z_table((height, width), code), self.tables)

    def _z_table(self, size: tuple[int, ...], code: int) -> NDArray[np.uint8]:
        return np.ascontiguousarray(np.broadcast_to(self.z_indexes(code), (*size, self.hyper)))

    def _z_base(self, code: int) -> NDArray[np.int64]:
        level = np.maximum(interpolate(self.z_index, np.array([code]))[0], 0)
        return np.where(self.z_indexes(code) >= self.tables.skip_index, level, -1)

    def z_indexes(self, code: int) -> NDArray[np.uint8]:
        """Table index of each hyper-latent channel at a quality code: ``(hyper,)`` uint8."""
        index = (interpolate(self.z_index, np.array([code]))[0] + UNIT // 2) // UNIT
        channels: NDArray[np.uint8] = np.clip(index, 0, self.tables.count - 1).astype(np.uint8)
        return channels

    def steps(self, codes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Quantisation steps of the hyper-latent in 1/UNIT: ``(n, hyper)``, at least 1."""
        return np.maximum(interpolate(self.z_step, codes), 1)

    def dequantise(self, z: Tensor, codes: NDArray[np.int64]) -> Tensor:
        """Symbols ``(N, h, w, hyper)`` of any integer dtype to integers in 1/UNIT, float64 of the same shape."""
        steps = torch.from_numpy(self.steps(codes)).to(z.device, torch.float64)
        return (z.to(torch.float64) * steps[:, None, None, :]).clamp_(-LIMIT, LIMIT)

    # --- indexes of the latent --------------------------------------------------------------------

    def placed(self, device: torch.device) -> ScaleNetwork:
        """The scale network with its weights on a device."""
        return ScaleNetwork(self, device)

    # --- storage ----------------------------------------------------------------------------------

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """All integers by name; ``from_arrays`` takes them back."""
        arrays: dict[str, NDArray[np.generic]] = {f"{n}.weight": w for n, w in self.weights.items()}
        arrays |= {f"{n}.bias": b for n, b in self.biases.items()}
        arrays |= {"offset": self.offset, "z_step": self.z_step, "z_index": self.z_index}
        arrays |= {f"tables.{n}": a for n, a in self.tables.to_arrays().items()}
        context = {} if self.context is None else self.context.to_arrays()
        return arrays | {_CONTEXT + n: a for n, a in context.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> IntegerPrior:
        """The prior of a codec's file. Raises ``InvalidCodec`` unless the arrays are exactly what is expected."""
        plain = {"offset", "z_step", "z_index"}
        expected = {f"{n}.{p}" for n in LAYERS for p in ("weight", "bias")} | plain
        tables = {n.removeprefix("tables."): a for n, a in arrays.items() if n.startswith("tables.")}
        context = {n.removeprefix(_CONTEXT): a for n, a in arrays.items() if n.startswith(_CONTEXT)}
        if {n for n in arrays if not n.startswith(("tables.", _CONTEXT))} != expected:
            raise InvalidCodec(f"integer prior: expected the arrays {sorted(expected)}, found {sorted(arrays)}")
        for name in expected:
            dtype = np.int16 if name.endswith("weight") else np.int32
            if arrays[name].dtype != dtype:
                raise InvalidCodec(f"integer prior: {name} is {arrays[name].dtype}, expected {np.dtype(dtype)}")
        return cls(
            weights={n: arrays[f"{n}.weight"].astype(np.int16) for n in LAYERS},
            biases={n: arrays[f"{n}.bias"].astype(np.int32) for n in LAYERS},
            offset=arrays["offset"].astype(np.int32),
            z_step=arrays["z_step"].astype(np.int32),
            z_index=arrays["z_index"].astype(np.int32),
            tables=CoderTables.from_arrays(tables),
            context=HyperContext.from_arrays(context) if context else None,
        )


class ScaleNetwork:
    """The integer scale network on one device."""

    def __init__(self, prior: IntegerPrior, device: torch.device) -> None:
        self.prior = prior
        self.weights = {n: torch.from_numpy(w.astype(np.float64)).to(device) for n, w in prior.weights.items()}
        self.biases = {n: torch.from_numpy(b.astype(np.float64)).to(device) for n, b in prior.biases.items()}
        self.device = device

    @torch.no_grad()
    def indexes(self, z: Tensor, codes: NDArray[np.int64]) -> Tensor:
        """Table indexes from the dequantised hyper-latent.

        ``z`` is ``(N, h, w, hyper)`` float64 holding integers in 1/UNIT, ``codes`` ``(N,)`` quality codes; the
        result is ``(N, 4h, 4w, latent)`` uint8.
        """
        with torch.autocast(self.device.type, enabled=False):
            x = _leaky(self._layer("conv1", z))
            x = _leaky(_shuffle(self._layer("up1", x)))
            x = _leaky(self._layer("conv2", x))
            x = _leaky(_shuffle(self._layer("up2", x)))
            x = torch.floor(self._layer("head", x).clamp_(-LIMIT, LIMIT) * SLOPE / UNIT)
            offset = interpolate(self.prior.offset, codes).astype(np.float64)
            x += torch.from_numpy(offset).to(self.device)[:, None, None, :]
            x = torch.floor((x + UNIT // 2) / UNIT)
            return x.clamp_(0, self.prior.tables.count - 1).to(torch.uint8)

    def _layer(self, name: str, x: Tensor) -> Tensor:
        total = _neighbourhood(x, KERNELS[name]) @ self.weights[name] + self.biases[name]
        return torch.floor((total + WEIGHT_UNIT // 2) / WEIGHT_UNIT)


def self_test(network: ScaleNetwork) -> bytes:
    """Digest of the indexes of a fixed pattern, which must be the same on every device: 16 bytes."""
    hyper, context = network.prior.hyper, network.prior.context
    pattern = np.arange(2 * 3 * 2 * hyper, dtype=np.int64)
    symbols = (pattern * pattern * 7919 + pattern * 104729) % 23 - 11
    codes = np.array([200, 600])
    z = torch.from_numpy(symbols.reshape(2, 3, 2, hyper)).to(network.device)
    indexes = [network.indexes(network.prior.dequantise(z, codes), codes).cpu().numpy()]
    if context is not None:
        around = symbols.reshape(4, 3, hyper).astype(np.int32)
        indexes += context.indexes(around, np.full(hyper, LEVELS // 2 * UNIT))
    return symbol_digest(*indexes)


def _neighbourhood(x: Tensor, kernel: int) -> Tensor:
    """``(N, h, w, C)`` to ``(N, h, w, kernel**2 * C)``: each position's neighbours, zeros beyond the border."""
    if kernel == 1:
        return x
    margin = kernel // 2
    padded = torch.nn.functional.pad(x, (0, 0, margin, margin, margin, margin))
    h, w = x.shape[1:3]
    return torch.cat([padded[:, i : i + h, j : j + w] for i in range(kernel) for j in range(kernel)], dim=3)


def _leaky(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 1/4 on integers, rounded down, and the clamp that keeps sums exact."""
    return torch.where(x < 0, torch.floor(x / 4), x).clamp_(-LIMIT, LIMIT)


def _shuffle(x: Tensor) -> Tensor:
    """Depth to space by 2 in ``(N, h, w, 4C)``; channel order as ``torch.nn.functional.pixel_shuffle``."""
    n, h, w, c = x.shape
    x = x.reshape(n, h, w, c // 4, 2, 2).permute(0, 1, 4, 2, 5, 3)
    return x.reshape(n, 2 * h, 2 * w, c // 4)


def _validate(prior: IntegerPrior) -> None:
    anchors = prior.offset.shape[0] if prior.offset.ndim == 2 else 0
    if not 2 <= anchors <= 64 or prior.z_step.ndim != 2 or prior.z_step.shape != prior.z_index.shape:
        raise InvalidCodec("integer prior: the quality tables have the wrong shapes")
    if prior.context is not None and prior.context.hyper != prior.hyper:
        raise InvalidCodec("integer prior: the context is for another number of hyper-latent channels")
    if prior.z_step.shape[0] != anchors:
        raise InvalidCodec("integer prior: the quality tables have different numbers of anchors")
    for name, table in (("offset", prior.offset), ("z_step", prior.z_step), ("z_index", prior.z_index)):
        if np.abs(table.astype(np.int64)).max(initial=0) > LIMIT:
            raise InvalidCodec(f"integer prior: a value of {name} is out of range")
    inputs = prior.hyper
    for name in LAYERS:
        weight, bias = prior.weights[name], prior.biases[name]
        if weight.ndim != 2 or bias.shape != weight.shape[1:] or max(weight.shape[1], inputs) > _LARGEST_WIDTH:
            raise InvalidCodec(f"integer prior: layer {name} has the wrong shape")
        if weight.shape[0] != KERNELS[name] ** 2 * inputs:
            raise InvalidCodec(f"integer prior: layer {name} does not fit the layer before it")
        # below 2^53 every sum is exact in float64; int16 weights and the clamps make sure of it
        largest = np.abs(weight.astype(np.int64)).sum(axis=0).max(initial=0) * LIMIT
        if largest + np.abs(bias.astype(np.int64)).max(initial=0) >= 1 << 52:
            raise InvalidCodec(f"integer prior: layer {name} could exceed exact arithmetic")
        outputs = weight.shape[1]
        if name.startswith("up") and outputs % 4:
            raise InvalidCodec(f"integer prior: layer {name} cannot be shuffled")
        inputs = outputs // 4 if name.startswith("up") else outputs
    if inputs != prior.latent:
        raise InvalidCodec("integer prior: the scale network does not end in the latent's channels")
