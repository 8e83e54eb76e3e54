"""What the samples of a PNG mean, as an ICC profile: for all who cannot carry the chunks that say so.

PNG states colours in four ways; the first of these that is there counts (PNG, third edition, 4.3): cICP (code points
of ITU-T H.273), iCCP (a profile), sRGB, and cHRM with gAMA (chromaticities, and a power). The profiles made here are
of the simple kind (ICC.1:2010: three primaries adapted to D50 by Bradford's transform, and one parametric curve), and
depend on nothing but the chunks.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lichen.pipeline.side import Block

Matrix = NDArray[np.float64]
Chromaticity = tuple[float, float]

_D65, _C, _E, _DCI = (0.3127, 0.3290), (0.310, 0.316), (1 / 3, 1 / 3), (0.314, 0.351)
_BT709 = (_D65, (0.640, 0.330), (0.300, 0.600), (0.150, 0.060))
_PRIMARIES: dict[int, tuple[Chromaticity, ...]] = {
    1: _BT709,
    4: (_C, (0.67, 0.33), (0.21, 0.71), (0.14, 0.08)),
    5: (_D65, (0.64, 0.33), (0.29, 0.60), (0.15, 0.06)),
    6: (_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    7: (_D65, (0.630, 0.340), (0.310, 0.595), (0.155, 0.070)),
    8: (_C, (0.681, 0.319), (0.243, 0.692), (0.145, 0.049)),
    9: (_D65, (0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    10: (_E, (1.0, 0.0), (0.0, 1.0), (0.0, 0.0)),
    11: (_DCI, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    12: (_D65, (0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
    22: (_D65, (0.630, 0.340), (0.295, 0.605), (0.155, 0.077)),
}
"""White, red, green and blue of H.273's colour primaries."""

Curve = tuple[float, ...]
"""Parameters of ICC's parametric curves: one is a power, five are a power with a linear part near black."""

_SRGB_CURVE: Curve = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_BT709_CURVE: Curve = (1 / 0.45, 1 / 1.099, 0.099 / 1.099, 1 / 4.5, 0.081)
_CURVES: dict[int, Curve] = {
    **dict.fromkeys((1, 6, 11, 12, 14, 15), _BT709_CURVE),
    4: (2.2,),
    5: (2.8,),
    7: (1 / 0.45, 1 / 1.1115, 0.1115 / 1.1115, 1 / 4, 0.0913),
    8: (1.0,),
    13: _SRGB_CURVE,
}
"""Those of H.273's transfer characteristics that 8-bit pictures for ordinary displays use."""

_UNSPECIFIED = 2
_SRGB_GAMMA, _GAMMA_NEAR, _CHROMATICITY_NEAR = 45455, 500, 0.0011
_D50 = np.array([0.9642, 1.0, 0.8249])
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


@dataclass(frozen=True, slots=True)
class _Colours:
    primaries: tuple[Chromaticity, ...]
    curve: Curve

    @property
    def are_srgb(self) -> bool:
        distance = np.abs(np.subtract(self.primaries, _BT709)).max()
        return self.curve == _SRGB_CURVE and bool(distance < _CHROMATICITY_NEAR)


def has_profile(primaries: int, transfer: int) -> bool:
    """Whether H.273's code points can be said by an ICC profile, or say nothing."""
    return primaries in {*_PRIMARIES, _UNSPECIFIED} and transfer in {*_CURVES, _UNSPECIFIED}


def meant_profile(icc: bytes | None, blocks: Sequence[Block], *, grey: bool) -> bytes | None:
    """The profile of a picture, where need be made from PNG chunks among its ``blocks``; None for sRGB."""
    chunks = {name: content for name, content in blocks if name.startswith("png:")}
    if (colours := _code_points(chunks.get("png:cICP", b""))) is None:
        if icc is not None or "png:sRGB" in chunks:
            return icc
        colours = _calibration(chunks.get("png:gAMA", b""), chunks.get("png:cHRM", b""))
    return None if colours is None or colours.are_srgb else _profile(colours, grey)


def _code_points(content: bytes) -> _Colours | None:
    if len(content) != 4 or content[0] not in _PRIMARIES or content[1] not in _CURVES:
        return None
    return _Colours(_PRIMARIES[content[0]], _CURVES[content[1]])


def _calibration(gamma: bytes, chromaticities: bytes) -> _Colours | None:
    primaries: tuple[Chromaticity, ...] = _BT709
    curve = _SRGB_CURVE
    if len(chromaticities) == 32:
        numbers = [number / 100_000 for number in struct.unpack(">8I", chromaticities)]
        stated = tuple(zip(numbers[::2], numbers[1::2], strict=True))
        if _is_possible(stated):
            primaries = stated
    power = int.from_bytes(gamma, "big")
    if len(gamma) == 4 and power and abs(power - _SRGB_GAMMA) > _GAMMA_NEAR:
        curve = (min(max(100_000 / power, 0.01), 100.0),)
    return _Colours(primaries, curve)


def _is_possible(primaries: tuple[Chromaticity, ...]) -> bool:
    """Whether white is a mixture of three different colours."""
    if any(y <= 0 or x + y > 1.00001 for x, y in primaries[:1]) or any(x > 1 or y > 1 for x, y in primaries):
        return False
    columns = _columns(primaries[1:])
    if abs(np.linalg.det(columns)) < 1e-6:
        return False
    return bool((np.linalg.solve(columns, _columns(primaries[:1])[:, 0]) > 0).all())


def _columns(chromaticities: Sequence[Chromaticity]) -> Matrix:
    return np.array([(x, y, 1 - x - y) for x, y in chromaticities]).T


def _profile(colours: _Colours, grey: bool) -> bytes:
    """ICC version 4.3. See ICC.1:2010, 7.2 (header), 8.3 (matrix and curves), 8.4 (grey) and 10 (tag types)."""
    (white_x, white_y), *primaries = colours.primaries
    white = np.array([white_x / white_y, 1.0, (1 - white_x - white_y) / white_y])
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    adaptation = np.linalg.inv(_BRADFORD) @ np.diag(cones) @ _BRADFORD
    tags = {b"desc": _text("PNG colours"), b"cprt": _text("CC0"), b"wtpt": _xyz(_D50), b"chad": _fixed(adaptation)}
    if grey:
        tags[b"kTRC"] = _curve(colours.curve)
    else:
        columns = _columns(primaries)
        matrix = adaptation @ (columns * np.linalg.solve(columns, white))
        for name, column in zip("rgb", matrix.T, strict=True):
            tags[f"{name}XYZ".encode()] = _xyz(column)
            tags[f"{name}TRC".encode()] = _curve(colours.curve)
    table, body = struct.pack(">I", len(tags)), b""
    offset = 128 + 4 + 12 * len(tags)
    for tag, content in tags.items():
        table += struct.pack(">4sII", tag, offset + len(body), len(content))
        body += content + bytes(-len(content) % 4)
    space = b"GRAY" if grey else b"RGB "
    header = struct.pack(">I4xI4s4s4s6H4s", offset + len(body), 0x04300000, b"mntr", space, b"XYZ ", *_DATE, b"acsp")
    header += bytes(28) + _xyz(_D50)[8:]
    return header + bytes(128 - len(header)) + table + body


_DATE = (2000, 1, 1, 0, 0, 0)
"""Equal chunks make equal profiles."""


def _text(text: str) -> bytes:
    encoded = text.encode("utf-16-be")
    return struct.pack(">4s4xII2s2sII", b"mluc", 1, 12, b"en", b"US", len(encoded), 28) + encoded


def _s15_16(values: Matrix | Sequence[float]) -> bytes:
    numbers = np.clip(np.rint(np.asarray(values).ravel() * 65536), -(1 << 31), (1 << 31) - 1)
    return bytes(numbers.astype(">i4").tobytes())


def _xyz(values: Matrix) -> bytes:
    return b"XYZ \0\0\0\0" + _s15_16(values)


def _fixed(matrix: Matrix) -> bytes:
    return b"sf32\0\0\0\0" + _s15_16(matrix)


def _curve(curve: Curve) -> bytes:
    return struct.pack(">4s4xHxx", b"para", {1: 0, 5: 3}[len(curve)]) + _s15_16(curve)
