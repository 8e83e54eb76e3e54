"""What is used where nobody chooses. Imports nothing, so that the command line can show it at once."""

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
"""The first is the measure of the others."""
EFFORT: Final = 3
"""The most that costs no search in the encoder."""
QUALITY: Final = 85.0
"""SSIMULACRA 2 of 80 in the median, above 70 in the worst of photographs: no difference is noticed side by side."""
