"""Self-attention inside of windows (Liu et al., "Swin Transformer", ICCV 2021), on ``(B, C, H, W)`` maps.

Windows lie on a fixed grid, so a map is made of whole windows: its sides are multiples of the window's. Position
biases and masks of shifted windows are found once for each size and kept.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.models.blocks.conv import LayerNorm2d


class Dense(nn.Linear):
    """A linear layer over the channels of a map. Stored as ``torch.nn.Linear`` is, run as a 1x1 convolution."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight[:, :, None, None], self.bias)


def to_windows(x: Tensor, window: int, heads: int) -> Tensor:
    """``(B, heads * d, H, W)`` to ``(B * windows, heads, window**2, d)``, windows row by row."""
    b, c, h, w = x.shape
    x = x.permute(0, 2, 3, 1).reshape(b, h // window, window, w // window, window, heads, c // heads)
    return x.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, heads, window * window, c // heads)


def from_windows(x: Tensor, window: int, height: int, width: int) -> Tensor:
    """What ``to_windows`` took apart, ``(B, heads * d, height, width)`` in channels-last memory."""
    _, heads, _, depth = x.shape
    rows, columns = height // window, width // window
    x = x.reshape(-1, rows, columns, heads, window, window, depth).permute(0, 1, 4, 2, 5, 3, 6)
    return x.reshape(-1, height, width, heads * depth).permute(0, 3, 1, 2)


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # what is kept must serve training too
def relative_positions(window: int, device: torch.device) -> Tensor:
    """Index of each pair's offset in a flattened ``(2 * window - 1)**2`` table: ``(window**2, window**2)``.

    Row offsets count first; the offset is that of the query less that of the key.
    """
    place = torch.arange(window, device=device)
    rows, columns = (axis.reshape(-1) for axis in torch.meshgrid(place, place, indexing="ij"))
    down, right = (axis[:, None] - axis[None, :] + window - 1 for axis in (rows, columns))
    return down * (2 * window - 1) + right


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # what is kept must serve training too
def shift_mask(rows: int, columns: int, window: int, device: torch.device) -> Tensor:
    """What may see what in windows shifted by half: boolean ``(rows * columns, 1, window**2, window**2)``.

    The last row and the last column of windows hold both ends of the rolled map, which are no neighbours.
    """
    half = window // 2
    row = torch.arange(rows * window, device=device)
    column = torch.arange(columns * window, device=device)
    far = (row >= rows * window - half)[:, None].long() * 2 + (column >= columns * window - half)[None, :].long()
    region = to_windows(far[None, None].float(), window, 1)[..., 0]  # (windows, 1, window**2)
    return region[..., :, None] == region[..., None, :]


class WindowAttention(nn.Module):
    """Multi-head attention in windows with a bias by relative position; windows rolled by half if ``shifted``.

    Names and shapes of the weights are those of TCM's published code (Liu, Sun and Katto, CVPR 2023).
    """

    def __init__(self, channels: int, heads: int, window: int, *, shifted: bool = False) -> None:
        super().__init__()
        self.heads, self.window, self.shifted = heads, window, shifted
        self.relative_position_params = nn.Parameter(torch.zeros(heads, 2 * window - 1, 2 * window - 1))
        nn.init.trunc_normal_(self.relative_position_params, std=0.02)
        self.embedding_layer = Dense(channels, 3 * channels)
        self.linear = Dense(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        window, half = self.window, self.window // 2
        height, width = x.shape[2:]
        if self.shifted:
            x = x.roll((-half, -half), (2, 3))
        q, k, v = (to_windows(part, window, self.heads) for part in self.embedding_layer(x).chunk(3, 1))
        bias = self.relative_position_params.flatten(1)[:, relative_positions(window, x.device)]
        if self.shifted:
            allowed = shift_mask(height // window, width // window, window, x.device)
            bias = torch.where(allowed, bias[None], torch.finfo(bias.dtype).min).repeat(len(x), 1, 1, 1)
        seen = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(x.dtype))
        y: Tensor = self.linear(from_windows(seen, window, height, width))
        return y.roll((half, half), (2, 3)) if self.shifted else y


class SwinBlock(nn.Module):
    """Normalised window attention, then a normalised feed-forward with four times the channels, both residual."""

    def __init__(self, channels: int, head_channels: int, window: int, *, shifted: bool) -> None:
        super().__init__()
        self.ln1 = LayerNorm2d(channels, 1e-5)
        self.msa = WindowAttention(channels, channels // head_channels, window, shifted=shifted)
        self.ln2 = LayerNorm2d(channels, 1e-5)
        self.mlp = nn.Sequential(Dense(channels, 4 * channels), nn.GELU(), Dense(4 * channels, channels))

    def last_layers(self) -> tuple[nn.Module, ...]:
        return self.msa.linear, self.mlp[2]

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.msa(self.ln1(x))
        y: Tensor = self.mlp(self.ln2(x))
        return x + y
