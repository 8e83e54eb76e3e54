"""The networks: size, cost, receptive fields, gradients, starting values."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from lichen.models.blocks import rounding
from lichen.models.blocks.conv import shuffle, unshuffle
from lichen.models.blocks.dct import dct_basis
from lichen.models.decoupled.codec import HALO
from lichen.models.decoupled.entropy_model import (
    SCALE_MIN,
    SECANT_WEIGHT,
    logistic_bits,
    quantise,
    rounding_offset,
    secant_bits,
    step_masks,
)
from lichen.models.decoupled.network import CodecNetwork, NetworkConfig


@pytest.fixture(scope="module")
def network() -> CodecNetwork:
    torch.manual_seed(0)
    return CodecNetwork(NetworkConfig()).eval()


def test_parameters(network: CodecNetwork) -> None:
    assert 3e6 <= sum(p.numel() for p in network.parameters()) <= 6e6


def test_multiplications_per_pixel(network: CodecNetwork) -> None:
    x, quality = torch.rand(1, 3, 256, 256), torch.tensor([50.0])
    position = network.position(quality)
    with torch.no_grad(), FlopCounterMode(display=False) as transforms:
        network.g_s(network.g_a(x, position), position)
    with torch.no_grad(), FlopCounterMode(display=False) as all_of_it:
        network(x, quality)
    assert 20e3 <= transforms.get_total_flops() / 2 / 256**2 <= 45e3
    assert all_of_it.get_total_flops() / transforms.get_total_flops() < 1.25


def test_the_dct_is_orthonormal() -> None:
    basis = dct_basis(208, 56)
    assert torch.allclose(basis @ basis.T, torch.eye(320), atol=1e-5)


def test_unshuffle_is_that_of_torch_and_shuffle_inverts_it() -> None:
    x = torch.rand(2, 3, 32, 48)
    assert torch.equal(unshuffle(x, 8), nn.functional.pixel_unshuffle(x, 8))
    assert torch.equal(shuffle(unshuffle(x, 8), 8), x)
    assert unshuffle(x, 8).is_contiguous(memory_format=torch.channels_last)


def test_steps_partition_the_latent() -> None:
    masks = torch.cat(step_masks(12, 6, 8, torch.device("cpu")))
    assert torch.equal(masks.sum(0), torch.ones(12, 6, 8, dtype=torch.long))
    assert all(mask.float().mean() == 0.25 for mask in masks)


def test_the_gradient_of_the_rate_is_that_of_true_symbols_under_noise() -> None:
    residual = torch.linspace(-2.9, 2.9, 59, dtype=torch.float64).repeat(3, 1)
    log_scale = torch.tensor([[0.2], [0.7], [2.0]], dtype=torch.float64).log().expand_as(residual)
    offset = rounding_offset(log_scale)
    leaf = residual.clone().requires_grad_()
    bits = secant_bits(leaf, offset, log_scale)
    (gradient,) = torch.autograd.grad(bits.sum(), [leaf])
    assert torch.equal(bits, logistic_bits(quantise(residual, offset), log_scale))

    noise = (torch.arange(4000, dtype=torch.float64)[:, None, None] + 0.5) / 4000 - 0.5

    def smoothed(x: torch.Tensor) -> torch.Tensor:
        return logistic_bits(quantise(x + noise, offset), log_scale).mean(0)

    expected = (smoothed(residual + 0.01) - smoothed(residual - 0.01)) / 0.02
    off = (gradient / SECANT_WEIGHT - expected).abs() > 0.05 * expected.abs().max(dim=1, keepdim=True).values
    assert off.sum() < 12  # only where a threshold of the quantiser lies between the two points
    assert (gradient[0, 29 - 2 : 29 + 3] == 0).all()  # close to zero nothing costs bits


def test_bits_sum_to_a_distribution() -> None:
    values = torch.arange(-4000, 4001, dtype=torch.float32)
    for sigma in (SCALE_MIN, 0.5, 3.0, 100.0):
        log_scale = torch.full_like(values, sigma).log()
        assert torch.exp2(-logistic_bits(values, log_scale)).sum().item() == pytest.approx(1, abs=1e-3)
    assert torch.isfinite(logistic_bits(torch.tensor(1e6), torch.tensor(0.11).log()))


@pytest.mark.parametrize(
    ("part", "blocks", "depth"),
    [
        ("g_a", "s2c-conv", 4),
        ("g_s", "s2c-conv", 4),
        ("h_a", "s2c-conv", 4),
        ("g_s", "s2c-conv", 7),
        ("g_s", "s2c-conv", 11),
        ("g_a", "s2c-conv:gated-conv", 7),
    ],
)
def test_halo_covers_the_receptive_field(part: str, blocks: str, depth: int) -> None:
    torch.manual_seed(1)
    sizes = {"width": 16, "hidden": 16, "hyper": 16, "features": 16, "context": 16}
    network = CodecNetwork(NetworkConfig(blocks=blocks, depth=depth, **sizes))
    halo = HALO if part == "h_a" else network.config.halo
    assert halo == {4: 128, 7: 192 if ":" in blocks else 128, 11: 192}[depth]
    position = torch.zeros(1)
    side = 64 + 2 * halo
    inputs = {"g_a": (3, side), "g_s": (320, side // 16), "h_a": (320, side // 16)}[part]
    x = torch.rand(1, inputs[0], inputs[1], inputs[1], requires_grad=True)
    factor = {"g_a": 16, "g_s": 1, "h_a": 64}[part]
    module = {"g_a": network.g_a, "g_s": network.g_s, "h_a": network.entropy.h_a}[part]
    y = module(x) if part == "h_a" else module(x, position)
    y[:, :, halo // factor : (halo + 64) // factor, halo // factor : (halo + 64) // factor].sum().backward()
    assert x.grad is not None
    seen = x.grad.abs().sum(dim=(0, 1)) > 0
    # one more latent on each side must not be reached: otherwise tiles would differ from the whole
    wide = 1 if part != "g_a" else 16
    outside = torch.zeros_like(seen)
    outside[:wide] = outside[-wide:] = True
    if part != "h_a":  # g_a and g_s see 112 pixels
        assert not (seen & outside).any()
    assert seen.any()


def test_every_parameter_gets_a_gradient() -> None:
    from learned_support import new_network

    network = new_network()
    decoded, y_bits, z_bits = network(torch.rand(2, 3, 64, 128), torch.tensor([10.0, 90.0]))
    (decoded.square().sum() * 100 + y_bits.sum() + z_bits.sum()).backward()
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_scales_out_of_range_are_only_pulled_back() -> None:
    x = torch.tensor([-5.0, 0.0, 5.0], requires_grad=True)
    clamp = rounding.bounded
    (clamp(x, -1.0, 1.0) * torch.tensor([1.0, 1.0, -1.0])).sum().backward()  # wants to go further out
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 1.0, 0.0]
    x.grad = None
    (clamp(x, -1.0, 1.0) * torch.tensor([-1.0, 1.0, 1.0])).sum().backward()  # wants to come back
    assert x.grad.tolist() == [-1.0, 1.0, 1.0]
