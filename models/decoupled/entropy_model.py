"""The decoupled entropy model: scales from the hyper-latent alone, means refined in four steps.

Scale and mean of each latent are predicted apart. The scale index, which selects the coder's table, comes
from the integers of the hyper-latent alone (``ScaleNet``; at export it becomes an exact integer network), so
the bitstream decodes to the same symbols on every device. The means stay in floating point: symbols are
``(y - mean) * gain`` rounded, so a float difference moves a pixel invisibly and never breaks the stream (the
decoupled design of JPEG AI). The mean of each latent is refined from its decoded neighbours in four steps: step s
codes another 2x2 phase in each of four channel groups (the spatial prior of DCVC-RT, Jia et al., 2025).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.models.blocks.conv import ConvBlock, Down, SeparableMixer, Up, full_precision, shuffle
from lichen.models.blocks.quality import QualityTable
from lichen.models.blocks.rounding import bounded, noisy, rounded

SCALE_MIN, SCALE_MAX, SCALES = 0.11, 128.0, 64
LOG_STEP = math.log(SCALE_MAX / SCALE_MIN) / (SCALES - 1)
STEPS = 4
Z_STEP_MIN = 1 / 16
SCALE_SLOPE = 0.25
"""Slope of the scale network's activations below zero."""
RATE_WEIGHT = 0.08
"""Squared quantisation steps that a bit is worth when symbols are chosen."""
HYPER_RATE_WEIGHT = 0.025
"""Squared steps that a bit of the hyper-latent is worth: fewer, because an error there costs bits of the latent."""
SECANT_WEIGHT = 1.2
"""Makes up for the distortion, whose straight-through gradient pushes also those residuals that stay zero."""


def step_masks(channels: int, height: int, width: int, device: torch.device) -> list[Tensor]:
    """The four boolean masks ``(1, channels, height, width)`` that partition the latent into coding steps."""
    phases = torch.tensor([[0, 1, 2, 3], [3, 2, 1, 0], [2, 3, 0, 1], [1, 0, 3, 2]], device=device)
    group = torch.arange(channels, device=device) % 4
    row = torch.arange(height, device=device) % 2
    column = torch.arange(width, device=device) % 2
    phase = (row[:, None] * 2 + column[None, :])[None]
    return [(phase == phases[s][group][:, None, None])[None] for s in range(STEPS)]


def logistic_bits(residual: Tensor, log_scale: Tensor) -> Tensor:
    """Bits of unit intervals around ``residual`` under zero-mean logistic densities of the given scale (sigma).

    The tail side is evaluated with ``log1p``/``expm1`` forms in float32, so no floor on the likelihood is needed.
    """
    inverse = torch.exp(-log_scale) * (math.pi / math.sqrt(3))
    a = (residual.abs() - 0.5) * inverse
    # P = sigmoid(-a) - sigmoid(-a - inverse) = sigmoid(-a) * sigmoid(a + inverse) * (1 - exp(-inverse))
    log_p = F.logsigmoid(-a) + F.logsigmoid(a + inverse) + torch.log(-torch.expm1(-inverse))
    return -log_p / math.log(2)


RateProxy = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Bits with a gradient, from scaled residuals, their ``rounding_offset`` and their log scales."""


def secant_bits(residual: Tensor, offset: Tensor, log_scale: Tensor) -> Tensor:
    """Bits of the symbol; the gradient is ``SECANT_WEIGHT`` times the secant of the rate over one step around it.

    The secant is the gradient of the true rate, dead zone included, under uniform noise before the quantiser. It has
    no noise of its own, and is zero for residuals that stay zero anyway, which most do.
    """
    with torch.no_grad():
        above = logistic_bits(quantise(residual + 0.5, offset), log_scale)
        below = logistic_bits(quantise(residual - 0.5, offset), log_scale)
        symbols = quantise(residual, offset)
    return logistic_bits(symbols, log_scale) + SECANT_WEIGHT * (above - below) * (residual - residual.detach())


class HyperAnalysis(nn.Module):
    """h_a: latent y (1/16) to hyper-latent z (1/64). Magnitudes are given explicitly: they carry the scales."""

    def __init__(self, latent: int, hidden: int, hyper: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(latent, hidden, 1)
        self.magnitude = nn.Conv2d(latent, hidden, 1, bias=False)
        self.block1 = ConvBlock(hidden, 1)
        self.down1 = Down(hidden, hidden)
        self.block2 = ConvBlock(hidden, 1)
        self.down2 = Down(hidden, hyper)

    def forward(self, y: Tensor) -> Tensor:
        x = self.stem(y) + self.magnitude(torch.log1p(32 * y.abs()))
        z: Tensor = self.down2(self.block2(self.down1(self.block1(x))))
        return z


class ScaleNet(nn.Module):
    """Log standard deviations of the latents from the dequantised hyper-latent.

    Only convolutions and a leaky ReLU of slope 1/4, so that it can be exported to exact integers without loss.
    """

    def __init__(self, hyper: int, latent: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(hyper, hyper, 3, padding=1)
        self.up1 = nn.Conv2d(hyper, 4 * hyper, 1)
        self.conv2 = nn.Conv2d(hyper, hyper, 3, padding=1)
        self.up2 = nn.Conv2d(hyper, 4 * hyper, 1)
        self.head = nn.Conv2d(hyper, latent, 1)

    def trunk(self, z: Tensor) -> Tensor:
        """Features at 1/16 before the last layer."""
        x = F.leaky_relu(self.conv1(z), SCALE_SLOPE)
        x = F.leaky_relu(shuffle(self.up1(x), 2), SCALE_SLOPE)
        x = F.leaky_relu(self.conv2(x), SCALE_SLOPE)
        return F.leaky_relu(shuffle(self.up2(x), 2), SCALE_SLOPE)

    def forward(self, z: Tensor) -> Tensor:
        log_scale: Tensor = self.head(self.trunk(z))
        return log_scale


class MeanNet(nn.Module):
    """Means of the latents: from the hyper-latent, then refined from what is already decoded."""

    def __init__(self, hyper: int, hidden: int, features: int, context: int, latent: int, anchors: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(hyper, hidden, 3, padding=1)
        self.up1 = Up(hidden, hidden)
        self.block = ConvBlock(hidden, 1)
        self.up2 = Up(hidden, features)
        self.head = nn.Conv2d(features, latent, 1)
        self.gain = QualityTable(anchors, context)
        self.known = nn.Conv2d(latent, context, 1)
        self.features = nn.Conv2d(features, context, 1, bias=False)
        self.step_bias = nn.Parameter(torch.zeros(STEPS - 1, context))
        self.mixer = SeparableMixer(context)
        self.context_out = nn.Conv2d(context, latent, 1)

    def hyper_features(self, z: Tensor) -> Tensor:
        """Features at 1/16 from the dequantised hyper-latent."""
        return F.leaky_relu(self.up2(self.block(self.up1(F.leaky_relu(self.stem(z), 0.01)))), 0.01)

    def first(self, features: Tensor) -> Tensor:
        """Means from the hyper-latent alone, for the first step."""
        mean: Tensor = self.head(features)
        return mean

    def refine(self, known: Tensor, side: Tensor, step: int, position: Tensor) -> Tensor:
        """Correction of the first means for step 1 to 3.

        ``known`` holds decoded latents where there are any and first means elsewhere; ``side`` is
        ``self.features(hyper features)``, the same in all steps.
        """
        x = self.known(known) + side + self.step_bias[step - 1][None, :, None, None]
        x = F.leaky_relu(x * self.gain(position).exp(), 0.01)
        correction: Tensor = self.context_out(F.leaky_relu(self.mixer(x), 0.01))
        return correction


class EntropyModel(nn.Module):
    """Quantisation and rate of a latent, for training; ``lichen.models.decoupled.codec`` codes the same integers."""

    def __init__(self, latent: int, hyper: int, hidden: int, features: int, context: int, anchors: int) -> None:
        super().__init__()
        self.rate: RateProxy = secant_bits
        """Bits of residuals with a gradient, in training."""
        self.h_a = HyperAnalysis(latent, hidden, hyper)
        self.scales = ScaleNet(hyper, latent)
        self.means = MeanNet(hyper, hidden, features, context, latent, anchors)
        self.gain = QualityTable(anchors, latent)  # log gain of the latent
        self.shrink = QualityTable(anchors, latent)  # log factor on decoded residuals
        self.z_step = QualityTable(anchors, hyper)  # step of the hyper-latent, interpolated as it is
        self.z_scale = QualityTable(anchors, hyper)  # log sigma of the hyper-latent's symbols

    def forward(self, y: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the decoded latent, and the bits of y and of z for each picture (float32)."""
        with full_precision(y.device):
            z_step = bounded(self.z_step(position), Z_STEP_MIN)
        z = self.h_a(y).float()
        y = y.float()
        z_scaled = z / z_step
        z_log_scale = symbol_scale(self.z_scale(position), torch.zeros((), device=z.device))
        symbols_z = rounded(z_scaled)
        z_bits = logistic_bits(noisy(z_scaled) if self.training else symbols_z, z_log_scale)
        z_hat = symbols_z * z_step
        gain = self.gain(position)
        log_y = self.scales(z_hat).float()
        log_scale = symbol_scale(log_y, gain)
        features = self.means.hyper_features(z_hat)
        with full_precision(y.device):
            features = features.float()
            first = self.means.first(features)
        side = self.means.features(features)
        down = (self.shrink(position) - gain).exp()
        offset = rounding_offset(log_scale.detach())
        known, residual, coded = self.refined(
            y * gain.exp(), first, side, (gain, down), position, lambda scaled: quantise(scaled, offset)
        )
        if self.training:
            # y, means and gains learn from a rate with a gradient; scales from the true symbols
            spread = self.rate(residual, offset, symbol_scale(log_y.detach(), gain))
            learnt = logistic_bits(coded, symbol_scale(log_y, gain.detach()))
            y_bits = spread + learnt - learnt.detach()
        else:
            y_bits = logistic_bits(coded, log_scale)
        return known, y_bits.sum(dim=(1, 2, 3)), z_bits.sum(dim=(1, 2, 3))

    def refined(
        self,
        scaled: Tensor,
        first: Tensor,
        side: Tensor,
        factors: tuple[Tensor, Tensor],
        position: Tensor,
        integers: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Latents, given in quantisation steps, through the four steps with straight-through gradients.

        ``factors`` are the log gain, and what decoded residuals are multiplied with; ``integers`` quantises
        residuals. Returns the decoded latent, the residuals and the integers, in quantisation steps.
        """
        gain, down = factors
        up = gain.exp()
        known, residual, coded = first, torch.zeros_like(scaled), torch.zeros_like(scaled)
        for step, mask in enumerate(step_masks(first.shape[1], first.shape[2], first.shape[3], first.device)):
            mean = first if step == 0 else first + self.means.refine(known, side, step, position).float()
            apart = scaled - mean * up
            symbols = apart + (integers(apart) - apart).detach()
            residual = torch.where(mask, apart, residual)
            coded = torch.where(mask, symbols.detach(), coded)
            known = torch.where(mask, mean + symbols * down, known)
        return known, residual, coded


def symbol_scale(log_y: Tensor, log_gain: Tensor) -> Tensor:
    """Log standard deviation of symbols, in the range of the coder's tables, from that of latents and their gain."""
    return bounded(log_y + log_gain, math.log(SCALE_MIN), math.log(SCALE_MAX))


def rounding_offset(log_scale: Tensor, weight: float = RATE_WEIGHT) -> Tensor:
    """What is added to the magnitude of a residual before it is cut to an integer, 0.1 to 0.5.

    Rate-distortion optimised quantisation with uniform thresholds: a residual between zero and one becomes zero where
    that costs less in ``error**2 + weight * bits``. The decoder need not know.
    """
    one = torch.ones_like(log_scale)
    rise = logistic_bits(one, log_scale) - logistic_bits(torch.zeros_like(one), log_scale)
    return (0.5 - 0.5 * weight * rise).clamp(min=0.1)


def quantise(residual: Tensor, offset: Tensor) -> Tensor:
    """Integers (as floats) of scaled residuals, with the ``rounding_offset`` of their scales."""
    return (residual.abs() + offset).floor().copysign(residual)
