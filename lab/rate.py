"""What decoding everywhere costs in bits: real bitstreams beside ideal code lengths of the same symbols.

The ideal is the information of the coded integers under the float model as it was trained: continuous
scales from the float scale network, densities instead of tables, no container. What the bitstream has more is
the price of the integer network, of a finite set of tables with finite precision, of not coding the rarest
latents, of the coder's state, and of the container, less what the context of the hyper-latent saves, which the
ideal does not know of.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lichen import defaults
from lichen.jobs.evaluate import load_pictures
from lichen.jobs.training.run import best_network
from lichen.models.blocks.network import TrainableNetwork
from lichen.models.codec import Pixels
from lichen.models.decoupled.codec import DecoupledCodec
from lichen.models.decoupled.entropy_model import logistic_bits, symbol_scale
from lichen.models.decoupled.network import CodecNetwork
from lichen.models.device import find_device
from lichen.models.planes import Window, padded_part, round_up, to_planes
from lichen.models.registry import full_files, load_files, network_from_files


@dataclass(frozen=True, slots=True, kw_only=True)
class RateCase:
    """All pictures at one quality; rates in bits per pixel over the pixels of all pictures."""

    quality: float
    real: float
    ideal: float
    excess: float
    """What real bitstreams have more than the ideal, relative to it."""
    hyper_share: float
    """Part of the ideal that the hyper-latent takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateBench:
    """What one run measured."""

    pictures: int
    codec: str
    model: str
    cases: tuple[RateCase, ...]


def run(
    source: str | Path, *, codec: str = defaults.CODEC, weights: Path | None = None, qualities: tuple[float, ...]
) -> RateBench:
    """Encode the pictures of a folder at every quality and count. Raises ``UsageError``."""
    pictures = list(load_pictures(source).values())
    files = full_files(codec)
    network = network_from_files(files) if weights is None else best_network(weights)
    network.eval()
    learned = load_files(files, find_device("cpu", "float32"))
    pixels = sum(picture.shape[0] * picture.shape[1] for picture in pictures)
    cases = []
    for quality in qualities:
        real = hyper = latent = 0.0
        for picture in pictures:
            data = learned.encode([picture], quality)[0].bitstream
            real += 8 * len(data)
            if isinstance(network, CodecNetwork):
                assert isinstance(learned, DecoupledCodec)
                z_bits, y_bits = ideal_bits(network, *learned.symbols(data), quality)
            else:
                z_bits, y_bits = float_bits(network, picture, quality)
            hyper += z_bits
            latent += y_bits
        ideal = hyper + latent
        cases.append(
            RateCase(
                quality=quality,
                real=real / pixels,
                ideal=ideal / pixels,
                excess=real / ideal - 1,
                hyper_share=hyper / ideal,
            )
        )
    model = "the codec's own weights" if weights is None else weights.name
    return RateBench(pictures=len(pictures), codec=learned.name, model=model, cases=tuple(cases))


@torch.inference_mode()
def ideal_bits(
    network: CodecNetwork, z: NDArray[np.int16], y: NDArray[np.int16], quality: float
) -> tuple[float, float]:
    """Information in bits of hyper-latent symbols ``(h, w, hyper)`` and latent symbols ``(4h, 4w, latent)``."""
    model = network.entropy
    position = network.position(torch.tensor([quality]))
    symbols_z = torch.from_numpy(z).float().permute(2, 0, 1)[None]
    symbols_y = torch.from_numpy(y).float().permute(2, 0, 1)[None]
    z_bits = logistic_bits(symbols_z, symbol_scale(model.z_scale(position), torch.zeros(())))
    scales = model.scales(symbols_z * model.z_step(position))
    y_bits = logistic_bits(symbols_y, symbol_scale(scales, model.gain(position)))
    return z_bits.double().sum().item(), y_bits.double().sum().item()


@torch.inference_mode()
def float_bits(network: TrainableNetwork, picture: Pixels, quality: float) -> tuple[float, float]:
    """Information in bits of hyper-latent and latent of a picture under a published network, all in float32.

    Its decoded latents feed back into its scales, so these are its own symbols, not those of the bitstream.
    """
    height, width = (round_up(side, network.grid) for side in picture.shape[:2])
    padded = torch.from_numpy(padded_part(picture, Window(0, height, 0, width)).copy())
    _, y_bits, z_bits = network(to_planes(padded[None]).float() / 255, torch.tensor([quality]))
    return z_bits.double().sum().item(), y_bits.double().sum().item()
