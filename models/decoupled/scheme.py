"""The decoupled scheme: how our own codecs are made, trained, frozen into a codec's files and run from them.

Weights of both halves are float16 in the files; tables over quality, integers and tables of the coder are as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import torch
from torch import Tensor

from lichen.errors import InvalidCodec, UsageError
from lichen.models.bundle import (
    Arrays,
    Bundle,
    check_fields,
    check_runs,
    fit_weights,
    full_files,
    number_between,
    under,
)
from lichen.models.decoupled.codec import DecoupledCodec
from lichen.models.decoupled.freezing import integer_prior, restore_floats
from lichen.models.decoupled.growing import grow
from lichen.models.decoupled.hypercontext import HyperContext
from lichen.models.decoupled.initialise import conditioning, initialise
from lichen.models.decoupled.integer import IntegerPrior, self_test
from lichen.models.decoupled.network import CodecNetwork, NetworkConfig
from lichen.models.decoupled.trunks import TRUNKS, parse
from lichen.models.device import Device
from lichen.models.perceptual.distortion import Mix

FAMILY = "decoupled"
PLAIN, WITH_CONTEXT = 1, 2
"""Versions of the format: the second has a context of the hyper-latent."""
_ENCODER = ("g_a.", "entropy.h_a.")
_DECODER = ("g_s.", "entropy.means.", "entropy.gain.", "entropy.shrink.")
_INTEGER = "integer."
_LIMITS: Mapping[str, tuple[float, float]] = {
    "luma": (1, 256), "chroma": (0, 256), "width": (1, 1024), "depth": (0, 16), "expansion": (1, 8),
    "hyper": (1, 512), "hidden": (1, 1024), "features": (1, 1024), "context": (1, 1024), "anchors": (2, 64),
    "lambda_min": (1e-6, 1e3), "lambda_max": (1e-6, 1e3),
}  # fmt: skip


class DecoupledScheme:
    """Implements ``lichen.models.registry.Scheme``."""

    systems: Mapping[str, type[NetworkConfig]] = {NetworkConfig.system: NetworkConfig}
    fits_context = True

    def architectures(self) -> Mapping[str, Sequence[str]]:
        """All blocks in the common frame, with their switches."""
        return {name: trunk.switches for name, trunk in TRUNKS.items()}

    def config(self, name: str, sizes: Mapping[str, Any]) -> NetworkConfig:
        """Raises ``UsageError`` for an unknown name."""
        return NetworkConfig.of(name, **sizes)

    def build(self, config: NetworkConfig) -> CodecNetwork:
        """An untrained network."""
        return CodecNetwork(config)

    def begin(
        self,
        network: CodecNetwork,
        patches: Callable[[], Tensor],
        prepare: Callable[[CodecNetwork, Tensor], None] | None = None,
    ) -> Mapping[str, Tensor]:
        """Starting values from patches of photographs, and factors on the learning rates of single weights."""
        drawn = patches()
        (prepare or initialise)(network, drawn)
        return conditioning(network, drawn)

    def grow(self, network: CodecNetwork, config: object) -> CodecNetwork:
        """A deeper network that computes what ``network`` does (``lichen.models.decoupled.growing``)."""
        return grow(network, config)

    def export(
        self,
        network: CodecNetwork,
        name: str,
        notes: Mapping[str, Any],
        context: HyperContext | None = None,
        mix: Mix | None = None,
    ) -> dict[str, bytes]:
        """Freeze a trained network into full files, both halves in float16.

        ``notes`` (training, evaluation, credits) are kept in the JSON beside what decoding needs. ``context`` is that
        of the hyper-latent, if one was fitted. ``mix`` is the distortion that it was trained with, which efforts above
        the default lower further. Raises ``TrainingError`` if the weights have diverged.
        """
        state = {n: t.detach().float().cpu() for n, t in network.state_dict().items()}
        encoder, decoder = (
            {n: t.numpy() if n.endswith(".table") else t.half().numpy() for n, t in state.items() if n.startswith(side)}
            for side in (_ENCODER, _DECODER)
        )
        prior = replace(integer_prior(network.entropy), context=context)
        decoder |= {_INTEGER + n: a for n, a in prior.to_arrays().items()}
        config = {
            "family": FAMILY,
            "format": PLAIN if context is None else WITH_CONTEXT,
            "name": name,
            "arguments": asdict(network.config),
            "self_test": self_test(prior.placed(torch.device("cpu"))).hex(),
        }
        objective = {"objective": mix.to_card()} if mix is not None and mix.perceptual else {}
        return full_files(config, decoder, encoder, notes=dict(notes), **objective)

    def load(self, bundle: Bundle, device: Device) -> DecoupledCodec:
        """The codec of a bundle, with its encoder if that is there. Raises ``InvalidCodec``."""
        config = _arguments(bundle.config)
        network = _network(config, bundle)
        prior = _prior(bundle)
        if (prior.latent, prior.hyper, prior.offset.shape[0]) != (config.latent, config.hyper, config.anchors):
            raise InvalidCodec("the integer prior does not fit the architecture")
        if (prior.context is not None) != (bundle.config["format"] == WITH_CONTEXT):
            raise InvalidCodec("the integer prior does not fit the version of the codec's format")
        return DecoupledCodec(
            name=bundle.config["name"],
            digest=bundle.digest,
            network=network,
            prior=prior,
            expected=bytes.fromhex(bundle.config["self_test"]),
            files=bundle.carry(),
            device=device,
            encoder=bundle.encoder is not None,
            mix=Mix.from_card(bundle.card),
        )

    def network(self, bundle: Bundle) -> CodecNetwork:
        """A trainable network of a full bundle, to go on training with a fresh optimiser.

        The scale network and the tables over quality come back from their integers. Raises ``InvalidCodec``.
        """
        network = _network(_arguments(bundle.config), bundle)
        restore_floats(network.entropy, _prior(bundle))
        return network


def _arguments(config: Mapping[str, Any]) -> NetworkConfig:
    check_fields(config, FAMILY, (PLAIN, WITH_CONTEXT), frozenset({"arguments"}))
    given = config["arguments"]
    names = {f.name for f in fields(NetworkConfig)}
    if not isinstance(given, dict) or set(given) != names:
        raise InvalidCodec("the codec JSON does not have the constructor arguments of this architecture")
    values = {
        key: number_between(given[key], low, high, key, whole=not key.startswith("lambda"))
        for key, (low, high) in _LIMITS.items()
    }
    try:
        parse(given["blocks"])
    except (UsageError, AttributeError) as error:
        raise InvalidCodec(f"the blocks of the codec are not known here: {error}") from error
    return NetworkConfig(blocks=given["blocks"], **values)


def _network(config: NetworkConfig, bundle: Bundle) -> CodecNetwork:
    with torch.device("meta"):  # nothing is allocated until names and shapes have been compared
        network = CodecNetwork(config)
    given: Arrays = {n: a for n, a in bundle.decoder.items() if not n.startswith(_INTEGER)}
    fit_weights(network, given | (bundle.encoder or {}), _DECODER + (_ENCODER if bundle.encoder is not None else ()))
    check_runs(network)
    return network


def _prior(bundle: Bundle) -> IntegerPrior:
    return IntegerPrior.from_arrays(under(_INTEGER, bundle.decoder))
