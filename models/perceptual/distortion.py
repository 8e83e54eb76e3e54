"""What training calls distortion: squared error, mixed with measures that agree with people's eyes.

Squared error alone spends bits where nobody looks. The mix follows what JPEG AI's verification model is trained with.
"""

from __future__ import annotations

from torch import Tensor

MS_SSIM_UNIT = 1300.0
"""Squared error, in grey levels, that weighs as much as a multi-scale structural similarity of zero."""
SSIMULACRA2_UNIT = 5.0
"""Squared error, in grey levels, that weighs as much as an ``error`` of 1 of SSIMULACRA 2."""
SMALLEST_SIDE = 161
"""Pixels a side that five scales of an 11-pixel window need."""


def distortion(decoded: Tensor, target: Tensor, mse: Tensor, ms_ssim_share: float, ssimulacra2_share: float) -> Tensor:
    """Distortion ``(B,)`` of pictures ``(B, 3, H, W)`` in [0, 1], in squared grey levels.

    The shares say how much of it is ``MS_SSIM_UNIT * (1 - MS-SSIM)`` (Wang et al., 2003, over RGB) and how much is
    SSIMULACRA2's; the rest is ``255**2 * MSE``. ``mse`` is ``(B,)`` over [0, 1]. Sides of at least ``SMALLEST_SIDE``
    pixels where the shares are not 0.
    """
    total: Tensor = (1 - ms_ssim_share - ssimulacra2_share) * 255**2 * mse
    if ms_ssim_share:
        from pytorch_msssim import ms_ssim

        similarity: Tensor = ms_ssim(decoded, target, data_range=1.0, size_average=False)
        total = total + ms_ssim_share * MS_SSIM_UNIT * (1 - similarity)
    if ssimulacra2_share:
        from lichen.models.perceptual.ssimulacra2 import error

        total = total + ssimulacra2_share * SSIMULACRA2_UNIT * error(target, decoded)
    return total
