"""Training photographs: decoded once into a memory-mapped cache, then cropped at random.

The cache is one flat uint8 file with every picture's ``(height, width, 3)`` pixels back to back and a JSON list
of offsets and sizes beside it. It is named by a digest of its sources, so that it is rebuilt when they change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lichen.errors import (
    LichenError,
    NotAPicture,
    NoTrainingPictures,
    SourceUnreadable,
    TrainingError,
    UnsupportedPicture,
    UsageError,
)
from lichen.pipeline.gather import gather
from lichen.pipeline.secrets import without_secrets
from lichen.pipeline.sources import Source, list_sources

MIDDLE_SIDE = 512
"""Pixels a side of what validation looks at: small crops are mostly border to a hyper-latent at 1/64."""


@dataclass(frozen=True, slots=True)
class PictureCache:
    """Decoded pictures in one memory-mapped file."""

    pixels: NDArray[np.uint8]
    offsets: tuple[int, ...]
    sizes: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.offsets)

    def picture(self, index: int) -> NDArray[np.uint8]:
        """Picture ``index`` as an ``(H, W, 3)`` uint8 view."""
        height, width = self.sizes[index]
        start = self.offsets[index]
        return self.pixels[start : start + height * width * 3].reshape(height, width, 3)


def open_cache(
    sources: Sequence[str | Path],
    folder: Path,
    *,
    smallest: int = 256,
    options: Mapping[str, Any] | None = None,
) -> PictureCache:
    """Open the cache of ``sources``, building it in ``folder`` when missing.

    Sources are what a job takes (folders, prefixes, tar files, manifests, pictures; any fsspec URL, with its
    ``options``), and pictures are opened as a job opens them. Left out are files that are no pictures, pictures that
    a job would not give a codec (more than 8 bits, palettes, several pages ...), and those with a side under
    ``smallest`` pixels. Raises ``NoTrainingPictures`` for sources that do not exist or are empty, ``TrainingError``
    for what cannot be read or does not decode, and where nothing is left.
    """
    names = [str(source) for source in sources]
    try:
        listed = list(list_sources(names, storage_options=options))
    except UsageError as error:
        raise NoTrainingPictures(f"there are no training pictures: {error}") from error
    except SourceUnreadable as error:
        raise TrainingError(f"cannot train on these sources: {error}") from error
    identity = json.dumps([smallest, *([without_secrets(s.uri), s.offset, s.size, s.mtime, s.etag] for s in listed)])
    stem = folder / hashlib.sha256(identity.encode()).hexdigest()[:16]
    listing, data = stem.with_suffix(".json"), stem.with_suffix(".u8")
    if not listing.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _build(listed, data, listing, smallest, options)
    index = json.loads(listing.read_text())
    if not index["sizes"]:
        raise TrainingError(f"none of the training pictures has both sides of at least {smallest} pixels")
    return PictureCache(
        pixels=np.memmap(data, dtype=np.uint8, mode="r"),
        offsets=tuple(index["offsets"]),
        sizes=tuple((h, w) for h, w in index["sizes"]),
    )


def _build(
    sources: Sequence[Source], data: Path, listing: Path, smallest: int, options: Mapping[str, Any] | None
) -> None:
    offsets: list[int] = []
    sizes: list[tuple[int, int]] = []
    position = 0
    temporary = data.with_suffix(".partial")
    with temporary.open("wb") as out:
        for source, picture in gather(sources, options=options):
            if isinstance(picture, NotAPicture | UnsupportedPicture):
                continue
            if isinstance(picture, LichenError):
                raise TrainingError(f"cannot train on {source.key}: {picture}. Take it away, or repair it")
            pixels = picture.pixels
            if min(pixels.shape[:2]) < smallest:
                continue
            out.write(np.ascontiguousarray(pixels).data)
            offsets.append(position)
            sizes.append((pixels.shape[0], pixels.shape[1]))
            position += pixels.size
    temporary.replace(data)
    listing.write_text(json.dumps({"offsets": offsets, "sizes": sizes}))


class CropSampler:
    """Random crops with flips and transpositions; every pixel of every picture that is as large as the crop is about
    equally likely."""

    def __init__(self, cache: PictureCache, indexes: Sequence[int], seed: int) -> None:
        self.cache = cache
        self.indexes = tuple(indexes)
        self.sizes = np.array([cache.sizes[i] for i in self.indexes], dtype=np.int64).reshape(-1, 2)
        self.random = np.random.default_rng(seed)

    def batch(self, count: int, side: int) -> NDArray[np.uint8]:
        """``(count, 3, side, side)`` uint8. Raises ``TrainingError`` if no picture is large enough."""
        out = np.empty((count, side, side, 3), dtype=np.uint8)
        area = np.where(self.sizes.min(axis=1) >= side, self.sizes.prod(axis=1), 0).astype(np.float64)
        if not area.any():
            raise TrainingError(f"no training picture has both sides of at least {side} pixels; choose smaller crops")
        for row, choice in enumerate(self.random.choice(len(self.indexes), count, p=area / area.sum())):
            picture = self.cache.picture(self.indexes[choice])
            top = int(self.random.integers(picture.shape[0] - side + 1))
            left = int(self.random.integers(picture.shape[1] - side + 1))
            crop = picture[top : top + side, left : left + side]
            flips = int(self.random.integers(8))
            crop = crop.swapaxes(0, 1) if flips & 4 else crop
            out[row] = crop[:: -1 if flips & 1 else 1, :: -1 if flips & 2 else 1]
        return out.transpose(0, 3, 1, 2)


def middles(cache: PictureCache, indexes: Sequence[int], grid: int) -> list[Tensor]:
    """The middle of each picture, ``(1, 3, H, W)`` uint8 with sides of up to ``MIDDLE_SIDE`` that are multiples of
    ``grid``."""
    parts = []
    for index in indexes:
        picture = cache.picture(index)
        height, width = (min(MIDDLE_SIDE, side) // grid * grid for side in picture.shape[:2])
        top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
        part = picture[top : top + height, left : left + width]
        parts.append(torch.from_numpy(part.transpose(2, 0, 1)[None].copy()))
    return parts


def write_held_out(cache: PictureCache, validation: int, folder: Path, *, side: int = 768) -> list[Path]:
    """The middles of the validation pictures, of up to ``side`` pixels a side, as PNG files to evaluate codecs on."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in split(cache, validation)[1]:
        picture = cache.picture(index)
        top, left = (max(0, (length - side) // 2) for length in picture.shape[:2])
        path = folder / f"{index:06d}.png"
        Image.fromarray(picture[top : top + side, left : left + side]).save(path)
        paths.append(path)
    return paths


def split(cache: PictureCache, validation: int) -> tuple[list[int], list[int]]:
    """Training and validation indexes; ``validation`` pictures spread evenly over the cache are held out."""
    if validation >= len(cache):
        raise TrainingError(f"{validation} validation pictures asked for, but there are only {len(cache)} in all")
    held = set(np.linspace(0, len(cache) - 1, validation).round().astype(int).tolist()) if validation else set()
    return [i for i in range(len(cache)) if i not in held], sorted(held)
