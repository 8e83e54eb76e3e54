"""The networks of a codec: analysis and synthesis around a system's blocks, and the decoupled entropy model.

Every system runs in the same frame: the linear transform with the network of its blocks around it (``transforms``),
one entropy model, continuous quality. What differs is the blocks (``trunks``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from lichen.models.blocks import quality as axis
from lichen.models.blocks.network import Config, TrainableNetwork
from lichen.models.decoupled.entropy_model import EntropyModel
from lichen.models.decoupled.transforms import Analysis, PixelNetwork, Synthesis
from lichen.models.decoupled.trunks import parse, trunk


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig(Config):
    """Constructor arguments of ``CodecNetwork``. ``luma + 2 * chroma`` is the number of latent channels.

    ``blocks`` names a system and its switches (``lichen.models.decoupled.trunks``).
    """

    scheme: ClassVar[str] = "decoupled"
    system: ClassVar[str] = "decoupled"

    blocks: str = "s2c-conv"
    luma: int = 208
    chroma: int = 56
    width: int = 144
    depth: int = 4
    expansion: int = 2
    hyper: int = 128
    hidden: int = 128
    features: int = 128
    context: int = 192
    anchors: int = 8
    lambda_min: float = 0.0018
    lambda_max: float = 0.15

    @classmethod
    def of(cls, blocks: str, **sizes: Any) -> NetworkConfig:
        """The usual sizes of a system. Raises ``UsageError`` for one that is not known."""
        system, _ = parse(blocks)
        usual = {"width": system.width, "depth": system.depth, "expansion": system.expansion}
        return cls(blocks=blocks, **usual | sizes)

    @property
    def halo(self) -> int:
        """Pixels around a tile that g_a and g_s are given."""
        trunk, switches = parse(self.blocks)
        return trunk.halo_of(self.depth, switches)

    @property
    def latent(self) -> int:
        return self.luma + 2 * self.chroma


class CodecNetwork(TrainableNetwork):
    """The variable-rate codec network. RGB in [0, 1], sides multiples of ``grid``."""

    watched = (10.0, 40.0, 70.0, 95.0)

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        c = config

        def pixels() -> PixelNetwork:
            return PixelNetwork(trunk(c.blocks, c.width, c.depth, c.expansion), c.width, c.anchors)

        self.g_a = Analysis(c.latent, pixels())
        self.g_s = Synthesis(c.latent, pixels())
        self.entropy = EntropyModel(c.latent, c.hyper, c.hidden, c.features, c.context, c.anchors)

    def position(self, quality: Tensor) -> Tensor:
        """Quality 1 to 100 mapped to the axis of the quality tables, 0 to ``anchors - 1``."""
        return axis.position(quality, self.config.anchors)

    def lagrangian(self, quality: Tensor) -> Tensor:
        """The weight of the distortion that belongs to a quality, log-linear between the two ends."""
        return axis.log_weight(quality, self.config.lambda_min, self.config.lambda_max).exp()

    def entropy_modules(self) -> list[nn.Module]:
        """All of the entropy model."""
        return [self.entropy]

    def forward(self, x: Tensor, quality: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, 3, H, W)`` pictures and ``(B,)`` qualities to reconstruction, bits of y and bits of z (``(B,)``)."""
        position = self.position(quality)
        y_hat, y_bits, z_bits = self.entropy(self.g_a(x, position), position)
        return self.g_s(y_hat, position), y_bits, z_bits
