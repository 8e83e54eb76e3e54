"""The networks of a learned codec with nothing around them: the speed that a pipeline can hope for.

A compression with verification needs g_a, the entropy networks twice (encoder and decoder) and g_s; a decoding
needs the decoder's entropy networks and g_s. No entropy coding, no files, no measures.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lichen.models.codec import Pixels, code_quality, quality_code
from lichen.models.decoupled.codec import DecoupledCodec
from lichen.models.decoupled.entropy_model import STEPS
from lichen.models.decoupled.fixedpoint import UNIT
from lichen.models.planes import GRID


@dataclass(frozen=True, kw_only=True, slots=True)
class BareSpeed:
    """Megapixels a second of the best way to run the networks, and which way that was."""

    compress: float
    decode: float
    threads: int
    lanes: int
    batch: int


class BareNetworks:
    """Runs a codec's networks on random-looking but real data: cropped pictures of one size."""

    def __init__(self, codec: DecoupledCodec, quality: float) -> None:
        self.codec = codec
        self.code = quality_code(quality)
        self.scales = codec.prior.placed(codec.device.on)

    @torch.inference_mode()
    def run(self, x: Tensor, *, encode: bool) -> None:
        """All networks on ``(N, 3, H, W)`` pictures in [0, 1], sides multiples of 64."""
        network, codes = self.codec.network, np.full(len(x), self.code, dtype=np.int64)
        position = network.position(torch.full((len(x),), code_quality(self.code))).to(x.device)
        half = self.codec.device.half
        context = torch.autocast(x.device.type, half) if half is not None else nullcontext()
        if encode:
            with context:
                y = network.g_a(x, position).float()
            z = network.entropy.h_a(y).round().permute(0, 2, 3, 1)
            y = self._entropy(z, codes, position)
        else:
            shape = (len(x), x.shape[2] // 64, x.shape[3] // 64, self.codec.prior.hyper)
            z = torch.zeros(shape, device=x.device)
        y = self._entropy(z, codes, position)
        with context:
            network.g_s(y, position)

    def _entropy(self, z: Tensor, codes: NDArray[np.int64], position: Tensor) -> Tensor:
        exact = self.codec.prior.dequantise(z, codes)
        self.scales.indexes(exact, codes)
        means = self.codec.network.entropy.means
        features = means.hyper_features((exact / UNIT).float().permute(0, 3, 1, 2))
        first, side = means.first(features), means.features(features)
        y = first
        for step in range(1, STEPS):
            y = first + means.refine(y, side, step, position)
        return y


def measure(codec: DecoupledCodec, images: Sequence[Pixels], quality: float, *, cores: int) -> BareSpeed:
    """The best of several ways: all cores on one batch, or a lane for each core; batches of 1 and 4."""
    pixels = sum(image.shape[0] * image.shape[1] for image in images) / 1e6
    ways = [(cores, 1, 1), (1, cores, 1), (1, cores, 4)] if cores > 1 else [(1, 1, 1), (1, 1, 4)]
    found = []
    before = torch.get_num_threads()
    bare = BareNetworks(codec, quality)
    try:
        for threads, lanes, batch in ways:
            torch.set_num_threads(threads)
            batches = _batches(images, batch, codec.device.on)
            speeds = [pixels / _seconds(bare, batches, lanes, encode=encode) for encode in (True, False)]
            found.append(BareSpeed(compress=speeds[0], decode=speeds[1], threads=threads, lanes=lanes, batch=batch))
    finally:
        torch.set_num_threads(before)
    return max(found, key=lambda way: way.compress)


def _seconds(bare: BareNetworks, batches: Sequence[Tensor], lanes: int, *, encode: bool) -> float:
    def run(x: Tensor) -> None:
        bare.run(x, encode=encode)

    run(batches[0])
    started = time.perf_counter()
    with ThreadPoolExecutor(lanes) as pool:
        list(pool.map(run, batches))
    return time.perf_counter() - started


def _batches(images: Sequence[Pixels], size: int, device: torch.device) -> list[Tensor]:
    groups: dict[tuple[int, int], list[Tensor]] = {}
    for image in images:
        height, width = (-(-side // GRID) * GRID for side in image.shape[:2])
        padded = np.pad(image, ((0, height - image.shape[0]), (0, width - image.shape[1]), (0, 0)), mode="edge")
        groups.setdefault((height, width), []).append(torch.from_numpy(padded.astype(np.float32) / 255))
    return [
        torch.stack(group[i : i + size]).permute(0, 3, 1, 2).to(device)
        for group in groups.values()
        for i in range(0, len(group), size)
    ]
