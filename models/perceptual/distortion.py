"""What a codec calls distortion: squared error, mixed with measures that agree with people's eyes.

Squared error alone spends bits where nobody looks. The mix follows what JPEG AI's verification model is trained with.
Training and the encoder's search (``lichen.models.decoupled.annealing``) lower the same mix, which the codec's card
states.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from lichen.errors import InvalidCodec, UsageError

if TYPE_CHECKING:
    from torch import Tensor

MS_SSIM_UNIT = 1300.0
"""Squared error, in grey levels, that weighs as much as a multi-scale structural similarity of zero."""
SSIMULACRA2_UNIT = 5.0
"""Squared error, in grey levels, that weighs as much as an ``error`` of 1 of SSIMULACRA 2."""
SMALLEST_SIDE = 161
"""Pixels a side that five scales of an 11-pixel window need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """Shares of MS-SSIM and SSIMULACRA 2 in the distortion, 0 to 1; squared error has the rest.

    Raises ``UsageError`` for shares that are negative or more than 1 together.
    """

    ms_ssim: float = 0.0
    ssimulacra2: float = 0.0

    def __post_init__(self) -> None:
        if not (self.ms_ssim >= 0 and self.ssimulacra2 >= 0 and self.ms_ssim + self.ssimulacra2 <= 1):
            raise UsageError("the shares of MS-SSIM and SSIMULACRA 2 are 0 to 1, and at most 1 together")

    @property
    def perceptual(self) -> bool:
        """Whether it is more than squared error."""
        return self.ms_ssim + self.ssimulacra2 > 0

    def distortion(self, decoded: Tensor, target: Tensor) -> Tensor:
        """Distortion ``(B,)`` of pictures ``(B, 3, H, W)`` in [0, 1], in squared grey levels.

        MS-SSIM (Wang et al., 2003, over RGB) as ``MS_SSIM_UNIT * (1 - MS-SSIM)``; where a side is shorter than
        ``SMALLEST_SIDE`` squared error has its share too.
        """
        structure = self.ms_ssim if min(target.shape[2:]) >= SMALLEST_SIDE else 0.0
        squared = (decoded - target).square().mean(dim=(1, 2, 3))
        total: Tensor = (1 - structure - self.ssimulacra2) * 255**2 * squared
        if structure:
            from pytorch_msssim import ms_ssim

            similarity: Tensor = ms_ssim(decoded, target, data_range=1.0, size_average=False)
            total = total + structure * MS_SSIM_UNIT * (1 - similarity)
        if self.ssimulacra2:
            from lichen.models.perceptual.ssimulacra2 import error

            total = total + self.ssimulacra2 * SSIMULACRA2_UNIT * error(target, decoded)
        return total

    def to_card(self) -> dict[str, float]:
        """For the codec's JSON."""
        return asdict(self)

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Mix:
        """What a codec's JSON says it aims at; squared error where it says nothing. Raises ``InvalidCodec``."""
        from lichen.models.bundle import number_between  # NumPy, which the command line's help does without

        given = card.get("objective", {})
        if not isinstance(given, dict) or not set(given) <= {field.name for field in fields(cls)}:
            raise InvalidCodec("the codec JSON has an objective that is not known here")
        shares = {name: float(number_between(share, 0, 1, name, whole=False)) for name, share in given.items()}
        try:
            return cls(**shares)
        except UsageError as error:
            raise InvalidCodec(f"the codec JSON has a malformed objective: {error}") from error
