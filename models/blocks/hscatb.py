"""HSCATB: hybrid spatial-channel attention transformer block (Soltani and Ghasemi, arXiv 2408.03842, 2024).

From the paper: attention in windows whose high and low frequencies have projections of their own, with the results side
by side; attention over channels; a feed-forward that mixes local and global features. No sizes and no code of it could
be had, so these are ours: the low path's keys are averages of 2x2 tokens inside of a window (as in HiLo attention; Pan,
Cai and Zhuang, NeurIPS 2022), each path has half of the channels; attention over channels is transposed (as in
Restormer; Zamir et al., CVPR 2022) and beside the spatial one; the global feature is a gate. Every part is a switch.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.models.blocks.attention import Dense, WindowAttention, from_windows, to_windows
from lichen.models.blocks.conv import LayerNorm2d, full_precision
from lichen.models.blocks.s2cformer import FeedForward

WINDOW = 8
HEAD_CHANNELS = 16
SWITCHES = ("no-low", "no-channel", "squeeze", "no-mixed")
"""All attention on the high path; no attention over channels; squeeze and excitation for it; a plain feed-forward."""


class LowAttention(nn.Module):
    """Every token of a window attends to the window's 2x2 averages: ``channels`` to ``outputs``."""

    def __init__(self, channels: int, outputs: int, heads: int, window: int) -> None:
        super().__init__()
        self.heads, self.window = heads, window
        self.query = Dense(channels, outputs)
        self.keys = Dense(channels, 2 * outputs)

    def forward(self, x: Tensor) -> Tensor:
        q = to_windows(self.query(x), self.window, self.heads)
        pooled = self.keys(F.avg_pool2d(x, 2)).chunk(2, 1)
        k, v = (to_windows(part, self.window // 2, self.heads) for part in pooled)
        seen = F.scaled_dot_product_attention(q, k, v)
        return from_windows(seen, self.window, x.shape[2], x.shape[3])


class HighAttention(WindowAttention):
    """Window attention of ``channels`` to ``outputs``, without the last layer."""

    def __init__(self, channels: int, outputs: int, heads: int, window: int) -> None:
        super().__init__(outputs, heads, window)
        self.embedding_layer = Dense(channels, 3 * outputs)
        self.linear = nn.Identity()  # type: ignore[assignment]


class SpatialAttention(nn.Module):
    """High and low frequencies side by side, mixed by a dense layer."""

    def __init__(self, channels: int, heads: int, window: int, *, low: bool) -> None:
        super().__init__()
        half = channels // 2
        share = max(1, heads // 2)
        self.high = HighAttention(channels, half if low else channels, share if low else heads, window)
        self.low = LowAttention(channels, half, share, window) if low else None
        self.project = Dense(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        high = self.high(x)
        y: Tensor = self.project(high if self.low is None else torch.cat([high, self.low(x)], 1))
        return y


class ChannelAttention(nn.Module):
    """Attention between the channels of a head over all positions, with a temperature for each head.

    The result depends on the whole map: on a tile of a large picture it differs a little from that on all of it.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = Dense(channels, 3 * channels)
        self.around = nn.Conv2d(3 * channels, 3 * channels, 3, padding=1, groups=3 * channels)
        self.project = Dense(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        # the second moments of channels are sums over a whole map: too long for half precision
        parts = self.around(self.qkv(x)).float().chunk(3, 1)
        q, k, v = (part.reshape(b, self.heads, c // self.heads, h * w) for part in parts)
        with full_precision(x.device):
            similar = F.normalize(q, dim=3) @ F.normalize(k, dim=3).transpose(2, 3)
            seen = torch.softmax(similar * self.temperature, 3) @ v
        y: Tensor = self.project(seen.reshape(b, c, h, w).contiguous(memory_format=torch.channels_last))
        return y


class SqueezeAttention(nn.Module):
    """The cheap attention over channels: a gate for each from the means of all (Hu, Shen and Sun, CVPR 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.squeeze = Dense(channels, max(4, channels // 16))
        self.excite = Dense(max(4, channels // 16), channels)
        self.project = Dense(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3), keepdim=True)))))
        y: Tensor = self.project(x * gate)
        return y


class MixedFeedForward(nn.Module):
    """Mixed local-global feed-forward: depth-wise 3x3 on one half, 5x5 on the other, both gated by the map's means."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        inner = expansion * channels
        self.near_in, self.far_in = Dense(channels, inner), Dense(channels, inner)
        self.near = nn.Conv2d(inner, inner, 3, padding=1, groups=inner)
        self.far = nn.Conv2d(inner, inner, 5, padding=2, groups=inner)
        self.gate = Dense(2 * inner, 2 * inner)
        self.project = Dense(2 * inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        near, far = self.near_in(x), self.far_in(x)
        local = torch.cat([F.gelu(self.near(near)), F.gelu(self.far(far))], 1)
        means = torch.cat([near, far], 1).mean((2, 3), keepdim=True)
        y: Tensor = self.project(local * torch.sigmoid(self.gate(means)))
        return y


class HybridBlock(nn.Module):
    """The block. ``switches`` are some of ``SWITCHES``."""

    def __init__(self, channels: int, expansion: int, switches: frozenset[str] = frozenset()) -> None:
        super().__init__()
        heads = max(2, channels // HEAD_CHANNELS)
        self.norm1, self.norm2 = LayerNorm2d(channels), LayerNorm2d(channels)
        self.spatial = SpatialAttention(channels, heads, WINDOW, low="no-low" not in switches)
        self.channel: nn.Module | None = None
        if "squeeze" in switches:
            self.channel = SqueezeAttention(channels)
        elif "no-channel" not in switches:
            self.channel = ChannelAttention(channels, heads)
        plain = "no-mixed" in switches
        self.ffn = FeedForward(channels, expansion) if plain else MixedFeedForward(channels, expansion)

    def last_layers(self) -> tuple[nn.Module, ...]:
        """The layers whose outputs are added to what passes by."""
        channel = () if self.channel is None else (self.channel.project,)
        return self.spatial.project, *channel, self.ffn.project

    def forward(self, x: Tensor) -> Tensor:
        normal = self.norm1(x)
        mixed = self.spatial(normal)
        x = x + (mixed if self.channel is None else mixed + self.channel(normal))
        y: Tensor = self.ffn(self.norm2(x))
        return x + y
