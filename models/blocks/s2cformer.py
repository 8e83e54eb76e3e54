"""S2CFormer: spatial interaction, then channel aggregation (Chen et al., arXiv 2502.00700, 2025).

The paper takes a transformer block apart into a spatial operator and a feed-forward that aggregates channels, and finds
the second to matter more. The operator is a switch here: none (S2C-Identity), a separable convolution (S2C-Conv),
window attention (S2C-Attention), or convolutions first and attention after (S2C-Hybrid); so is the feed-forward.

From the paper are the idea and the operators. No code of it could be had: the shapes of the blocks are those of the
same authors' CMIC and GLIC, which came after. Ours is where they run: at 1/8 between space to depth and depth to
space (``transforms``), not at 1/2, 1/4 and 1/8.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lichen.models.blocks.attention import Dense, WindowAttention
from lichen.models.blocks.conv import GatedFeedForward, LayerNorm2d, SeparableMixer

WINDOW = 8
HEAD_CHANNELS = 16
SPATIAL = ("identity", "conv", "attention")
FEED_FORWARD = ("mlp", "gated", "gated-conv")


class GatedConvFeedForward(nn.Module):
    """A ``GatedFeedForward`` with a depth-wise 3x3 before the gate: a glance at the neighbours."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        inner = expansion * channels
        self.gate = nn.Conv2d(channels, inner, 1, bias=False)
        self.value = nn.Conv2d(channels, inner, 1, bias=False)
        self.gate_around = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.value_around = nn.Conv2d(inner, inner, 3, padding=1, groups=inner, bias=False)
        self.project = nn.Conv2d(inner, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(F.gelu(self.gate_around(self.gate(x))) * self.value_around(self.value(x)))
        return y


class FeedForward(nn.Module):
    """The usual transformer's: two dense layers with a GELU between."""

    def __init__(self, channels: int, expansion: int) -> None:
        super().__init__()
        self.expand = Dense(channels, 2 * expansion * channels)
        self.project = Dense(2 * expansion * channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(F.gelu(self.expand(x)))
        return y


class WindowMixer(nn.Module):
    """Spatial interaction by normalised window attention, residual; windows are not shifted, as in the siblings."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = LayerNorm2d(channels)
        self.attention = WindowAttention(channels, max(1, channels // HEAD_CHANNELS), WINDOW)

    @property
    def project(self) -> nn.Module:
        """The layer that writes into the residual sum."""
        return self.attention.linear

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.attention(self.norm(x))
        return x + y


class S2CBlock(nn.Module):
    """A spatial operator (of ``SPATIAL``) and a feed-forward (of ``FEED_FORWARD``), both residual."""

    def __init__(self, channels: int, expansion: int, spatial: str, feed_forward: str) -> None:
        super().__init__()
        kinds = {"mlp": FeedForward, "gated": GatedFeedForward, "gated-conv": GatedConvFeedForward}
        mixers = {"identity": None, "conv": SeparableMixer, "attention": WindowMixer}
        mixer = mixers[spatial]
        self.mixer = nn.Identity() if mixer is None else mixer(channels)
        self.norm = LayerNorm2d(channels)
        self.ffn = kinds[feed_forward](channels, expansion)

    def last_layers(self) -> tuple[nn.Module, ...]:
        """The layers whose outputs are added to what passes by."""
        own = () if isinstance(self.mixer, nn.Identity) else (self.mixer.project,)
        return *own, self.ffn.project

    def forward(self, x: Tensor) -> Tensor:
        x = self.mixer(x)
        y: Tensor = self.ffn(self.norm(x))
        return x + y


def operators(variant: str, depth: int) -> list[str]:
    """The spatial operator of each of ``depth`` blocks of a variant: an operator's name, or ``hybrid``."""
    if variant == "hybrid":
        return ["conv"] * (depth - depth // 2) + ["attention"] * (depth // 2)
    return [variant] * depth
