"""Starting values: a working transform coder before the first step."""

from __future__ import annotations

import math

import numpy as np
import torch
from learned_support import new_network, photograph

from lichen.models.blocks.conv import unshuffle
from lichen.models.decoupled.entropy_model import logistic_bits
from lichen.models.decoupled.initialise import conditioning, latent_sizes
from lichen.models.decoupled.network import NetworkConfig

CONFIG = NetworkConfig(luma=40, chroma=12, width=24, depth=1, hyper=48, hidden=32, features=16, context=24, anchors=4)


def patches() -> torch.Tensor:
    picture = photograph()
    crops = [picture[y : y + 128, x : x + 128] for y in range(0, 256, 64) for x in range(0, 256, 64)]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255


@torch.no_grad()
def test_scales_follow_the_picture() -> None:
    """At the start latents already cost less under the scales of their own hyper-latent than under those of another."""
    network = new_network(CONFIG).eval()
    x = patches()
    gain = network.entropy.gain(network.position(torch.full((len(x),), 60.0)))
    y = network.g_a(x, torch.zeros(len(x)))
    symbols = (y * gain.exp()).round()
    scales = network.entropy.scales(network.entropy.h_a(y)) + gain
    own = logistic_bits(symbols, scales).sum()
    others = logistic_bits(symbols, scales.roll(7, dims=0)).sum()
    assert own < 0.96 * others


@torch.no_grad()
def test_quality_at_the_start_is_that_of_the_quantisation_steps() -> None:
    """The networks hardly disturb the transform: the error is near that of uniform quantisation and of the cut."""
    network = new_network(CONFIG).eval()
    x = patches()
    quality = torch.full((len(x),), 60.0)
    decoded, _, _ = network(x, quality)
    basis = network.g_a.linear.weight[:, :, 0, 0]
    coefficients = unshuffle(x - 0.5, 16).permute(0, 2, 3, 1) @ basis.T
    step = (-network.entropy.gain(network.position(quality))[0, :, 0, 0]).exp()
    classical = (coefficients / step).round() * step
    cut = (coefficients.square().sum() - (x - 0.5).square().sum()).abs()
    noise = (classical - coefficients).square().sum() + cut
    assert abs(10 * math.log10((decoded - x).square().sum() / noise)) < 1.5  # the dead zone takes a decibel


@torch.no_grad()
def test_the_first_layer_whitens() -> None:
    x = patches()
    features = new_network(CONFIG).g_a.network.stem(unshuffle(x - 0.5, 8))
    assert torch.allclose(features.std(dim=(0, 2, 3)), torch.ones(24), atol=0.02)


def test_conditioning_names_parameters_and_broadcasts() -> None:
    network = new_network(CONFIG)
    x = patches()
    parameters = dict(network.named_parameters())
    sizes = latent_sizes(network, x)
    assert sizes[0] > 20 * sizes[-1]  # the reason for it
    for name, factor in conditioning(network, x).items():
        assert torch.broadcast_shapes(parameters[name].shape, factor.shape) == parameters[name].shape
        assert (factor > 0).all()
