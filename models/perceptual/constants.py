"""The numbers of SSIMULACRA 2.1 (Sneyers, 2023), and what is computed from them without a picture.

They are those of the package ``ssimulacra2`` 0.3.0 (BSD-3-Clause), which has them from the reference implementation of
Cloudinary; the weights were fitted there to what people said of 22 thousand pairs of pictures.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SCALES = 6
SMALLEST_SIDE = 8
"""Pixels a side that a scale needs; smaller pictures have no score."""
SIGMA, RADIUS = 1.5, 5
"""Standard deviation and reach of the Gaussian neighbourhoods, in pixels."""
C2 = 0.0009
"""Steadies the structural similarity where both pictures are flat."""
BIAS = 0.0037930732552754493
"""Added to the light of the three cones before their cube roots."""
OPSIN = (
    (0.30, 1.0 - 0.078 - 0.30, 0.078),
    (0.23, 1.0 - 0.078 - 0.23, 0.078),
    (0.24342268924547819, 0.20476744424496821, 1.0 - 0.24342268924547819 - 0.20476744424496821),
)
"""Linear red, green and blue to long, medium and short cones, as in JPEG XL's XYB."""
_WEIGHTS = (
    0.0, 0.0007376606707406586, 0.0, 0.0, 0.0007793481682867309, 0.0, 0.0, 0.0004371155730107379, 0.0,
    1.1041726426657346, 0.00066284834129271, 0.00015231632783718752, 0.0, 0.0016406437456599754, 0.0,
    1.8422455520539298, 11.441172603757666, 0.0, 0.0007989109436015163, 0.000176816438078653, 0.0, 1.8787594979546387,
    10.94906990605142, 0.0, 0.0007289346991508072, 0.9677937080626833, 0.0, 0.00014003424285435884,
    0.9981766977854967, 0.00031949755934435053, 0.0004550992113792063, 0.0, 0.0, 0.0013648766163243398, 0.0, 0.0, 0.0,
    0.0, 0.0, 7.466890328078848, 0.0, 17.445833984131262, 0.0006235601634041466, 0.0, 0.0, 6.683678146179332,
    0.00037724407979611296, 1.027889937768264, 225.20515300849274, 0.0, 0.0, 19.213238186143016,
    0.0011401524586618361, 0.001237755635509985, 176.39317598450694, 0.0, 0.0, 24.43300999870476, 0.28520802612117757,
    0.0004485436923833408, 0.0, 0.0, 0.0, 34.77906344483772, 44.835625328877896, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0,
    0.0, 0.0008680556573291698, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0005313191874358747, 0.0, 0.00016533814161379112, 0.0, 0.0,
    0.0, 0.0, 0.0, 0.0004179171803251336, 0.0017290828234722833, 0.0, 0.0020827005846636437, 0.0, 0.0,
    8.826982764996862, 23.19243343998926, 0.0, 95.1080498811086, 0.9863978034400682, 0.9834382792465353,
    0.0012286405048278493, 171.2667255897307, 0.9807858872435379, 0.0, 0.0, 0.0, 0.0005130064588990679, 0.0,
    0.00010854057858411537,
)  # fmt: skip
"""By channel (X, Y, B), scale, norm (mean, fourth power), and map (similarity, edges that came, edges that went)."""
STRETCH = 0.9562382616834844
POLYNOMIAL = (2.326765642916932, -0.020884521182843837, 6.248496625763138e-05)
POWER = 0.6276336467831387


def score(error: float) -> float:
    """The score of a weighted sum of differences: 0 gives 100, 1 gives 84, 3 gives 69 and 9 gives 38."""
    a, b, c = POLYNOMIAL
    x = error * STRETCH
    return 100 - 10 * float(max(a * x + b * x**2 + c * x**3, 0.0) ** POWER)


def levels(side: int) -> int:
    """Scales of a picture whose shorter side has so many pixels: halved while it holds ``SMALLEST_SIDE``."""
    count = 0
    while count < SCALES and side >= SMALLEST_SIDE:
        count, side = count + 1, -(-side // 2)
    return count


def weights(scale: int, count: int) -> NDArray[np.float64]:
    """``(3 maps, 2 norms, 3 channels)`` of one of ``count`` scales; fewer scales take the first of the weights."""
    given = np.array(_WEIGHTS[: 3 * count * 6]).reshape(3, count, 2, 3)
    return np.ascontiguousarray(given[:, scale].transpose(2, 1, 0))
