"""What training calls distortion: squared error, mixed with structural similarity.

Squared error alone spends bits where nobody looks. The mix follows what JPEG AI's verification model is trained with.
"""

from __future__ import annotations

from torch import Tensor

MS_SSIM_UNIT = 1300.0
"""Squared error, in grey levels, that weighs as much as a multi-scale structural similarity of zero."""
SMALLEST_SIDE = 161
"""Pixels a side that five scales of an 11-pixel window need."""


def distortion(decoded: Tensor, target: Tensor, mse: Tensor, perceptual: float) -> Tensor:
    """Distortion ``(B,)`` of pictures ``(B, 3, H, W)`` in [0, 1], in squared grey levels.

    ``(1 - perceptual) * 255**2 * MSE + perceptual * MS_SSIM_UNIT * (1 - MS-SSIM)``, with MS-SSIM (Wang et al., 2003)
    over RGB. ``mse`` is ``(B,)`` over [0, 1]. Sides of at least ``SMALLEST_SIDE`` pixels if ``perceptual`` is not 0.
    """
    squared: Tensor = 255**2 * mse
    if not perceptual:
        return squared
    from pytorch_msssim import ms_ssim

    similarity: Tensor = ms_ssim(decoded, target, data_range=1.0, size_average=False)
    return (1 - perceptual) * squared + perceptual * MS_SSIM_UNIT * (1 - similarity)
