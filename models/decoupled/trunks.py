"""The published systems' blocks by name, as the trunk of the networks at 1/8 (``transforms.PixelNetwork``).

A name may be followed by switches: ``s2c-conv:gated-conv``, ``hscatb:no-low,no-channel``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from lichen.errors import UsageError
from lichen.models.blocks import hscatb, s2cformer
from lichen.models.blocks.cwam import CrossWindowModule
from lichen.models.blocks.s2cformer import S2CBlock
from lichen.models.blocks.tcm import ConvTransBlock

Builder = Callable[[int, int, int, frozenset[str]], list[nn.Module]]
"""Called with width, depth, expansion and switches."""

CELL = 8
"""Pixels of a position of the trunk."""
WINDOW = 8
HALO_CONV, HALO_WINDOWS = 128, 256
"""Pixels around a tile that a trunk of convolutions can see, and that one of windows is given."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trunk:
    """One system's blocks, with the size that gives about as many multiplications as the others'."""

    build: Builder
    width: int
    depth: int
    expansion: int = 2
    switches: tuple[str, ...] = ()
    halo: int = HALO_WINDOWS
    """Pixels around a tile that g_a and g_s are given, at least."""
    reach: int = 0
    """Pixels by which a convolutional block sees further than the one before."""

    def halo_of(self, depth: int, switches: frozenset[str]) -> int:
        """Pixels around a tile for this many blocks: as far as convolutions see, in steps of 64, at least ``halo``."""
        sees = depth * (self.reach + CELL * ("gated-conv" in switches))
        return max(self.halo, -(-sees // 64) * 64)


def _s2c(variant: str) -> Builder:
    def build(width: int, depth: int, expansion: int, switches: frozenset[str]) -> list[nn.Module]:
        kind = next(iter(switches), "gated-conv" if variant == "attention" else "gated")
        return [S2CBlock(width, expansion, spatial, kind) for spatial in s2cformer.operators(variant, depth)]

    return build


def _tcm(width: int, depth: int, _expansion: int, _switches: frozenset[str]) -> list[nn.Module]:
    half = width // 2
    channels = 32 if half % 32 == 0 else half
    return [ConvTransBlock(half, channels, WINDOW, shifted=n % 2 == 1) for n in range(depth)]


def _cwam(width: int, depth: int, _expansion: int, _switches: frozenset[str]) -> list[nn.Module]:
    return [CrossWindowModule(width, 8 if width % 8 == 0 else 1, WINDOW) for _ in range(depth)]


def _hscatb(width: int, depth: int, expansion: int, switches: frozenset[str]) -> list[nn.Module]:
    return [hscatb.HybridBlock(width, expansion, switches) for _ in range(depth)]


TRUNKS: dict[str, Trunk] = {
    "s2c-identity": Trunk(build=_s2c("identity"), width=144, depth=5, switches=s2cformer.FEED_FORWARD, halo=HALO_CONV),
    "s2c-conv": Trunk(
        build=_s2c("conv"), width=144, depth=4, switches=s2cformer.FEED_FORWARD, halo=HALO_CONV, reach=2 * CELL
    ),
    "s2c-attention": Trunk(build=_s2c("attention"), width=144, depth=3, switches=s2cformer.FEED_FORWARD),
    "s2c-hybrid": Trunk(build=_s2c("hybrid"), width=144, depth=4, switches=s2cformer.FEED_FORWARD),
    "tcm": Trunk(build=_tcm, width=128, depth=4),
    "cwam": Trunk(build=_cwam, width=144, depth=1),
    "hscatb": Trunk(build=_hscatb, width=144, depth=2, switches=hscatb.SWITCHES),
}


def parse(blocks: str) -> tuple[Trunk, frozenset[str]]:
    """The trunk of a name with its switches. Raises ``UsageError`` for what is not known."""
    name, _, rest = blocks.partition(":")
    trunk = TRUNKS.get(name)
    if trunk is None:
        raise UsageError(f"no architecture {name[:40]!r}; there are {', '.join(TRUNKS)}")
    switches = frozenset(rest.split(",")) if rest else frozenset()
    if unknown := switches - set(trunk.switches):
        raise UsageError(f"{name} has no switch {min(unknown)[:40]!r}; it has {', '.join(trunk.switches) or 'none'}")
    return trunk, switches


def trunk(blocks: str, width: int, depth: int, expansion: int) -> nn.Sequential:
    """The blocks of a name with its switches, in a sequence."""
    system, switches = parse(blocks)
    return nn.Sequential(*system.build(width, depth, expansion, switches))
