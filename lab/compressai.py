"""Against CompressAI's ``mbt2018-mean`` on the same pictures, in one run: where the speed comes from.

Three contestants: its own ``compress`` and ``decompress``; the same network with lichen's entropy coder; a codec of
lichen's. Each runs on all cores with one batch at a time, as CompressAI is used, and in lanes, as lichen's workers
run: one thread each, one lane for each core. Everything goes from 8-bit pixels to bytes and back, no files and no
measures. What lichen decodes must be the symbols that were encoded, in every pass.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

import torch

from lab.mean_scale import SIZE, MeanScaleCodec, mean_scale_network, to_pixels, to_tensor, trained_network
from lichen import defaults
from lichen.errors import UsageError, VerificationFailed
from lichen.jobs.evaluate import load_pictures
from lichen.models import bitstream
from lichen.models.codec import Decoded, Encoded, Pixels
from lichen.models.decoupled.codec import DecoupledCodec
from lichen.models.planes import GRID
from lichen.models.registry import load_codec
from lichen.pipeline.lanes import Lanes

BATCHES: Final = (1, 4)
"""Pictures of one padded size that run together; the fastest count of each direction is reported."""

Group = Sequence[Pixels]


@dataclass(frozen=True, kw_only=True, slots=True)
class Speed:
    """Megapixels a second of one contestant run in one way, each direction at its best batch size.

    ``*_ratio``: relative to CompressAI's own calls, one batch at a time. ``bpp``: bits of the entropy-coded
    streams a source pixel.
    """

    name: str
    lanes: int
    threads: int
    encode: float
    encode_batch: int
    encode_ratio: float
    decode: float
    decode_batch: int
    decode_ratio: float
    bpp: float


@dataclass(frozen=True, kw_only=True, slots=True)
class CompressAIBench:
    """What one run measured; the best of ``repeats`` each, the contestants taking turns.

    ``rate_excess``: bytes that lichen's coder needs for the same symbols, relative to CompressAI's, minus 1.
    The network runs in float32, the codec in ``precision``.
    """

    pictures: int
    megapixels: float
    cores: int
    device: str
    precision: str
    network: str
    codec: str
    quality: float
    repeats: int
    rate_excess: float
    speeds: tuple[Speed, ...]

    def to_json(self) -> str:
        """Everything, as one JSON object."""
        return json.dumps(asdict(self), indent=1)


def run(
    source: str | Path,
    *,
    codec: str = defaults.CODEC,
    quality: float = 40.0,
    device: str = "auto",
    precision: str = "auto",
    repeats: int = 3,
    weights: str | None = None,
) -> CompressAIBench:
    """Measure on the pictures at ``source``; codec, quality and precision are those of lichen's codec.

    ``weights`` is the codec JSON of a ``compressai/mbt2018-mean`` that lichen trained.

    Raises ``UsageError`` if CompressAI cannot be imported, ``VerificationFailed`` if a picture comes back with other
    symbols than were encoded.
    """
    images = list(load_pictures(source).values())
    shipped = load_codec(codec, device=device, precision=precision)
    if not isinstance(shipped, DecoupledCodec):
        raise UsageError(f"{codec} has no networks to compare with; name a learned codec")
    placement = shipped.device
    if weights is None:
        network = mean_scale_network(SIZE, _groups(images, max(BATCHES))[0]).to(placement.on)
    else:
        network = trained_network(weights).to(placement.on)
    same = MeanScaleCodec(network)
    contestants = (
        Theirs("CompressAI", network),
        Ours("same network, lichen's coder", same.encode, same.decode),
        Ours(codec, partial(shipped.encode, quality=quality), shipped.decode),
    )
    alone, usual = Lanes([shipped], count=1), Lanes([shipped])
    ways = [alone, usual] if usual.count > 1 else [alone]
    speeds, rate_excess = _measure(contestants, images, ways, repeats)
    return CompressAIBench(
        pictures=len(images),
        megapixels=_megapixels(images),
        cores=len(os.sched_getaffinity(0)),
        device=str(placement.on),
        precision=placement.precision,
        network=f"mbt2018-mean, N={network.N}, M={network.M}, "
        + ("untrained, rescaled to realistic rates" if weights is None else f"trained ({Path(weights).name})"),
        codec=codec,
        quality=quality,
        repeats=repeats,
        rate_excess=rate_excess,
        speeds=tuple(speeds),
    )


class Contestant(Protocol):
    """Codes groups of pictures of one padded size; safe to call from several threads."""

    @property
    def name(self) -> str: ...

    def encode(self, images: Group) -> Any: ...

    def decode(self, coded: Any) -> Any: ...

    def check(self, coded: Any, decoded: Any) -> int:
        """Bytes of the entropy-coded streams. Raises ``VerificationFailed`` unless all came back."""
        ...


@dataclass(frozen=True, slots=True)
class Theirs:
    """CompressAI's own calls. It tells nothing about the symbols, so only sizes can be checked."""

    name: str
    network: Any

    @torch.inference_mode()
    def encode(self, images: Group) -> tuple[Any, list[tuple[int, int]]]:
        coded = self.network.compress(to_tensor(images, next(self.network.parameters()).device))
        return coded, [(image.shape[0], image.shape[1]) for image in images]

    @torch.inference_mode()
    def decode(self, coded: tuple[Any, list[tuple[int, int]]]) -> list[Pixels]:
        return to_pixels(self.network.decompress(**coded[0])["x_hat"], coded[1])

    def check(self, coded: tuple[Any, list[tuple[int, int]]], decoded: list[Pixels]) -> int:
        if [image.shape[:2] for image in decoded] != coded[1]:
            raise VerificationFailed(f"{self.name}: a picture was decoded to another size")
        return sum(len(string) for strings in coded[0]["strings"] for string in strings)


@dataclass(frozen=True, slots=True)
class Ours:
    """Whatever writes lichen's bitstreams."""

    name: str
    encode: Callable[[Group], list[Encoded]]
    decode_bitstreams: Callable[[Sequence[bytes]], list[Decoded]]

    def decode(self, coded: list[Encoded]) -> list[Decoded]:
        return self.decode_bitstreams([one.bitstream for one in coded])

    def check(self, coded: list[Encoded], decoded: list[Decoded]) -> int:
        if [one.symbols for one in coded] != [one.symbols for one in decoded]:
            raise VerificationFailed(f"{self.name}: other symbols were decoded than encoded")
        sections = [section for one in coded for section in bitstream.unpack(one.bitstream).sections]
        return sum(len(section.z) + len(section.y) for section in sections)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pass:
    """All pictures there and back; ``batch``: the most that ran together."""

    batch: int
    encode_seconds: float
    decode_seconds: float
    stream_bytes: int


def _measure(
    contestants: Sequence[Contestant], images: Sequence[Pixels], ways: Sequence[Lanes], repeats: int
) -> tuple[list[Speed], float]:
    """Every contestant in every way, CompressAI in the first way first; and the rate's excess."""
    batches = {size: _groups(images, size) for size in BATCHES}
    # Not timed: kernels are compiled and memory is found.
    theirs, ours, *_ = [_run(contestant, batches[1], ways[0]) for contestant in contestants]
    cases = [(contestant, lanes) for contestant in contestants for lanes in ways]
    passes: list[list[_Pass]] = [[] for _ in cases]
    for _ in range(repeats):
        for (contestant, lanes), done in zip(cases, passes, strict=True):
            done += [_run(contestant, groups, lanes) for groups in batches.values()]

    pixels = _megapixels(images)
    speeds: list[Speed] = []
    for (contestant, lanes), done in zip(cases, passes, strict=True):
        encoding = min(done, key=lambda one: one.encode_seconds)
        decoding = min(done, key=lambda one: one.decode_seconds)
        encode, decode = pixels / encoding.encode_seconds, pixels / decoding.decode_seconds
        speeds.append(
            Speed(
                name=contestant.name,
                lanes=lanes.count,
                threads=max(1, lanes.cpus // lanes.count),
                encode=encode,
                encode_batch=encoding.batch,
                encode_ratio=encode / speeds[0].encode if speeds else 1.0,
                decode=decode,
                decode_batch=decoding.batch,
                decode_ratio=decode / speeds[0].decode if speeds else 1.0,
                bpp=8e-6 * done[0].stream_bytes / pixels,
            )
        )
    return speeds, ours.stream_bytes / theirs.stream_bytes - 1


def _run(contestant: Contestant, groups: Sequence[Group], lanes: Lanes) -> _Pass:
    """Encode and decode everything once."""
    with lanes, lanes.pool() as pool:
        began = time.perf_counter()
        coded = list(pool.map(contestant.encode, groups))
        turned = time.perf_counter()
        decoded = list(pool.map(contestant.decode, coded))
        ended = time.perf_counter()
    return _Pass(
        batch=max(map(len, groups)),
        encode_seconds=turned - began,
        decode_seconds=ended - turned,
        stream_bytes=sum(contestant.check(*pair) for pair in zip(coded, decoded, strict=True)),
    )


def _groups(images: Sequence[Pixels], batch: int) -> list[Group]:
    """Pictures of one padded size together, at most ``batch`` of them."""
    sizes: dict[tuple[int, int], list[Pixels]] = {}
    for image in images:
        sizes.setdefault((-(-image.shape[0] // GRID), -(-image.shape[1] // GRID)), []).append(image)
    return [group[i : i + batch] for group in sizes.values() for i in range(0, len(group), batch)]


def _megapixels(images: Sequence[Pixels]) -> float:
    return sum(image.shape[0] * image.shape[1] for image in images) / 1e6
