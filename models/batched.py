"""What all learned codecs share: lists of mixed sizes in batches of one size, the container, and who wrote it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lichen.defaults import EFFORT
from lichen.errors import CodecMismatch, CorruptBitstream, UnsupportedPicture, UsageError
from lichen.models import bitstream
from lichen.models.blocks.network import TrainableNetwork
from lichen.models.codec import (
    MAX_QUALITY,
    STEPS_OF_QUALITY,
    Decoded,
    Encoded,
    Pixels,
    check_effort,
    check_qualities,
    code_quality,
    quality_code,
    symbol_digest,
)
from lichen.models.device import Device
from lichen.models.entropy.tables import SYMBOL_LIMIT
from lichen.models.planes import GRID, Plan, Window, cut, padded_part, round_up, to_planes


class BatchedCodec(ABC):
    """Implements ``lichen.models.codec.Codec`` but for the coding of one batch of pictures of one padded size.

    ``grid``: sides are padded to multiples of it. ``network`` is what it was trained as.
    """

    network: TrainableNetwork
    lossless = False
    quality_step = 1 / STEPS_OF_QUALITY

    def __init__(
        self,
        *,
        name: str,
        digest: str,
        files: Mapping[str, bytes],
        device: Device,
        encoder: bool,
        max_pixels: int,
        grid: int = GRID,
    ) -> None:
        self.name = name
        self.digest = digest
        self.device = device
        self.max_pixels = max_pixels
        self.has_encoder = encoder
        self.grid = grid
        self._files = dict(files)

    @property
    def batch_pixels(self) -> int:
        return self.device.batch_pixels

    @property
    def runs_on(self) -> str:
        return self.device.on.type

    def decoder_files(self) -> Mapping[str, bytes]:
        return self._files

    def encode(
        self, images: Sequence[Pixels], quality: float | Sequence[float], *, effort: int = EFFORT
    ) -> list[Encoded]:
        """Compress ``(H, W, 3)`` uint8 pictures at quality 1 to 100 (rounded to eighths).

        Raises ``UsageError`` without an encoder and for a bad quality, ``UnsupportedPicture`` for a picture that is too
        large.
        """
        check_effort(effort)
        if not self.has_encoder:
            raise UsageError(f"codec {self.name} was loaded from an archive and can only decode")
        qualities = check_qualities(quality, len(images))
        for image in images:
            self._check_size(*image.shape[:2])
        results: dict[int, Encoded] = {}
        for group in self._groups([(image.shape[0], image.shape[1]) for image in images]):
            codes = np.array([quality_code(qualities[i]) for i in group], dtype=np.int64)
            for i, encoded in zip(group, self._encode([images[i] for i in group], codes, effort), strict=True):
                results[i] = encoded
        return [results[i] for i in range(len(images))]

    def decode(self, bitstreams: Sequence[bytes]) -> list[Decoded]:
        """Decode bitstreams of mixed sizes and qualities. Raises ``CorruptBitstream`` or ``CodecMismatch``."""
        parsed = [self._parse(data) for data in bitstreams]
        results: dict[int, Decoded] = {}
        for group in self._groups([(p.height, p.width) for p in parsed]):
            for i, decoded in zip(group, self._decode([parsed[i] for i in group]), strict=True):
                results[i] = decoded
        return [results[i] for i in range(len(bitstreams))]

    @abstractmethod
    def _encode(self, images: Sequence[Pixels], codes: NDArray[np.int64], effort: int) -> list[Encoded]:
        """Code pictures of one padded size, at these quality codes."""

    @abstractmethod
    def _decode(self, parsed: Sequence[bitstream.Bitstream]) -> list[Decoded]:
        """Decode pictures of one padded size."""

    def _parse(self, data: bytes) -> bitstream.Bitstream:
        parsed = bitstream.unpack(data, max_pixels=self.max_pixels)
        if parsed.codec != bytes.fromhex(self.digest)[: bitstream.CODEC_BYTES]:
            raise CodecMismatch(f"written by codec {parsed.codec.hex()}..., this is {self.digest[:8]}...")
        plan = self._plan(parsed.height, parsed.width)
        if parsed.tile_log2 != plan.tile_log2 or code_quality(parsed.quality) > MAX_QUALITY:
            raise CorruptBitstream("the bitstream has another tile size or quality than this codec writes")
        return parsed

    def _check_size(self, height: int, width: int) -> None:
        """What the decoder would refuse is not encoded."""
        padded = round_up(height, self.grid) * round_up(width, self.grid)
        if max(height, width) > bitstream.MAX_SIDE or padded > self.max_pixels:
            raise UnsupportedPicture(
                f"{width}x{height} pixels; {self.name} takes sides up to {bitstream.MAX_SIDE} and, with sides rounded "
                f"up to multiples of {self.grid}, {self.max_pixels} pixels"
            )

    def _groups(self, sizes: Sequence[tuple[int, int]]) -> list[list[int]]:
        """Indexes of pictures that run together: equal size, up to ``batch_pixels`` pixels."""
        groups: dict[tuple[int, int], list[list[int]]] = {}
        for i, (height, width) in enumerate(sizes):
            size = (round_up(height, self.grid), round_up(width, self.grid))
            most = max(1, self.batch_pixels // (size[0] * size[1]))
            batches = groups.setdefault(size, [[]])
            if len(batches[-1]) == most:
                batches.append([])
            batches[-1].append(i)
        return [batch for batches in groups.values() for batch in batches]

    def _plan(self, height: int, width: int) -> Plan:
        return Plan.of(height, width, self.grid)

    def _latent_plane(
        self, images: Sequence[Pixels], plan: Plan, analyse: Callable[[Tensor], Tensor], halo: int
    ) -> Tensor:
        """The latents ``(N, latent, H/16, W/16)`` of pictures in float32; ``analyse`` takes planes in [0, 1]."""

        def part(window: Window) -> Tensor:
            pixels = torch.from_numpy(np.stack([padded_part(image, window) for image in images]))
            with self.device.autocast():
                y = analyse(to_planes(pixels.to(self.device.on)).float() / 255)
            return y.float()

        return plan.assemble(part, 16, halo)

    def _pictures(
        self,
        sizes: Sequence[tuple[int, int]],
        plan: Plan,
        y: Tensor,
        synthesise: Callable[[Tensor], Tensor],
        halo: int,
    ) -> list[Pixels]:
        """Pictures of these sizes from their latents; ``synthesise`` gives planes in [0, 1]."""
        pictures = [np.empty((height, width, 3), dtype=np.uint8) for height, width in sizes]
        for window in plan.tiles():
            outer = window.grown(halo, plan.height, plan.width)
            with self.device.autocast():
                x = synthesise(cut(y, outer, 16)).float()
            x = cut(x, window.inside(outer), 1)
            parts = (x * 255).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
            for picture, part in zip(pictures, parts, strict=True):
                target = picture[window.at(1)]  # ends where the picture does, before the padding
                target[:] = part[: target.shape[0], : target.shape[1]]
        return pictures

    def _packed(
        self,
        image: Pixels,
        plan: Plan,
        code: int,
        sections: Sequence[bitstream.Section],
        symbols: Sequence[NDArray[np.int16]],
    ) -> Encoded:
        """The bitstream of a picture from its sections and the symbols in them, tile by tile."""
        data = bitstream.pack(
            bitstream.Bitstream(
                codec=bytes.fromhex(self.digest)[: bitstream.CODEC_BYTES],
                width=image.shape[1],
                height=image.shape[0],
                quality=code,
                tile_log2=plan.tile_log2,
                sections=tuple(sections),
            )
        )
        return Encoded(bitstream=data, symbols=symbol_digest(*symbols))


def narrow(symbols: NDArray[np.int32]) -> NDArray[np.int16]:
    """Decoded symbols as they are kept. Raises ``CorruptBitstream`` for one that no encoder writes."""
    if symbols.size and max(-int(symbols.min()), int(symbols.max())) > SYMBOL_LIMIT:
        raise CorruptBitstream("a symbol is larger than any encoder writes")
    return symbols.astype(np.int16)
