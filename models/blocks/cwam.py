"""The block of CWAM: cross-window attention (Mudgal and Liu, ISVC 2024).

Tokens of a fine window attend to themselves and to a coarse window of the same number of tokens, which covers twice the
side around it at half the resolution (the idea is VFIFormer's: Lu et al., CVPR 2022). The result gates a stack
of residual units. Names and shapes of the weights are those of the published code. Despite its class there, windows
are always shifted by half.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.models.blocks.attention import Dense, from_windows, relative_positions, shift_mask, to_windows
from lichen.models.blocks.residual import ResidualUnit


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
