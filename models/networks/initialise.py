"""Starting values: a new network is a working transform coder before its first step.

The linear path starts as an orthonormal DCT, the gains are quantisation steps of a classical coder, and
the hyper-latent starts as local log-energies of frequency bands, from which the scale network reads log standard
deviations by least squares. Training then has something to improve.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lichen.models.networks.blocks import ConvBlock, unshuffle
from lichen.models.networks.hyperprior import EntropyModel
from lichen.models.networks.s2cformer import S2CConv
from lichen.models.networks.transforms import PATCH, dct_basis, dct_order

COARSEST_STEP, FINEST_STEP = 90 / 255, 7 / 255
"""Quantisation steps of the DCT coefficients at quality 1 and 100."""
QUIET = 0.02
"""Factor on the last layer of each network beside the linear path."""
FAINT = 0.2
"""Factor on what is random in a path that starts from known values."""


@torch.no_grad()
def initialise(network: S2CConv, patches: Tensor) -> None:
    """Set the starting values from ``patches``, ``(N, 3, H, W)`` in [0, 1] with sides that are multiples of 64."""
    config = network.config
    for module in network.modules():
        if isinstance(module, ConvBlock):
            module.mixer.project.weight.mul_(FAINT)
            module.ffn.project.weight.mul_(FAINT)
    basis = dct_basis(config.luma, config.chroma)
    network.g_a.linear.weight.copy_(basis[:, :, None, None])
    network.g_s.linear.weight.copy_(basis.T[:, :, None, None])
    coefficients = network.g_a.linear(unshuffle(patches - 0.5, PATCH))
    means = network.entropy.means
    for head in (network.g_a.head, network.g_s.head, means.context_out, means.head):
        head.weight.mul_(QUIET)
        _zero_bias(head)
    steps = torch.logspace(math.log10(COARSEST_STEP), math.log10(FINEST_STEP), config.anchors)
    network.entropy.gain.table.copy_(-steps.log()[:, None].expand(-1, config.latent))
    bands = _bands([plane for _, plane in dct_order(config.luma, config.chroma)], config.hyper)
    _initialise_hyperprior(network.entropy, coefficients, bands)


def _bands(planes: list[int], count: int) -> Tensor:
    """``(count, channels)`` averages of neighbouring frequencies of one colour plane; every band has a channel."""
    matrix = torch.zeros(count, len(planes))
    start = 0
    for plane in range(3):
        channels = [c for c, p in enumerate(planes) if p == plane]
        share = round(count * len(channels) / len(planes)) if plane < 2 else count - start
        for place, channel in enumerate(channels):
            matrix[start + place * share // len(channels), channel] = 1
        start += share
    return matrix / matrix.sum(dim=1, keepdim=True).clamp(min=1)


def _initialise_hyperprior(model: EntropyModel, y: Tensor, bands: Tensor) -> None:
    h_a, scales = model.h_a, model.scales
    hyper, hidden = scales.conv1.in_channels, h_a.stem.out_channels
    eye = torch.eye(hyper, hidden)
    h_a.stem.weight.mul_(FAINT)
    h_a.magnitude.weight.mul_(FAINT).add_(2 * _fitted(bands, hidden)[:, :, None, None])
    h_a.down1.conv.weight.mul_(FAINT).add_(torch.eye(hidden).repeat_interleave(4, dim=1)[:, :, None, None] / 4)
    h_a.down2.conv.weight.mul_(FAINT).add_(eye.repeat_interleave(4, dim=1)[:, :, None, None] / 4)
    z = h_a(y)
    assert h_a.down2.conv.bias is not None
    h_a.down2.conv.bias.sub_(z.mean(dim=(0, 2, 3)))
    z = h_a(y)
    for conv in (scales.conv1, scales.conv2):
        conv.weight.mul_(FAINT)
        conv.weight[:, :, 1, 1] += torch.eye(hyper)
    for conv in (scales.up1, scales.up2):
        conv.weight.mul_(FAINT).add_(torch.eye(hyper).repeat_interleave(4, dim=0)[:, :, None, None])
    _fit_head(scales.head, scales.trunk(z), y)
    anchors = model.z_step.table.shape[0]
    step = torch.linspace(1.0, 0.5, anchors)[:, None]
    model.z_step.table.copy_(step.expand(-1, hyper))
    model.z_scale.table.copy_((z.std(dim=(0, 2, 3))[None, :] / step).clamp(min=0.2).log())


def _fit_head(head: nn.Conv2d, features: Tensor, y: Tensor) -> None:
    """Least squares (ridge) from features to the log standard deviation of each channel in 4x4 latents."""
    energy = nn.functional.avg_pool2d(y.square(), 4)
    target = 0.5 * torch.log(energy + 1e-5)
    x = nn.functional.avg_pool2d(features, 4).permute(0, 2, 3, 1).reshape(-1, features.shape[1]).double()
    t = target.permute(0, 2, 3, 1).reshape(-1, target.shape[1]).double()
    mean_x, mean_t = x.mean(0), t.mean(0)
    x, t = x - mean_x, t - mean_t
    ridge = 0.003 * len(x) * torch.eye(x.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(x.T @ x + ridge, x.T @ t)
    head.weight.copy_(solution.T.float()[:, :, None, None])
    assert head.bias is not None
    head.bias.copy_((mean_t - mean_x @ solution).float())


def _fitted(bands: Tensor, rows: int) -> Tensor:
    """``bands`` with ``rows`` rows: cut, or filled up with zeros."""
    result = torch.zeros(rows, bands.shape[1])
    count = min(rows, len(bands))
    result[:count] = bands[:count]
    return result


def _zero_bias(layer: nn.Conv2d) -> None:
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
