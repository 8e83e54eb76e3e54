"""What training and measuring need of a network, whichever way it is coded."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Constructor arguments of a network."""

    scheme: ClassVar[str]
    """The way of coding that the network is made for, by its name in ``lichen.models.registry``."""
    system: ClassVar[str]
    """The network's name within its scheme, in codec files and in the checkpoints of training."""

    @property
    def continuous(self) -> bool:
        """Whether one network has all qualities, and not one rate."""
        return True

    def to_json(self) -> dict[str, Any]:
        """The configuration as plain values, for checkpoints of training; ``registry.config_from_json`` reads them."""
        return {"architecture": self.system, "arguments": asdict(self)}


class TrainableNetwork(nn.Module):
    """Pictures in RGB, [0, 1], to reconstructions and the bits that they cost."""

    grid: int = 64
    """Sides of pictures are multiples of it."""
    watched: tuple[float, ...] = (50.0,)
    """The qualities at which training looks at pictures that are held out; of a network with one rate any will do."""
    noise: float = 1.0
    """Factor on the noise that a test of portability adds to the layers of the entropy model."""
    config: Any
    """The ``Config`` that it was made from."""

    def lagrangian(self, quality: Tensor) -> Tensor:
        """The weight of the distortion that belongs to qualities ``(B,)``."""
        raise NotImplementedError

    def entropy_modules(self) -> list[nn.Module]:
        """The modules of the entropy model, as far as decoding needs them."""
        raise NotImplementedError

    def forward(self, x: Tensor, quality: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``(B, 3, H, W)`` pictures and ``(B,)`` qualities to reconstruction, bits of y and bits of z (``(B,)``)."""
        raise NotImplementedError
