"""CompressAI's network ``mbt2018-mean`` with realistic rates, and lichen's entropy coder around it.

No weights are fetched. The network has those of a training by lichen; or it is untrained, but its last layers are
rescaled on some pictures, so that its latents, scales and rates are like those of a trained one: speed depends on
nothing else, though what it decodes to is no picture. It is also no codec for archives: its table indexes come from
floating point, so a bitstream decodes only where the floats are the encoder's: in the same batch, on as many threads,
of the same machine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lichen.errors import UsageError
from lichen.models import bitstream
from lichen.models.codec import Decoded, Encoded, Pixels, symbol_digest
from lichen.models.entropy import rans
from lichen.models.entropy.tables import CoderTables
from lichen.models.planes import GRID, Window, padded_part, round_up, to_planes
from lichen.models.registry import full_files, network_from_files
from lichen.models.snapped.hyperpriors import HyperpriorConfig

SIZE: Final = (128, 192)
"""Channels inside of the networks and of the latent, as CompressAI has them for the network's qualities 1 to 4."""

_SMALLEST, _LARGEST = 0.02, 2.0  # standard deviations of latent channels: about 0.7 bits per pixel with 192 of them
_VARIATION = 0.3  # of predicted scales and means over a picture, relative to the channel's standard deviation
_HYPER_DEVIATION = 1.5  # of the hyper-latent, whose prior is logistic with scale 1: about 0.1 bits per pixel
_CODEC = b"mbt2"


def mean_scale_network(size: tuple[int, int], images: Sequence[Pixels], *, seed: int = 1) -> Any:
    """An untrained ``mbt2018-mean`` of ``size`` (N, M) with rates that are realistic on ``images``, of one padded size.

    Raises ``UsageError`` if CompressAI cannot be imported.
    """
    compressai = _compressai()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = compressai.models.MeanScaleHyperprior(*size)
        network.entropy_bottleneck = compressai.entropy_models.EntropyBottleneck(size[0], init_scale=1.0)
    network.eval().requires_grad_(False)
    network.update(update_quantiles=True)
    _make_realistic(network, to_tensor(images, torch.device("cpu")))
    return network


def trained_network(codec: str) -> Any:
    """CompressAI's ``mbt2018-mean`` with the weights that lichen trained for it (the path of a codec JSON).

    Raises ``UsageError`` if CompressAI cannot be imported or the codec is another.
    """
    compressai = _compressai()
    trained = network_from_files(full_files(codec))
    config = trained.config
    if not isinstance(config, HyperpriorConfig) or config.kind != "mbt2018-mean" or config.anchors:
        raise UsageError(f"{codec} is no mbt2018-mean of one rate; train --architecture compressai/mbt2018-mean")
    network = compressai.models.MeanScaleHyperprior(config.channels, config.latent)
    network.load_state_dict(network.state_dict() | trained.state_dict())
    network.eval().requires_grad_(False)
    network.update(force=True, update_quantiles=True)
    return network


def _compressai() -> Any:
    try:
        import compressai.entropy_models
        import compressai.models
    except (ImportError, RuntimeError) as error:  # RuntimeError: torchvision was built for another torch
        raise UsageError(f"this comparison needs CompressAI, which cannot be imported here: {error}") from error
    return compressai


@torch.no_grad()
def _make_realistic(network: Any, x: Tensor) -> None:
    """Give latents, hyper-latents and predicted Gaussians the statistics of a trained network's on ``x``.

    Channels of the latent range from nearly always zero to a few bits a symbol; predicted scales fit them, and
    vary over the picture as the hyper-latent does.
    """
    count = network.g_a[-1].out_channels
    deviations = torch.logspace(math.log10(_SMALLEST), math.log10(_LARGEST), count)
    nothing = torch.zeros(count)
    medians = network.entropy_bottleneck.quantiles[:, 0, 1]
    y = _rescale(network.g_a, x, nothing, deviations)
    z = _rescale(network.h_a, y, medians, torch.full_like(medians, _HYPER_DEVIATION))
    decoded, _ = network.entropy_bottleneck(z)
    _rescale(network.h_s, decoded, torch.cat([deviations, nothing]), _VARIATION * deviations.repeat(2))


def _rescale(layers: Any, inputs: Tensor, means: Tensor, deviations: Tensor) -> Tensor:
    """Set the last convolution so that each channel has this mean and standard deviation; return the new outputs."""
    outputs: Tensor = layers(inputs)
    last = layers[-1]
    factors = deviations / outputs.std(dim=(0, 2, 3)).clamp(min=1e-6)
    centres = outputs.mean(dim=(0, 2, 3))
    last.weight.mul_(factors[:, None, None, None])
    last.bias.sub_(centres).mul_(factors).add_(means)
    return (outputs - centres[:, None, None]) * factors[:, None, None] + means[:, None, None]


class MeanScaleCodec:
    """The network ``mbt2018-mean`` with lichen's coder and container. Thread-safe.

    The tables are CompressAI's own integers, so that rates differ only by what the coders add to the ideal.
    """

    def __init__(self, network: Any) -> None:
        bottleneck, gaussians = network.entropy_bottleneck, network.gaussian_conditional
        self._network = network
        self._z_tables, self._y_tables = coder_tables(bottleneck), coder_tables(gaussians)
        self._medians: Tensor = bottleneck.quantiles[:, 0, 1][:, None, None]
        self._boundaries: Tensor = gaussians.scale_table[:-1]

    @torch.inference_mode()
    def encode(self, images: Sequence[Pixels]) -> list[Encoded]:
        """Compress ``(H, W, 3)`` uint8 pictures of one padded size, in one batch."""
        y = self._network.g_a(to_tensor(images, self._medians.device))
        z = (self._network.h_a(y) - self._medians).round()
        indexes, means = self._gaussians(z)
        z_symbols, y_symbols = _integers(z), _integers((y - means).round())
        encoded = []
        for n, image in enumerate(images):
            section = bitstream.Section(
                z=rans.encode(z_symbols[n], _channels(z_symbols[n].shape), self._z_tables),
                y=rans.encode(y_symbols[n], indexes[n], self._y_tables),
            )
            height, width = image.shape[:2]
            data = bitstream.pack(
                bitstream.Bitstream(codec=_CODEC, width=width, height=height, quality=0, sections=(section,))
            )
            encoded.append(Encoded(bitstream=data, symbols=symbol_digest(z_symbols[n], y_symbols[n])))
        return encoded

    @torch.inference_mode()
    def decode(self, bitstreams: Sequence[bytes]) -> list[Decoded]:
        """Decode what one call of ``encode`` returned."""
        parsed = [bitstream.unpack(data) for data in bitstreams]
        sections = [one.sections[0] for one in parsed]
        shape = (len(self._medians), -(-parsed[0].height // GRID), -(-parsed[0].width // GRID))
        z_symbols = np.stack([rans.decode(section.z, _channels(shape), self._z_tables) for section in sections])
        indexes, means = self._gaussians(torch.from_numpy(z_symbols).to(self._medians))
        y_symbols = np.stack([rans.decode(section.y, indexes[n], self._y_tables) for n, section in enumerate(sections)])
        x = self._network.g_s(torch.from_numpy(y_symbols).to(means.device) + means)
        pixels = to_pixels(x, [(one.height, one.width) for one in parsed])
        return [
            Decoded(pixels=pixels[n], symbols=symbol_digest(z_symbols[n], y_symbols[n])) for n in range(len(parsed))
        ]

    def _gaussians(self, z: Tensor) -> tuple[NDArray[np.uint8], Tensor]:
        """Table indexes ``(N, M, h, w)`` and means of the latent, from the hyper-latent's symbols ``(N, C, h/4, w/4)``.

        An index is the number of scales, the largest left out, that are below the predicted one, as in CompressAI.
        """
        scales, means = self._network.h_s(z + self._medians).chunk(2, 1)
        indexes = torch.bucketize(scales.contiguous(), self._boundaries, out_int32=True)
        return indexes.to(torch.uint8).cpu().numpy(), means


def coder_tables(model: Any) -> CoderTables:
    """The integers of one of CompressAI's entropy models: in both coders a table's last entry is the escape."""
    lengths = model.cdf_length.tolist()
    cumulative = model.quantized_cdf.cpu().numpy()
    frequencies = [np.diff(row[:length]) for row, length in zip(cumulative, lengths, strict=True)]
    return CoderTables(
        frequencies=np.concatenate(frequencies).astype(np.uint16),
        sizes=np.array(lengths, dtype=np.int32) - 1,
        minimums=model.offset.cpu().numpy().astype(np.int32),
    )


def to_tensor(images: Sequence[Pixels], device: torch.device) -> Tensor:
    """Pictures of one padded size as ``(N, 3, H, W)`` in [0, 1], padded to the grid by replication."""
    whole = Window(0, round_up(images[0].shape[0]), 0, round_up(images[0].shape[1]))
    pixels = torch.from_numpy(np.stack([padded_part(image, whole) for image in images])).to(device)
    return to_planes(pixels).contiguous().float() / 255


def to_pixels(x: Tensor, sizes: Sequence[tuple[int, int]]) -> list[Pixels]:
    """``(N, 3, H, W)`` in [0, 1] as uint8 pictures of these heights and widths."""
    pixels = (x * 255).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
    return [np.ascontiguousarray(one[:height, :width]) for one, (height, width) in zip(pixels, sizes, strict=True)]


def _integers(plane: Tensor) -> NDArray[np.int32]:
    return np.ascontiguousarray(plane.to(torch.int32).cpu().numpy())


def _channels(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Each element's channel, ``(C, h, w)``: the table of a hyper-latent's symbol."""
    return np.ascontiguousarray(np.broadcast_to(np.arange(shape[0], dtype=np.uint8)[:, None, None], shape))
