"""An architecture from outside of lichen: a block transform, deflated. All that a codec needs, in one file."""

from __future__ import annotations

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lichen.errors import CorruptBitstream, InvalidCodec
from lichen.models.codec import Decoded, Encoded, Pixels, symbol_digest

SIDE = 8
MAX_PIXELS = 1 << 28
PLACE = np.arange(SIDE)
BASIS = np.cos(np.pi * (PLACE[None] + 0.5) * PLACE[:, None] / SIDE) * np.sqrt(2 / SIDE)
BASIS[0] /= np.sqrt(2)
CONFIG = {"family": "example", "format": 1, "name": "example"}


class ExampleCodec:
    """Implements ``lichen.models.codec.Codec``. The quality sets one quantisation step for all frequencies."""

    name = "example"

    def __init__(self) -> None:
        self._json = json.dumps(CONFIG, sort_keys=True).encode()
        self.digest = hashlib.sha256(self._json).hexdigest()

    def decoder_files(self) -> Mapping[str, bytes]:
        return {"json": self._json}

    def encode(self, images: Sequence[Pixels], quality: float | Sequence[float], *, effort: int = 3) -> list[Encoded]:
        qualities = [quality] * len(images) if isinstance(quality, (int, float)) else quality
        return [self._encode(image, float(q)) for image, q in zip(images, qualities, strict=True)]

    def _encode(self, image: Pixels, quality: float) -> Encoded:
        height, width = image.shape[:2]
        step = max(1, round(64 * 0.96**quality))
        padded = np.pad(image, ((0, -height % SIDE), (0, -width % SIDE), (0, 0)), mode="edge").astype(np.float64)
        blocks = padded.reshape(padded.shape[0] // SIDE, SIDE, -1, SIDE, 3) - 128
        coefficients = np.einsum("ui,vj,ricjk->uvkrc", BASIS, BASIS, blocks, optimize=True)
        symbols = np.rint(coefficients / step).astype("<i2")
        body = struct.pack("<HHH", height, width, step) + zlib.compress(symbols.tobytes(), 9)
        return Encoded(bitstream=struct.pack("<I", zlib.crc32(body)) + body, symbols=symbol_digest(symbols))

    def decode(self, bitstreams: Sequence[bytes]) -> list[Decoded]:
        return [self._decode(data) for data in bitstreams]

    def _decode(self, data: bytes) -> Decoded:
        if len(data) < 10 or struct.unpack_from("<I", data)[0] != zlib.crc32(data[4:]):
            raise CorruptBitstream("the checksum does not match")
        height, width, step = struct.unpack_from("<HHH", data, 4)
        shape = (SIDE, SIDE, 3, -(-height // SIDE), -(-width // SIDE))
        size = 2 * int(np.prod(shape, dtype=np.int64))
        raw = zlib.decompressobj().decompress(data[10:], min(size, 6 * MAX_PIXELS) + 1)
        if len(raw) != size:
            raise CorruptBitstream("the picture has another size than its header says")
        symbols: NDArray[np.int16] = np.frombuffer(raw, dtype="<i2").reshape(shape)
        blocks = np.einsum("ui,vj,uvkrc->ricjk", BASIS, BASIS, symbols * float(step), optimize=True)
        pixels = np.rint(blocks.reshape(shape[3] * SIDE, shape[4] * SIDE, 3) + 128).clip(0, 255).astype(np.uint8)
        return Decoded(pixels=np.ascontiguousarray(pixels[:height, :width]), symbols=symbol_digest(symbols))


def load(**_placement: str) -> ExampleCodec:
    """Entry point of the group ``lichen.codecs``."""
    return ExampleCodec()


def from_files(config: Mapping[str, Any], _files: Mapping[str, bytes], **_placement: str) -> ExampleCodec:
    """Entry point of the group ``lichen.families``: what an archive carries, as a codec again."""
    if config != CONFIG:
        raise InvalidCodec("an example codec of another version")
    return ExampleCodec()
