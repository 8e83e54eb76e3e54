"""Codec files of the published architectures, which code in the snapped scheme (``lichen.models.snapped``).

As ``lichen.models.checkpoint`` for the decoupled ones: both halves in the full files, the decoder's in an archive. The
weights stay in float32, as they were published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lichen.errors import InvalidCodec, UsageError
from lichen.models.arrays import (
    Arrays,
    canonical,
    check_runs,
    decoder_digest,
    fit_weights,
    half,
    pack_arrays,
    pretty,
    read_arrays,
)
from lichen.models.card import check_digest, check_fields, decoder_card, number_between, parse_card
from lichen.models.entropy.tables import (
    MAX_ENTRIES,
    MAX_TABLES,
    CoderTables,
    GaussianScales,
    gaussian_tables,
    tables_from_pmfs,
)
from lichen.models.networks.cwam import CWAM, CWAMConfig
from lichen.models.networks.grouped import STAGES, GroupedConfig, GroupedNetwork
from lichen.models.networks.hyperpriors import KINDS, HyperpriorConfig, hyperprior
from lichen.models.networks.stepped import SCALE_MIN, SteppedNetwork
from lichen.models.networks.tcm import TCM, TCMConfig
from lichen.models.placement import Placement
from lichen.models.snapped import LOG_STEP, SCALE_MAX, SCALES, SnappedCodec

FORMAT = 1
FAMILY = "snapped"
SKIP_BELOW = 0.17
"""Latents of a standard deviation below this are not coded: they would be zero 997 times in 1,000."""
_TABLES = ("z", "y")
_WIDTHS = (8, 1024)
_RATES: dict[str, tuple[Any, ...]] = {
    "weight": (1e-6, 1e3),
    "weight_max": (1e-6, 1e3),
    "anchors": (0, 64),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Architecture:
    """A published system: its network, what that is made from, and the sizes that have names."""

    config: Callable[..., Any]
    network: Callable[[Any], SteppedNetwork]
    limits: Mapping[str, tuple[Any, ...]]
    """Ranges of numbers, and allowed names, of the constructor arguments that come from files."""


ARCHITECTURES: Mapping[str, Architecture] = {
    "tcm": Architecture(config=TCMConfig, network=TCM, limits={"half": (32, 256)} | _RATES),
    "cwam": Architecture(
        config=CWAMConfig,
        network=CWAM,
        limits={"channels": _WIDTHS, "context": ("serial", "checkerboard")} | _RATES,
    ),
    "grouped": Architecture(
        config=GroupedConfig,
        network=GroupedNetwork,
        limits={
            "blocks": tuple(STAGES), "widths": _WIDTHS, "depths": (0, 32), "expansion": (1, 8), "gated": (0, 1),
        } | _RATES,
    ),
    "compressai": Architecture(
        config=HyperpriorConfig,
        network=hyperprior,
        limits={"kind": tuple(KINDS), "channels": _WIDTHS, "latent": _WIDTHS, "linear": (0, 1)} | _RATES,
    ),
}  # fmt: skip

SIZES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "tcm-small": ("tcm", {"half": 64}),
    "tcm-medium": ("tcm", {"half": 96}),
    "tcm-large": ("tcm", {"half": 128}),
    "cwam-128": ("cwam", {"channels": 128}),
    "cwam-192": ("cwam", {"channels": 192}),
    "cwam-320": ("cwam", {"channels": 320}),
    "s2c-identity-large": ("grouped", {"blocks": "s2c-identity"}),
    "s2c-conv-large": ("grouped", {"blocks": "s2c-conv"}),
    "s2c-attention-large": ("grouped", {"blocks": "s2c-attention"}),
    "s2c-hybrid-large": ("grouped", {"blocks": "s2c-hybrid"}),
    "hscatb-large": (
        "grouped",
        {"blocks": "hscatb", "widths": (96, 144, 192), "depths": (2, 2, 6), "expansion": 2, "gated": False},
    ),
    **{f"compressai/{kind}": ("compressai", {"kind": kind}) for kind in KINDS},
}
"""Published sizes by name."""


def new_network(name: str, **arguments: Any) -> SteppedNetwork:
    """An untrained network of one of ``SIZES``, or of one of ``ARCHITECTURES`` with its constructor arguments."""
    system, sizes = SIZES.get(name, (name, {}))
    architecture = ARCHITECTURES[system]
    return architecture.network(architecture.config(**dict(sizes) | arguments))


def export_published(network: SteppedNetwork, name: str, notes: Mapping[str, Any]) -> dict[str, bytes]:
    """Freeze a network into codec files, ``{"json": ..., "safetensors": ...}``, both halves in float32."""
    system = next(n for n, a in ARCHITECTURES.items() if isinstance(network.config, a.config))  # type: ignore[arg-type]
    encoder = tuple(f"{prefix}." for prefix in network.encoder)
    arrays: Arrays = {}
    for key, tensor in network.state_dict().items():
        side = "encoder." if key.startswith(encoder) else "decoder."
        arrays[side + key] = tensor.detach().float().cpu().numpy()
    z_tables, z_index = share_tables(*network.entropy_bottleneck.pmfs())
    arrays["decoder.tables.z_index"] = np.repeat(z_index, network.entropy_bottleneck.spread)
    tables = {"z": z_tables, "y": _y_tables()}
    for stream in _TABLES:
        arrays |= {f"decoder.tables.{stream}.{n}": a for n, a in tables[stream].to_arrays().items()}
    decoder: dict[str, Any] = {
        "family": FAMILY,
        "format": FORMAT,
        "name": name,
        "architecture": system,
        "arguments": _plain(asdict(network.config)),  # type: ignore[call-overload]
        "self_test": "0" * 32,
    }
    own = half(arrays, "decoder.")
    codec = _build(decoder, own, None, Placement(device=torch.device("cpu"), half=None, batch_pixels=1), test=False)
    decoder["self_test"] = codec.self_test().hex()
    card = {"decoder": decoder, "digest": decoder_digest(decoder, own), "notes": dict(notes)}
    return {"json": pretty(card), "safetensors": pack_arrays(arrays)}


def load_published(files: Mapping[str, bytes], placement: Placement) -> SnappedCodec:
    """The codec of a file with its encoder. Raises ``InvalidCodec``."""
    card = parse_card(files)
    arrays = read_arrays(files.get("safetensors", b""))
    codec = _build(decoder_card(card), half(arrays, "decoder."), half(arrays, "encoder."), placement)
    check_digest(card, codec)
    return codec


def network_from_files(files: Mapping[str, bytes]) -> SteppedNetwork:
    """A trainable network from full codec files. Raises ``InvalidCodec``."""
    arrays = read_arrays(files.get("safetensors", b""))
    config = decoder_card(parse_card(files))
    return _network(config, half(arrays, "decoder."), half(arrays, "encoder."))


def load_published_decoder(config: Mapping[str, Any], files: Mapping[str, bytes], placement: Placement) -> SnappedCodec:
    """The codec that an archive carries; it has no encoder. Raises ``InvalidCodec``."""
    return _build(config, read_arrays(files.get("safetensors", b"")), None, placement)


def _build(
    config: Mapping[str, Any],
    decoder: Arrays,
    encoder: Arrays | None,
    placement: Placement,
    *,
    test: bool = True,
) -> SnappedCodec:
    network = _network(config, decoder, encoder)
    z, y = (CoderTables.from_arrays(half(decoder, f"tables.{stream}.")) for stream in _TABLES)
    index = decoder.get("tables.z_index")
    if index is None or index.dtype != np.uint8:
        raise InvalidCodec("the tables of the hyper-latent are missing or of another type")
    config = dict(config)
    return SnappedCodec(
        name=config["name"],
        digest=decoder_digest(config, decoder),
        network=network,
        z_tables=z,
        z_index=index,
        y_tables=y,
        expected=bytes.fromhex(config["self_test"]) if test else None,
        files={"json": canonical(config), "safetensors": pack_arrays(decoder)},
        placement=placement,
        encoder=encoder is not None,
    )


def _network(config: Mapping[str, Any], decoder: Arrays, encoder: Arrays | None) -> SteppedNetwork:
    architecture, arguments = _arguments(config)
    with torch.device("meta"):  # nothing is allocated until names and shapes have been compared
        try:
            network = architecture.network(architecture.config(**arguments))
        except (UsageError, ValueError, ZeroDivisionError, RuntimeError) as error:
            raise InvalidCodec(f"the constructor arguments make no network: {error}") from error
    weights = {n: a for n, a in decoder.items() if not n.startswith("tables.")} | (encoder or {})
    apart = tuple(f"{prefix}." for prefix in network.encoder)
    names = tuple(n for n in network.state_dict() if encoder is not None or not n.startswith(apart))
    fit_weights(network, weights, names)
    check_runs(network)
    return network


def _arguments(config: Mapping[str, Any]) -> tuple[Architecture, dict[str, Any]]:
    check_fields(config, FAMILY, (FORMAT,), frozenset({"architecture", "arguments"}))
    name, given = config["architecture"], config["arguments"]
    architecture = ARCHITECTURES.get(name) if isinstance(name, str) else None
    if architecture is None:
        raise InvalidCodec(f"codec of unknown architecture {str(name)[:40]!r}; a newer lichen may know it")
    if not isinstance(given, dict) or set(given) != set(architecture.limits):
        raise InvalidCodec("the codec JSON does not have the constructor arguments of this architecture")
    kinds = {f.name: f.type for f in fields(architecture.config)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for key, limits in architecture.limits.items():
        value = given[key]
        low, high = limits[0], limits[-1]
        if isinstance(low, str) or isinstance(high, str):
            if value not in limits:
                raise InvalidCodec(f"constructor argument {key} is not one of {', '.join(map(str, limits))}")
            values[key] = value
        elif str(kinds[key]).startswith("tuple"):
            if not isinstance(value, list) or len(value) != 3:
                raise InvalidCodec(f"constructor argument {key} is not a list of three numbers")
            values[key] = tuple(number_between(one, low, high, key, whole=True) for one in value)
        elif kinds[key] in (bool, "bool"):
            if not isinstance(value, bool):
                raise InvalidCodec(f"constructor argument {key} is neither true nor false")
            values[key] = value
        else:
            values[key] = number_between(value, low, high, key, whole=kinds[key] in (int, "int"))
    if values["anchors"] == 1:
        raise InvalidCodec("constructor argument anchors is one; quality needs two, or none")
    return architecture, values


def _plain(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in arguments.items()}


def share_tables(pmfs: Sequence[NDArray[np.float64]], firsts: Sequence[int]) -> tuple[CoderTables, NDArray[np.uint8]]:
    """Tables of the probabilities of each channel, and the index of each channel's table.

    There are at most ``MAX_TABLES``. Where channels are more, those share one that lose least by it.
    """
    low, high = min(firsts), max(first + len(pmf) for first, pmf in zip(firsts, pmfs, strict=True))
    rows = np.zeros((len(pmfs), high - low))
    for row, first, pmf in zip(rows, firsts, pmfs, strict=True):
        row[first - low : first - low + len(pmf)] = pmf
    entropy = -np.sum(rows * np.log2(rows, where=rows > 0, out=np.zeros_like(rows)), axis=1)
    groups = [[int(channel)] for channel in np.argsort(entropy, kind="stable")]
    while len(groups) > MAX_TABLES:  # neighbours by entropy
        losses = [_sharing_loss(rows[[*a, *b]]) for a, b in pairwise(groups)]
        best = int(np.argmin(losses))
        groups[best : best + 2] = [groups[best] + groups[best + 1]]
    groups.sort()
    index = np.empty(len(pmfs), dtype=np.uint8)
    shared, starts = [], []
    for number, group in enumerate(groups):
        index[group] = number
        mean = rows[group].mean(axis=0)
        used = np.flatnonzero(mean)
        room = MAX_ENTRIES // len(groups) - 1  # a wide density keeps its middle, and the rest is escaped
        first = max(int(used[0]), min(int(np.argmax(mean)) - room // 2, int(used[-1]) + 1 - room))
        shared.append(mean[first : min(first + room, int(used[-1]) + 1)])
        starts.append(low + first)
    return tables_from_pmfs(shared, starts), index


def _sharing_loss(rows: NDArray[np.float64]) -> float:
    """Bits by which the mean of distributions codes them worse than each codes itself."""
    mean = rows.mean(axis=0)
    used = rows > 0
    ratio = np.divide(rows, np.broadcast_to(mean, rows.shape), where=used, out=np.ones_like(rows))
    return float(np.sum(rows * np.log2(ratio)))


def _y_tables() -> CoderTables:
    scales = SCALE_MIN * np.exp(LOG_STEP * np.arange(SCALES))
    skip = int(np.searchsorted(scales, SKIP_BELOW))
    return gaussian_tables(GaussianScales(count=SCALES, smallest=SCALE_MIN, largest=SCALE_MAX), skip_index=skip)
