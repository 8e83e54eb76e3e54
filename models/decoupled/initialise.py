"""Starting values: a new network is a working transform coder before its first step.

The linear path starts as an orthonormal DCT, the gains are quantisation steps of a classical coder, and
the hyper-latent starts as local log-energies of frequency bands, from which the scale network reads log standard
deviations by least squares. Training then has something to improve.
"""

from __future__ import annotations

from types import MethodType

import torch
from torch import Tensor, nn

from lichen.models.blocks.conv import unshuffle
from lichen.models.blocks.dct import PATCH, STEP, dct_basis, dct_order
from lichen.models.codec import MAX_QUALITY, MIN_QUALITY
from lichen.models.decoupled.entropy_model import EntropyModel
from lichen.models.decoupled.network import CodecNetwork

SHRINK = 0.25
"""Negative log of the factor on decoded residuals of the rarest latents: what is not zero lies nearer to zero."""
QUIET = 0.005
"""Factor on the last layer of each network around the linear transform and of the means."""
LOCAL_PART = 0.75
"""Part of the hyper-latent that tells the energies of single positions."""
LIFT = 3.0
"""Offset of the scale network's activations, in standard deviations of the hyper-latent."""
FAINT = 0.2
"""Factor on what is random in a path that starts from known values."""


@torch.no_grad()
def initialise(network: CodecNetwork, patches: Tensor, basis: Tensor | None = None) -> None:
    """Set the starting values from ``patches``, ``(N, 3, H, W)`` in [0, 1] with sides that are multiples of 64.

    ``basis`` is that of the linear transform, ``(latent, 768)`` with orthonormal rows in the order of ``dct_basis``,
    which is the default.

    What reads latents or pixels is scaled to see every frequency equally large, because the lowest are a hundred
    times as large as the highest and would drown them.
    """
    config = network.config
    for module in network.modules():
        if isinstance(last_layers := getattr(module, "last_layers", None), MethodType):
            for layer in last_layers():
                layer.weight.mul_(FAINT)
    if basis is None:
        basis = dct_basis(config.luma, config.chroma)
    network.g_a.linear.weight.copy_(basis[:, :, None, None])
    network.g_s.linear.weight.copy_(basis.T[:, :, None, None])
    sizes = latent_sizes(network, patches)
    coefficients = network.g_a.linear(unshuffle(patches - 0.5, PATCH))
    means = network.entropy.means
    for reader in (means.known, network.entropy.h_a.stem):
        reader.weight.div_(sizes[None, :, None, None])
    for pixels in (network.g_a.network, network.g_s.network):
        _whiten(pixels.stem, patches)
    for head in (network.g_a.network.head, network.g_s.network.head, means.context_out, means.head):
        head.weight.mul_(QUIET)
        _zero_bias(head)
    quality = torch.linspace(MIN_QUALITY, MAX_QUALITY, config.anchors)
    steps = STEP / 255 / network.lagrangian(quality).sqrt()
    network.entropy.gain.table.copy_(-steps.log()[:, None].expand(-1, config.latent))
    network.entropy.shrink.table.copy_(-SHRINK * (1 - sizes / steps[:, None]).clamp(min=0))
    planes = [plane for _, plane in dct_order(config.luma, config.chroma)]
    _initialise_hyperprior(network.entropy, coefficients, sizes, planes)


@torch.no_grad()
def conditioning(network: CodecNetwork, patches: Tensor) -> dict[str, Tensor]:
    """Factors on the learning rates of single weights, by parameter name, broadcast against the parameter.

    Adam moves every weight by about the learning rate, whatever its size. With these factors it moves what reads
    latents, and what adds to them, in proportion to the size of each latent: the same as if the network read and
    wrote latents of unit variance.
    """
    sizes = latent_sizes(network, patches)
    reading = (1 / sizes)[None, :, None, None]
    factors = dict.fromkeys(("entropy.means.known.weight", "entropy.h_a.stem.weight"), reading)
    writing = sizes.clamp(0.01, 1)
    for name in ("entropy.means.head", "entropy.means.context_out"):
        factors |= {f"{name}.weight": writing[:, None, None, None], f"{name}.bias": writing}
    return factors


@torch.no_grad()
def latent_sizes(network: CodecNetwork, patches: Tensor) -> Tensor:
    """Standard deviation of each latent of the linear path, ``(latent,)``."""
    latents: Tensor = network.g_a.linear(unshuffle(patches - 0.5, PATCH))
    return latents.std(dim=(0, 2, 3)).clamp(min=1e-3)


def _whiten(stem: nn.Conv2d, patches: Tensor) -> None:
    """The first layer of a network as an 8x8 DCT whose coefficients all have unit variance."""
    channels = stem.out_channels
    chroma = min(64, channels * 2 // 7)
    luma = min(64, channels - 2 * chroma)
    basis = dct_basis(luma, chroma, 8)
    stem.weight[: len(basis)] = basis[:, :, None, None]
    stem.weight.div_(stem(unshuffle(patches - 0.5, 8)).std(dim=(0, 2, 3))[:, None, None, None])
    _zero_bias(stem)


def _bands(planes: list[int], count: int) -> Tensor:
    """``(count, channels)`` averages of neighbouring frequencies of one colour plane (of all if ``count < 3``)."""
    matrix = torch.zeros(count, len(planes))
    chroma = max(1, round(count * planes.count(1) / len(planes))) if count >= 3 else 0
    start = 0
    for plane, share in enumerate((count - 2 * chroma, chroma, chroma)):
        channels = [c for c, p in enumerate(planes) if p == plane or not chroma]
        for place, channel in enumerate(channels if share else []):
            matrix[start + place * share // len(channels), channel] = 1
        start += share
    return matrix / matrix.sum(dim=1, keepdim=True).clamp(min=1)


def _initialise_hyperprior(model: EntropyModel, y: Tensor, sizes: Tensor, planes: list[int]) -> None:
    """Local energies of a few wide bands for every latent position, and regional ones of more and narrower bands.

    The hyper-latent holds the local bands of its 4x4 positions side by side, so that a block can differ from its
    neighbour, and one average of each regional band.
    """
    h_a, scales = model.h_a, model.scales
    hyper = scales.conv1.in_channels
    local = int(LOCAL_PART * hyper) // 16
    regional = min(hyper - 16 * local, h_a.stem.out_channels - local)
    h_a.stem.weight.mul_(FAINT)
    bands = torch.cat([_bands(planes, local), _bands(planes, regional)])
    h_a.magnitude.weight.mul_(FAINT)[: len(bands)] += 2 * bands[:, :, None, None]
    for fold, down, up in ((1, h_a.down1, scales.up2), (4, h_a.down2, scales.up1)):
        down.conv.weight.mul_(FAINT)
        up.weight.mul_(FAINT)
        for k in range(4 * fold * local):  # position p of channel c is channel 4 * c + p after space to depth
            down.conv.weight[k, k] += 1
            up.weight[k, k] += 1
        for k in range(regional):
            coarse, fine = 4 * fold * local + k, fold * local + k
            down.conv.weight[coarse, 4 * fine : 4 * fine + 4] += 0.25
            up.weight[4 * fine : 4 * fine + 4, coarse] += 1
    z = h_a(y)
    assert h_a.down2.conv.bias is not None
    h_a.down2.conv.bias.sub_(z.mean(dim=(0, 2, 3)))
    z = h_a(y)
    for conv in (scales.conv1, scales.conv2):
        conv.weight.mul_(FAINT / 3)
        conv.weight[:, :, 1, 1] += torch.eye(hyper)
    assert scales.conv1.bias is not None
    scales.conv1.bias.add_(LIFT * z.std())  # so that both signs pass the activations alike
    _fit_head(scales.head, scales.trunk(z), y / sizes[:, None, None], sizes.log(), planes)
    anchors = model.z_step.table.shape[0]
    step = torch.linspace(1.4, 0.7, anchors)[:, None]
    model.z_step.table.copy_(step.expand(-1, hyper))
    model.z_scale.table.copy_((z.std(dim=(0, 2, 3))[None, :] / step).clamp(min=0.2).log())


def _fit_head(head: nn.Conv2d, features: Tensor, y: Tensor, offset: Tensor, planes: list[int]) -> None:
    """Least squares (ridge) from features to the log standard deviation of each latent.

    The energy of a latent is estimated from those of its neighbours in frequency, in its own block.
    """
    energy = torch.einsum("oc,bchw->bohw", _neighbours(planes), y.square())
    target = 0.5 * torch.log(energy + 1e-2) + offset[:, None, None]
    x = features.permute(0, 2, 3, 1).reshape(-1, features.shape[1]).double()
    t = target.permute(0, 2, 3, 1).reshape(-1, target.shape[1]).double()
    mean_x, mean_t = x.mean(0), t.mean(0)
    x, t = x - mean_x, t - mean_t
    ridge = 0.003 * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(x.T @ x + ridge, x.T @ t)
    head.weight.copy_(solution.T.float()[:, :, None, None])
    assert head.bias is not None
    head.bias.copy_((mean_t - mean_x @ solution).float())


def _neighbours(planes: list[int], reach: int = 4) -> Tensor:
    """``(channels, channels)`` averages over the nearest frequencies of the same colour plane."""
    matrix = torch.zeros(len(planes), len(planes))
    for plane in range(3):
        channels = [c for c, p in enumerate(planes) if p == plane]
        for place, channel in enumerate(channels):
            matrix[channel, channels[max(0, place - reach) : place + reach + 1]] = 1
    return matrix / matrix.sum(dim=1, keepdim=True)


def _zero_bias(layer: nn.Conv2d) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
