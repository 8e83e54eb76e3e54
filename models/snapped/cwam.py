"""CWAM: cross-window attention (Mudgal and Liu, ISVC 2024).

The published codec of the blocks in ``lichen.models.blocks.cwam``. Names and shapes of the weights are those of the
published code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lichen.models.blocks.cwam import CrossWindowModule
from lichen.models.blocks.residual import GDN, GateAttention, conv, deconv
from lichen.models.snapped.context import ContextNetwork, hyper_pair
from lichen.models.snapped.network import RateConfig

FEATURES = 64
GROWTH = 32


@dataclass(frozen=True, kw_only=True, slots=True)
class CWAMConfig(RateConfig):
    """Constructor arguments of ``CWAM``: channels everywhere, and the context.

    The published context is ``serial``: every place of the latent waits for its neighbours. ``checkerboard`` codes in
    two steps (He et al., CVPR 2021); it is ours, and the default, because nobody archives at seconds a picture.
    """

    system: ClassVar[str] = "cwam"

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
