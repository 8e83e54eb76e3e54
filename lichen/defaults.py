"""What is used where nobody chooses, and the limits of choice. Imports nothing, so that the command line can show it
at once."""

from __future__ import annotations

from typing import Final

CODEC: Final = "s2c-conv"
STRONG_CODEC: Final = "s2c-conv-deep"
"""Twice as deep: fewer bytes for more time, in the encoder and in the decoder."""
EXACT_CODEC: Final = "s2c-psnr"
"""The size of the default one, trained for squared error alone and not for what people see."""
AUTO: Final = "auto"
"""Each picture gets whichever of ``CHOICE`` needs the fewest bytes at no lower quality."""
CHOICE: Final = (CODEC, "avif", "jxl", "webp-lossless")
"""What ``auto`` chooses from; the first one's quality is what the others have to reach."""
EFFORT: Final = 3
"""The greatest effort at which the encoder does not search."""
EFFORTS: Final = (1, 9)
"""Least and greatest effort."""
QUALITY: Final = 85.0
"""SSIMULACRA 2 of 80 in the median, above 70 in the worst of photographs: no difference is noticed side by side."""
QUALITIES: Final = (1, 100)
"""Least and greatest quality."""
PSNR_FLOOR: Final = 30.0
"""dB: where artefacts become obvious. Good photographic quality is 38 to 40 dB."""
BLOCK_PSNR_FLOOR: Final = 24.0
"""dB: less in one block of 64x64 pixels means that something there was destroyed rather than smoothed."""
SOURCE_BYTES: Final = 1 << 31
"""Larger sources are not read."""
DEVICE: Final = "auto"
"""CUDA where there is one."""
PRECISION: Final = "auto"
"""Half precision where the processor has it in hardware."""
TOLERANCE: Final = 0.05
"""dB by which a picture may be further from its source than was recorded: bf16 and float32 differ by less."""
WORST: Final = 5
"""Pictures that a report names as the worst."""
GARBAGE_HOURS: Final = 24.0
"""Younger files stay, because a job may be about to need them."""
