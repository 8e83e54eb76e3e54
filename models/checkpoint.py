"""Codec files: a JSON that says what a codec is, and safetensors with its weights and frozen integers.

The package ships both halves of a codec (``encoder.*`` and ``decoder.*`` tensors); an archive carries only what
decoding depends on. The digest covers exactly that: the canonical decoder JSON, and every decoder tensor by name,
dtype, shape and bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

import torch

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
from lichen.models.export import integer_prior, restore_floats
from lichen.models.hypercontext import HyperContext
from lichen.models.integer import IntegerPrior, self_test
from lichen.models.learned import LearnedCodec
from lichen.models.networks.network import CodecNetwork, NetworkConfig
from lichen.models.networks.trunks import parse
from lichen.models.perceptual.distortion import Mix
from lichen.models.placement import Placement

PLAIN, WITH_CONTEXT = 1, 2
"""Versions of the format: the second has a context of the hyper-latent."""
FAMILY = "decoupled"
"""Networks of ``NetworkConfig`` with the decoupled entropy model."""
_ENCODER = ("g_a.", "entropy.h_a.")
_DECODER = ("g_s.", "entropy.means.", "entropy.gain.", "entropy.shrink.")
_INTEGER = "integer."
_LIMITS: Mapping[str, tuple[float, float]] = {
    "luma": (1, 256), "chroma": (0, 256), "width": (1, 1024), "depth": (0, 16), "expansion": (1, 8),
    "hyper": (1, 512), "hidden": (1, 1024), "features": (1, 1024), "context": (1, 1024), "anchors": (2, 64),
    "lambda_min": (1e-6, 1e3), "lambda_max": (1e-6, 1e3),
}  # fmt: skip


def export_codec(
    network: CodecNetwork,
    name: str,
    notes: Mapping[str, Any],
    context: HyperContext | None = None,
    mix: Mix | None = None,
) -> dict[str, bytes]:
    """Freeze a trained network into codec files, ``{"json": ..., "safetensors": ...}``, both halves in float16.

    ``notes`` (training, evaluation, credits) are kept in the JSON beside what decoding needs. ``context`` is that of
    the hyper-latent, if one was fitted. ``mix`` is the distortion that it was trained with, which efforts above the
    default lower further.
    Raises ``TrainingError`` if the weights have diverged.
    """
    state = {n: t.detach().float().cpu() for n, t in network.state_dict().items()}
    arrays: Arrays = {}
    for side, prefixes in (("encoder.", _ENCODER), ("decoder.", _DECODER)):
        for key, tensor in state.items():
            if key.startswith(prefixes):
                table = key.endswith(".table")
                arrays[side + key] = tensor.numpy() if table else tensor.half().numpy()
    prior = replace(integer_prior(network.entropy), context=context)
    arrays |= {f"decoder.{_INTEGER}{n}": a for n, a in prior.to_arrays().items()}
    decoder = {
        "family": FAMILY,
        "format": PLAIN if context is None else WITH_CONTEXT,
        "name": name,
        "arguments": asdict(network.config),
        "self_test": self_test(prior.placed(torch.device("cpu"))).hex(),
    }
    card = {"decoder": decoder, "digest": decoder_digest(decoder, half(arrays, "decoder.")), "notes": dict(notes)}
    if mix is not None and mix.perceptual:
        card["objective"] = mix.to_card()
    return {"json": pretty(card), "safetensors": pack_arrays(arrays)}


def load_full(files: Mapping[str, bytes], placement: Placement) -> LearnedCodec:
    """The codec of a package or of an imported file, with its encoder. Raises ``InvalidCodec``."""
    card = parse_card(files)
    decoder = decoder_card(card)
    arrays = read_arrays(files.get("safetensors", b""))
    codec = _build(decoder, half(arrays, "decoder."), half(arrays, "encoder."), placement, Mix.from_card(card))
    check_digest(card, codec)
    return codec


def load_decoder(config: Mapping[str, Any], files: Mapping[str, bytes], placement: Placement) -> LearnedCodec:
    """The codec that an archive carries; it has no encoder. Raises ``InvalidCodec``."""
    return _build(config, read_arrays(files.get("safetensors", b"")), None, placement)


def network_from_files(files: Mapping[str, bytes]) -> CodecNetwork:
    """A trainable network from full codec files, to go on training with a fresh optimiser.

    The scale network and the tables over quality come back from their integers.
    """
    card = parse_card(files)
    arrays = read_arrays(files.get("safetensors", b""))
    decoder = half(arrays, "decoder.")
    network = _network(_arguments(card["decoder"]), decoder, half(arrays, "encoder."))
    restore_floats(network.entropy, IntegerPrior.from_arrays(_integers(decoder)))
    return network


# --- parts ----------------------------------------------------------------------------------------


def _build(
    config: Mapping[str, Any], decoder: Arrays, encoder: Arrays | None, placement: Placement, mix: Mix | None = None
) -> LearnedCodec:
    arguments = _arguments(config)
    network = _network(arguments, decoder, encoder)
    prior = IntegerPrior.from_arrays(_integers(decoder))
    if (prior.latent, prior.hyper, prior.offset.shape[0]) != (arguments.latent, arguments.hyper, arguments.anchors):
        raise InvalidCodec("the integer prior does not fit the architecture")
    if (prior.context is not None) != (config["format"] == WITH_CONTEXT):
        raise InvalidCodec("the integer prior does not fit the version of the codec's format")
    config = dict(config)
    files = {"json": canonical(config), "safetensors": pack_arrays(decoder)}
    return LearnedCodec(
        name=config["name"],
        digest=decoder_digest(config, decoder),
        network=network,
        prior=prior,
        expected=bytes.fromhex(config["self_test"]),
        files=files,
        placement=placement,
        encoder=encoder is not None,
        mix=mix,
    )


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


def _network(config: NetworkConfig, decoder: Arrays, encoder: Arrays | None) -> CodecNetwork:
    with torch.device("meta"):  # nothing is allocated until names and shapes have been compared
        network = CodecNetwork(config)
    given = {n: a for n, a in decoder.items() if not n.startswith(_INTEGER)} | (encoder or {})
    fit_weights(network, given, _DECODER + (_ENCODER if encoder is not None else ()))
    check_runs(network)
    return network


def _integers(decoder: Arrays) -> Arrays:
    return half(decoder, _INTEGER)
