"""Planes of a picture: its padded size and tiles, and the layouts of pixels and latents.

Large pictures have one latent plane, cut into tiles on the 64-pixel grid, with halos in the transforms only. A halo as
wide as a network's receptive field makes the result inside of a tile the same as that of the untiled network, so
tiles show no seam and cost no rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lichen.models.codec import Pixels

GRID = 64
"""Sides are padded to multiples of this, by replication."""
TILE_LOG2 = 11
UNTILED_PIXELS = 6 << 20
"""Pictures with more (padded) pixels are tiled."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels, ``top <= row < bottom`` and ``left <= column < right``, multiples of 64."""

    top: int
    bottom: int
    left: int
    right: int

    def at(self, factor: int) -> tuple[slice, slice]:
        """Row and column slices of this window in a plane of 1/``factor`` resolution."""
        rows = slice(self.top // factor, self.bottom // factor)
        return rows, slice(self.left // factor, self.right // factor)

    def grown(self, halo: int, height: int, width: int) -> Window:
        """This window with a halo, clipped to the picture."""
        return Window(
            max(0, self.top - halo),
            min(height, self.bottom + halo),
            max(0, self.left - halo),
            min(width, self.right + halo),
        )

    def inside(self, outer: Window) -> Window:
        """This window in the coordinates of ``outer``."""
        return Window(self.top - outer.top, self.bottom - outer.top, self.left - outer.left, self.right - outer.left)


def tiles(height: int, width: int, side: int) -> Iterator[Window]:
    """Tiles of a picture, row by row; ``side`` 0 means one for all of it."""
    if side == 0:
        yield Window(0, height, 0, width)
        return
    for top in range(0, height, side):
        for left in range(0, width, side):
            yield Window(top, min(top + side, height), left, min(left + side, width))


@dataclass(frozen=True, slots=True)
class Plan:
    """Padded size of a picture, and the side of its tiles as a power of two (0: one tile)."""

    height: int
    width: int
    tile_log2: int

    @classmethod
    def of(cls, height: int, width: int, grid: int = GRID) -> Plan:
        """The plan of a picture of this size, whose codec pads to multiples of ``grid``."""
        padded = round_up(height, grid), round_up(width, grid)
        tiled = padded[0] * padded[1] > UNTILED_PIXELS
        return cls(*padded, TILE_LOG2 if tiled else 0)

    def tiles(self) -> list[Window]:
        return list(tiles(self.height, self.width, 1 << self.tile_log2 if self.tile_log2 else 0))

    def assemble(self, function: Callable[[Window], Tensor], factor: int, halo: int) -> Tensor:
        """A plane ``(N, C, height / factor, width / factor)`` from ``function`` of each tile and its halo (pixels)."""
        plane: Tensor | None = None
        for window in self.tiles():
            outer = window.grown(halo, self.height, self.width)
            part = cut(function(outer), window.inside(outer), factor)
            if window == Window(0, self.height, 0, self.width):
                return part
            if plane is None:
                shape = (*part.shape[:2], self.height // factor, self.width // factor)
                layout = torch.channels_last
                plane = torch.empty(shape, dtype=part.dtype, device=part.device, memory_format=layout)
            rows, columns = window.at(factor)
            plane[:, :, rows, columns] = part
        assert plane is not None  # a picture has at least one tile
        return plane


def round_up(side: int, grid: int = GRID) -> int:
    """A side with its padding."""
    return -(-side // grid) * grid


def padded_part(image: Pixels, window: Window) -> Pixels:
    """``window`` of a ``(H, W, 3)`` picture that goes on beyond its last row and column by replication."""
    rows, columns = window.at(1)
    height, width = image.shape[:2]
    part = image[min(rows.start, height - 1) : rows.stop, min(columns.start, width - 1) : columns.stop]
    below, right = window.bottom - window.top - part.shape[0], window.right - window.left - part.shape[1]
    return np.pad(part, ((0, below), (0, right), (0, 0)), mode="edge") if below or right else part


def to_planes(images: Tensor) -> Tensor:
    """``(N, H, W, 3)`` to ``(N, 3, H, W)`` in channels-last memory."""
    return images.permute(0, 3, 1, 2)


def cut(plane: Tensor, window: Window, factor: int) -> Tensor:
    """A window of a plane ``(N, C, h, w)`` at 1/``factor``."""
    rows, columns = window.at(factor)
    return plane[:, :, rows, columns]


def interleaved(plane: Tensor) -> NDArray[Any]:
    """``(C, h, w)`` on any device to a contiguous ``(h, w, C)`` array."""
    return np.ascontiguousarray(plane.permute(1, 2, 0).cpu().numpy())


def from_interleaved(planes: Tensor) -> Tensor:
    """``(N, h, w, C)`` to ``(N, C, h, w)`` in channels-last memory."""
    return planes.permute(0, 3, 1, 2)
