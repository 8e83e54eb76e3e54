"""CWAM: cross-window attention (Mudgal and Liu, ISVC 2024).

Tokens of a fine window attend to themselves and to a coarse window of the same number of tokens, which covers twice the
side around it at half the resolution (the idea is VFIFormer's: Lu et al., CVPR 2022). The result gates a stack
of residual units. Names and shapes of the weights are those of the published code. Despite its class there, windows
are always shifted by half.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.models.networks.attention import Dense, from_windows, relative_positions, shift_mask, to_windows
from lichen.models.networks.context import ContextNetwork, hyper_pair
from lichen.models.networks.layers import GDN, GateAttention, ResidualUnit, conv, deconv
from lichen.models.networks.stepped import RateConfig


def coarse_windows(x: Tensor, window: int) -> Tensor:
    """Windows of the half-resolution map around each fine window: ``(B, C * window**2, windows)``.

    Halving by bilinear interpolation at the usual alignment is the mean of four pixels.
    """
    margin = window // 4
    half = F.pad(F.avg_pool2d(x, 2), (margin,) * 4, mode="reflect")
    return F.unfold(half, window, stride=window // 2)


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # what is kept must serve training too
def coarse_mask(rows: int, columns: int, window: int, device: torch.device) -> Tensor:
    """What fine tokens may see of the coarse window: boolean ``(windows, 1, window**2, window**2)``.

    Only what lies wholly inside of their own region of the rolled map.
    """
    half = window // 2
    row = torch.arange(rows * window, device=device)
    column = torch.arange(columns * window, device=device)
    # three bands in each direction, as the published masks have
    bands = [
        (place >= count * window - window).float() + (place >= count * window - half).float()
        for place, count in ((row, rows), (column, columns))
    ]
    label = (bands[0][:, None] * 3 + bands[1][None, :])[None, None]
    fine = to_windows(label, window, 1)[..., 0]
    coarse = coarse_windows(label, window)[0].T[:, None, :]
    return fine[..., :, None] == coarse[..., None, :]


class CrossWindowAttention(nn.Module):
    """Attention of fine windows to themselves and to their coarse surroundings, residual, without normalisation."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.relative_position_bias_table_x = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.relative_position_bias_table_y = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        for table in (self.relative_position_bias_table_x, self.relative_position_bias_table_y):
            nn.init.trunc_normal_(table, std=0.02)
        self.qkv = Dense(channels, 3 * channels)
        self.kv = Dense(channels, 2 * channels)
        self.merge1 = Dense(2 * channels, channels)
        self.merge2 = Dense(channels, channels)
        self.proj = Dense(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        window, half, heads = self.window, self.window // 2, self.heads
        b, c, height, width = x.shape
        rows, columns = height // window, width // window
        rolled = x.roll((-half, -half), (2, 3))
        q, k, v = (to_windows(part, window, heads) for part in self.qkv(rolled).chunk(3, 1))
        around = coarse_windows(rolled, window).reshape(b, c, window * window, rows * columns)
        far = self.kv(around.permute(0, 1, 3, 2))  # (B, 2C, windows, tokens)
        far = far.reshape(b, 2, heads, c // heads, rows * columns, window * window).permute(1, 0, 4, 2, 5, 3)
        far_k, far_v = far.reshape(2, -1, heads, window * window, c // heads)
        near_mask = shift_mask(rows, columns, window, x.device)
        far_mask = coarse_mask(rows, columns, window, x.device)
        near = self._attend(q, k, v, self.relative_position_bias_table_x, near_mask, b)
        wide = self._attend(q, far_k, far_v, self.relative_position_bias_table_y, far_mask, b)
        near, wide = (from_windows(part, window, height, width) for part in (near, wide))
        merged = self.merge2(F.leaky_relu(self.merge1(torch.cat([near, wide], 1)), 0.2))
        y: Tensor = self.proj(near + merged)
        return x + y.roll((half, half), (2, 3))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, table: Tensor, allowed: Tensor, batch: int) -> Tensor:
        bias = table[relative_positions(self.window, q.device)].permute(2, 0, 1)
        bias = torch.where(allowed, bias[None], bias[None] - 100).repeat(batch, 1, 1, 1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))


class CrossWindowModule(nn.Module):
    """``A(x) * sigmoid(B(x)) + x``: residual units, gated by cross-window attention with residual units of its own."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.conv_a = nn.Sequential(*[ResidualUnit(channels, nn.GELU) for _ in range(3)])
        self.conv_b = nn.Sequential(
            _Attention(channels, heads, window),
            *[ResidualUnit(channels, nn.GELU) for _ in range(3)],
            nn.Conv2d(channels, channels, 1),
        )

    def last_layers(self) -> tuple[nn.Module, ...]:
        """Nothing to quieten: the gate starts at one half whatever its weights."""
        return ()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv_a(x) * torch.sigmoid(self.conv_b(x))
        return y + x


class _Attention(nn.Module):
    """Gives the attention's weights the prefix that they have in published checkpoints."""

    def __init__(self, channels: int, heads: int, window: int) -> None:
        super().__init__()
        self.attn = CrossWindowAttention(channels, heads, window)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.attn(x)
        return y


# --- the published codec --------------------------------------------------------------------------

FEATURES = 64
GROWTH = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class CWAMConfig(RateConfig):
    """Constructor arguments of ``CWAM``: channels everywhere, and the context.

    The published context is ``serial``: every place of the latent waits for its neighbours. ``checkerboard`` codes in
    two steps (He et al., CVPR 2021); it is ours, and the default, because nobody archives at seconds a picture.
    """

    channels: int = 128
    context: str = "checkerboard"


class DenseBlock(nn.Module):
    """Five 3x3 convolutions, each of which reads the inputs and all results before it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        for n in range(5):
            width = GROWTH if n < 4 else outputs
            setattr(self, f"conv{n + 1}", nn.Conv2d(inputs + n * GROWTH, width, 3, padding=1))
        with torch.no_grad():
            for n in range(5):
                layer = getattr(self, f"conv{n + 1}")
                nn.init.xavier_normal_(layer.weight).mul_(0.1 if n < 4 else 0.0)
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        seen = [x]
        for n in range(5):
            y: Tensor = getattr(self, f"conv{n + 1}")(torch.cat(seen, 1))
            seen.append(F.leaky_relu(y, 0.2) if n < 4 else y)
        return seen[-1]


class Enhancement(nn.Module):
    """Feature encoding and decoding at full resolution: ``x + 0.2 * f(x)``, the identity at the start."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            DenseBlock(3, FEATURES),
            conv(FEATURES, FEATURES, 1, 1), conv(FEATURES, FEATURES, 3, 1), conv(FEATURES, FEATURES, 1, 1),
            DenseBlock(FEATURES, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + 0.2 * y


class CWAM(ContextNetwork):
    """The published codec: enhancement, cross-window attention at 1/4 and 1/16, a hyperprior with a context model."""

    encoder = ("enh.forw_enh", "attention.forw_att", "cnn.g_a", "h_a")
    transforms = ("enh.back_enh", "attention.back_att", "cnn.g_s")

    def __init__(self, config: CWAMConfig) -> None:
        c = config.channels
        super().__init__(latent=c, hyper=c, rates=config, context=config.context)
        self.config = config
        self.enh = nn.ModuleDict({"forw_enh": Enhancement(), "back_enh": Enhancement()})
        self.attention = nn.ModuleDict({"forw_att": GateAttention(c), "back_att": GateAttention(c)})
        wide, narrow = (8, 8), (8, 4)  # heads and sides of the windows at 1/4 and at 1/16
        self.cnn = nn.ModuleDict(
            {
                "g_a": nn.Sequential(
                    conv(3, c), GDN(c), conv(c, c), GDN(c), CrossWindowModule(c, *wide),
                    conv(c, c), GDN(c), conv(c, c), CrossWindowModule(c, *narrow),
                ),
                "g_s": nn.Sequential(
                    CrossWindowModule(c, *narrow), deconv(c, c), GDN(c, inverse=True), deconv(c, c),
                    GDN(c, inverse=True), CrossWindowModule(c, *wide), deconv(c, c), GDN(c, inverse=True), deconv(c, 3),
                ),
            }
        )  # fmt: skip
        self.h_a, self.h_s = hyper_pair(c)

    def analyse(self, x: Tensor) -> Tensor:
        """The latent of pictures."""
        y: Tensor = self.attention["forw_att"](self.cnn["g_a"](self.enh["forw_enh"](x)))
        return y

    def synthesise(self, y: Tensor) -> Tensor:
        """Pictures from decoded latents."""
        x: Tensor = self.enh["back_enh"](self.cnn["g_s"](self.attention["back_att"](y)))
        return x
