"""What an evaluation measures of a decoded picture, and how each measure is called, printed and compared."""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from PIL import Image

from lichen.errors import JobError
from lichen.models.codec import Pixels
from lichen.pipeline.measures.ms_ssim import ms_ssim
from lichen.pipeline.measures.quality import psnr
from lichen.pipeline.measures.ssimulacra2 import ssimulacra2

Metric: TypeAlias = Literal["psnr", "ms_ssim", "ssimulacra2", "butteraugli"]

BUTTERAUGLI = "butteraugli_main"
"""The program of libjxl (Debian's package ``libjxl-devtools``)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One measure. ``of`` a source and its reconstruction, None where a picture is too small for it.

    Curves are drawn and compared on the ``scale``, on which more is better and equal steps are about equally visible.
    """

    name: str
    axis: str
    pattern: str
    of: Callable[[Pixels, Pixels], float | None]
    scale: Callable[[float], float]


def ms_ssim_db(value: float) -> float:
    """MS-SSIM (0 to 1) as -10 log10(1 - value), which spreads the values near 1."""
    return math.inf if value >= 1 else -10 * math.log10(1 - value)


def butteraugli(reference: Pixels, distorted: Pixels) -> float:
    """The 3-norm of butteraugli's map of differences, by libjxl's own program: 0 for equal pictures, less is better.

    Raises ``JobError`` if the program fails.
    """
    with tempfile.TemporaryDirectory(prefix="lichen-") as folder:
        paths = [Path(folder) / name for name in ("reference.png", "distorted.png")]
        for path, pixels in zip(paths, (reference, distorted), strict=True):
            Image.fromarray(pixels).save(path, compress_level=1)
        done = subprocess.run([BUTTERAUGLI, *map(str, paths)], capture_output=True, text=True, check=False)  # noqa: S603 - our own files
    _, found, rest = done.stdout.partition("3-norm:")
    if done.returncode or not found:
        raise JobError(f"{BUTTERAUGLI} failed: {(done.stderr or done.stdout).strip()[:200]}")
    return float(rest.split()[0])


MEASURES: Mapping[Metric, Measure] = {
    "psnr": Measure(name="PSNR dB", axis="RGB PSNR (dB)", pattern="{:.2f}", of=psnr, scale=lambda value: value),
    "ms_ssim": Measure(name="MS-SSIM", axis="MS-SSIM (dB)", pattern="{:.4f}", of=ms_ssim, scale=ms_ssim_db),
    "ssimulacra2": Measure(
        name="SSIMULACRA 2", axis="SSIMULACRA 2", pattern="{:.1f}", of=ssimulacra2, scale=lambda value: value
    ),
    "butteraugli": Measure(
        name="Butteraugli", axis="- Butteraugli (3-norm)", pattern="{:.3f}", of=butteraugli, scale=lambda value: -value
    ),
}


def available() -> tuple[Metric, ...]:
    """The measures that this machine can take: Butteraugli where its program is installed."""
    return tuple(name for name in MEASURES if name != "butteraugli" or shutil.which(BUTTERAUGLI))
