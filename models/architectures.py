"""Every architecture by name, and both schemes of entropy coding behind one set of functions.

Names of ``trunks.TRUNKS`` (with switches) are networks of one frame with the decoupled entropy model and continuous
quality; names of ``published.SIZES`` are the published codecs in their published sizes, at one rate.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeAlias

import torch
from torch.utils.flop_counter import FlopCounterMode

from lichen.errors import InvalidCodec, UsageError
from lichen.models import checkpoint, published
from lichen.models.card import decoder_card, parse_card
from lichen.models.hypercontext import HyperContext
from lichen.models.learned import LearnedCodec
from lichen.models.networks.cwam import CWAMConfig
from lichen.models.networks.grouped import GroupedConfig
from lichen.models.networks.hyperpriors import HyperpriorConfig
from lichen.models.networks.network import CodecNetwork, NetworkConfig
from lichen.models.networks.stepped import SteppedNetwork
from lichen.models.networks.tcm import TCMConfig
from lichen.models.networks.trunks import TRUNKS
from lichen.models.perceptual.distortion import Mix
from lichen.models.placement import Placement
from lichen.models.snapped import SnappedCodec

Config: TypeAlias = NetworkConfig | TCMConfig | CWAMConfig | GroupedConfig | HyperpriorConfig
Network: TypeAlias = CodecNetwork | SteppedNetwork
DECOUPLED = "decoupled"
COST_SIDE = 256
"""Side of the picture whose multiplications are counted."""


def architecture_names() -> list[str]:
    """All names that ``config_of`` knows, without switches."""
    return [*TRUNKS, *published.SIZES]


def config_of(name: str, **sizes: Any) -> Config:
    """The constructor arguments of an architecture. Raises ``UsageError`` for an unknown name or size."""
    if name in published.SIZES:
        system, own = published.SIZES[name]
        kind: Any = published.ARCHITECTURES[system].config
        if unknown := set(sizes) - {field.name for field in fields(kind)}:
            raise UsageError(f"{name} has no {min(unknown)} to choose")
        config: Config = kind(**dict(own) | sizes)
        return config
    if name.partition(":")[0] not in TRUNKS:
        raise UsageError(f"no architecture {name[:60]!r}; there are {', '.join(architecture_names())}")
    return NetworkConfig.of(name, **sizes)


def build(config: Config) -> Network:
    """An untrained network."""
    if isinstance(config, NetworkConfig):
        return CodecNetwork(config)
    return published.ARCHITECTURES[_system(config)].network(config)


def cost(config: Config) -> tuple[int, float]:
    """Parameters, and multiplications per pixel of analysis, entropy model and synthesis together."""
    with torch.device("meta"):
        network = build(config).eval()
        x, quality = torch.empty(1, 3, COST_SIDE, COST_SIDE), torch.empty(1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(x, quality)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return parameters, counter.get_total_flops() / 2 / COST_SIDE**2


def to_json(config: Config) -> dict[str, Any]:
    """A configuration as plain values, for checkpoints."""
    return {"architecture": _system(config), "arguments": asdict(config)}


def from_json(value: Mapping[str, Any]) -> Config:
    """The inverse. Raises ``InvalidCodec``."""
    system, arguments = value.get("architecture"), value.get("arguments")
    kinds: dict[str, Any] = {DECOUPLED: NetworkConfig} | {n: a.config for n, a in published.ARCHITECTURES.items()}
    kind = kinds.get(system) if isinstance(system, str) else None
    if kind is None or not isinstance(arguments, dict) or set(arguments) != {f.name for f in fields(kind)}:
        raise InvalidCodec("the checkpoint is of an architecture that is not known here")
    config: Config = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in arguments.items()})
    return config


def export(
    network: Network,
    name: str,
    notes: Mapping[str, Any],
    context: HyperContext | None = None,
    mix: Mix | None = None,
) -> dict[str, bytes]:
    """Codec files of a trained network, ``{"json": ..., "safetensors": ...}``. Raises ``TrainingError``.

    ``context`` is that of the hyper-latent and ``mix`` the distortion that the network was trained with, for networks
    with the decoupled entropy model.
    """
    if isinstance(network, CodecNetwork):
        return checkpoint.export_codec(network, name, notes, context, mix)
    network.entropy_bottleneck.solve_medians()
    return published.export_published(network, name, notes)


def load_full(files: Mapping[str, bytes], placement: Placement) -> LearnedCodec | SnappedCodec:
    """A codec with its encoder, of either scheme. Raises ``InvalidCodec``."""
    if _is_published(files):
        return published.load_published(files, placement)
    return checkpoint.load_full(files, placement)


def network_from_files(files: Mapping[str, bytes]) -> Network:
    """A trainable network from full codec files, to go on training. Raises ``InvalidCodec``."""
    if _is_published(files):
        return published.network_from_files(files)
    return checkpoint.network_from_files(files)


def _is_published(files: Mapping[str, bytes]) -> bool:
    return decoder_card(parse_card(files)).get("family") == published.FAMILY


def _system(config: Config) -> str:
    if isinstance(config, NetworkConfig):
        return DECOUPLED
    return next(name for name, a in published.ARCHITECTURES.items() if isinstance(config, a.config))  # type: ignore[arg-type]
