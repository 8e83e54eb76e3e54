"""What portability costs the published codecs: their entropy model in float64 and in float32, on the same picture.

With float32 the same code runs, as their authors run it: its bitstreams decode on the same machine, most of the time.
Integers that are listed because another device might round them otherwise are counted in bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from lichen.errors import UsageError
from lichen.models.bitstream import unpack
from lichen.models.codec import Pixels
from lichen.models.device import find_device
from lichen.models.registry import build, config_of, export, full_files, load_files
from lichen.models.snapped.codec import SnappedCodec
from lichen.models.snapped.snapping import Player


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One codec. Speeds in MP/s, the best of the repeats; ``*_cost`` is the time that float64 adds, relative.

    ``listed``: bytes of the lists of doubtful integers, relative to all.
    """

    name: str
    trained: bool
    encode: float
    decode: float
    encode_cost: float
    decode_cost: float
    listed: float


def run(
    names: Sequence[str],
    picture: Pixels,
    *,
    quality: float = 50.0,
    device: str = "auto",
    repeats: int = 3,
    progress: Callable[[int], None] | None = None,
) -> list[Cost]:
    """Measure codecs: paths of codec JSONs, or names of architectures, which are then untrained.

    Raises ``UsageError`` for a codec of another scheme, which pays nothing of this.
    """
    costs = []
    for name in names:
        trained = name.endswith(".json")
        torch.manual_seed(0)
        files = full_files(name) if trained else export(build(config_of(name)).eval(), name.replace("/", "-"), {})
        placement = find_device(device, "float32")
        portable = load_files(files, placement)
        if not isinstance(portable, SnappedCodec):
            raise UsageError(f"{name} is portable by integer arithmetic and pays nothing")
        plain = load_files(files, placement)
        assert isinstance(plain, SnappedCodec)
        make_unportable(plain)
        encode, decode = _speeds(portable, picture, quality, repeats)
        plain_encode, plain_decode = _speeds(plain, picture, quality, repeats)
        costs.append(
            Cost(
                name=portable.name,
                trained=trained,
                encode=encode,
                decode=decode,
                encode_cost=plain_encode / encode - 1,
                decode_cost=plain_decode / decode - 1,
                listed=_listed(portable, picture, quality),
            )
        )
        if progress is not None:
            progress(1)
    return costs


def make_unportable(codec: SnappedCodec) -> None:
    """Let a codec run as its authors ran it, with the entropy model in float32.

    What it encodes from now on decodes on the same machine only, and not always there.
    """
    for module in codec.network.entropy_modules():
        module.float()


def _speeds(codec: SnappedCodec, picture: Pixels, quality: float, repeats: int) -> tuple[float, float]:
    megapixels = picture.shape[0] * picture.shape[1] / 1e6
    data = codec.encode([picture], quality)[0].bitstream
    codec.decode([data])
    best = [0.0, 0.0]
    for _ in range(repeats):
        start = time.perf_counter()
        data = codec.encode([picture], quality)[0].bitstream
        middle = time.perf_counter()
        codec.decode([data])
        end = time.perf_counter()
        best = [max(best[0], megapixels / (middle - start)), max(best[1], megapixels / (end - middle))]
    return best[0], best[1]


def _listed(codec: SnappedCodec, picture: Pixels, quality: float) -> float:
    data = codec.encode([picture], quality)[0].bitstream
    sections = unpack(data).sections
    return sum(Player([section.y]).ends[0] for section in sections) / len(data)
