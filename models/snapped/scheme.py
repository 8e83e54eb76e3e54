"""The snapped scheme: how published networks are made, trained, frozen into a codec's files and run from them.

The weights of both halves stay in float32, as they were published.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lichen.errors import InvalidCodec, UsageError
from lichen.models.bundle import (
    Arrays,
    Bundle,
    check_fields,
    check_runs,
    decoder_digest,
    fit_weights,
    full_files,
    number_between,
    under,
)
from lichen.models.device import Device
from lichen.models.entropy.tables import CoderTables
from lichen.models.snapped.codec import SnappedCodec
from lichen.models.snapped.cwam import CWAM, CWAMConfig
from lichen.models.snapped.grouped import STAGES, GroupedConfig, GroupedNetwork
from lichen.models.snapped.hyperpriors import KINDS, HyperpriorConfig, hyperprior
from lichen.models.snapped.network import RateConfig, SteppedNetwork
from lichen.models.snapped.tables import scale_tables, share_tables
from lichen.models.snapped.tcm import TCM, TCMConfig

FAMILY = "snapped"
FORMAT = 1
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

    config: type[RateConfig]
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


class SnappedScheme:
    """Implements ``lichen.models.registry.Scheme``."""

    systems: Mapping[str, type[RateConfig]] = {name: one.config for name, one in ARCHITECTURES.items()}
    fits_context = False

    def architectures(self) -> Mapping[str, Sequence[str]]:
        """The published sizes; they have no switches."""
        return dict.fromkeys(SIZES, ())

    def config(self, name: str, sizes: Mapping[str, Any]) -> RateConfig:
        """Raises ``UsageError`` for a switch or a size that the system does not have."""
        if name not in SIZES:
            raise UsageError(f"{name.partition(':')[0]} has no switches to choose")
        system, own = SIZES[name]
        kind = ARCHITECTURES[system].config
        if unknown := set(sizes) - {field.name for field in fields(kind)}:
            raise UsageError(f"{name} has no {min(unknown)} to choose")
        return kind(**dict(own) | dict(sizes))

    def build(self, config: RateConfig) -> SteppedNetwork:
        """An untrained network, which starts as its authors have it."""
        return ARCHITECTURES[config.system].network(config)

    def begin(
        self, _network: SteppedNetwork, _patches: Callable[[], Tensor], _prepare: Callable[..., None] | None = None
    ) -> Mapping[str, Tensor]:
        """Leaves a network as it is."""
        return {}

    def grow(self, _network: SteppedNetwork, _config: object) -> SteppedNetwork:
        """Raises ``UsageError``."""
        raise UsageError("only codecs with the decoupled entropy model can grow")

    def export(
        self, network: SteppedNetwork, name: str, notes: Mapping[str, Any], _context: object = None, _mix: object = None
    ) -> dict[str, bytes]:
        """Full files of a network that was trained here: its medians are looked for first."""
        network.entropy_bottleneck.solve_medians()
        return freeze(network, name, notes)

    def load(self, bundle: Bundle, device: Device) -> SnappedCodec:
        """The codec of a bundle, with its encoder if that is there. Raises ``InvalidCodec``."""
        return _load(bundle, device, test=True)

    def network(self, bundle: Bundle) -> SteppedNetwork:
        """A trainable network of a full bundle. Raises ``InvalidCodec``."""
        return _network(bundle)


def freeze(network: SteppedNetwork, name: str, notes: Mapping[str, Any]) -> dict[str, bytes]:
    """Full files of a network as it is."""
    apart = tuple(f"{prefix}." for prefix in network.encoder)
    encoder: Arrays = {}
    decoder: Arrays = {}
    for key, tensor in network.state_dict().items():
        (encoder if key.startswith(apart) else decoder)[key] = tensor.detach().float().cpu().numpy()
    z_tables, z_index = share_tables(*network.entropy_bottleneck.pmfs())
    decoder["tables.z_index"] = np.repeat(z_index, network.entropy_bottleneck.spread)
    tables = {"z": z_tables, "y": scale_tables()}
    for stream in _TABLES:
        decoder |= {f"tables.{stream}.{n}": a for n, a in tables[stream].to_arrays().items()}
    config: dict[str, Any] = {
        "family": FAMILY,
        "format": FORMAT,
        "name": name,
        "architecture": network.config.system,
        "arguments": _plain(asdict(network.config)),
        "self_test": "0" * 32,
    }
    bundle = Bundle(config=config, decoder=decoder, digest=decoder_digest(config, decoder))
    device = Device(on=torch.device("cpu"), half=None, batch_pixels=1)
    config["self_test"] = _load(bundle, device, test=False).self_test().hex()
    return full_files(config, decoder, encoder, notes=dict(notes))


def _load(bundle: Bundle, device: Device, *, test: bool) -> SnappedCodec:
    network = _network(bundle)
    z, y = (CoderTables.from_arrays(under(f"tables.{stream}.", bundle.decoder)) for stream in _TABLES)
    index = bundle.decoder.get("tables.z_index")
    if index is None or index.dtype != np.uint8:
        raise InvalidCodec("the tables of the hyper-latent are missing or of another type")
    return SnappedCodec(
        name=bundle.config["name"],
        digest=bundle.digest,
        network=network,
        z_tables=z,
        z_index=index,
        y_tables=y,
        expected=bytes.fromhex(bundle.config["self_test"]) if test else None,
        files=bundle.carry(),
        device=device,
        encoder=bundle.encoder is not None,
    )


def _network(bundle: Bundle) -> SteppedNetwork:
    architecture, arguments = _arguments(bundle.config)
    with torch.device("meta"):  # nothing is allocated until names and shapes have been compared
        try:
            network = architecture.network(architecture.config(**arguments))
        except (UsageError, ValueError, ZeroDivisionError, RuntimeError) as error:
            raise InvalidCodec(f"the constructor arguments make no network: {error}") from error
    weights: Arrays = {n: a for n, a in bundle.decoder.items() if not n.startswith("tables.")}
    apart = tuple(f"{prefix}." for prefix in network.encoder)
    names = tuple(n for n in network.state_dict() if bundle.encoder is not None or not n.startswith(apart))
    fit_weights(network, weights | (bundle.encoder or {}), names)
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
    kinds = {f.name: f.type for f in fields(architecture.config)}
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
