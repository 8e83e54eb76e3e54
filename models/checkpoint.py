"""Codec files: a JSON that says what a codec is, and safetensors with its weights and frozen integers.

The package ships both halves of a codec (``encoder.*`` and ``decoder.*`` tensors); an archive carries only what
decoding depends on. The digest covers exactly that: the canonical decoder JSON, and every decoder tensor by name,
dtype, shape and bytes. Files from elsewhere are hostile until proven otherwise: sizes, names, shapes and dtypes are
checked against the architecture before anything of their size is allocated.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch
from numpy.typing import NDArray

from lichen.models.card import parse_card
from lichen.models.errors import InvalidCodec, UsageError
from lichen.models.export import integer_prior, restore_floats
from lichen.models.integer import IntegerPrior, self_test
from lichen.models.learned import LearnedCodec, Placement
from lichen.models.networks.network import CodecNetwork, NetworkConfig
from lichen.models.networks.trunks import parse

FORMAT = 1
FAMILY = "decoupled"
"""Networks of ``NetworkConfig`` with the decoupled entropy model."""
MAX_BYTES = 64 << 20
"""Largest safetensors file that is looked at."""
_ENCODER = ("g_a.", "entropy.h_a.")
_DECODER = ("g_s.", "entropy.means.", "entropy.gain.", "entropy.shrink.")
_INTEGER = "integer."
_LIMITS: Mapping[str, tuple[float, float]] = {
    "luma": (1, 256), "chroma": (0, 256), "width": (1, 1024), "depth": (0, 16), "expansion": (1, 8),
    "hyper": (1, 512), "hidden": (1, 1024), "features": (1, 1024), "context": (1, 1024), "anchors": (2, 64),
    "lambda_min": (1e-6, 1e3), "lambda_max": (1e-6, 1e3),
}  # fmt: skip

Arrays = dict[str, NDArray[Any]]


def export_codec(network: CodecNetwork, name: str, notes: Mapping[str, Any]) -> dict[str, bytes]:
    """Freeze a trained network into codec files, ``{"json": ..., "safetensors": ...}``, both halves in float16.

    ``notes`` (training, evaluation, credits) are kept in the JSON beside what decoding needs.
    Raises ``TrainingError`` if the weights have diverged.
    """
    state = {n: t.detach().float().cpu() for n, t in network.state_dict().items()}
    arrays: Arrays = {}
    for half, prefixes in (("encoder.", _ENCODER), ("decoder.", _DECODER)):
        for key, tensor in state.items():
            if key.startswith(prefixes):
                table = key.endswith(".table")
                arrays[half + key] = tensor.numpy() if table else tensor.half().numpy()
    prior = integer_prior(network.entropy)
    # safetensors writes the memory as it lies: only C order is right
    arrays |= {f"decoder.{_INTEGER}{n}": np.ascontiguousarray(a) for n, a in prior.to_arrays().items()}
    decoder = {
        "family": FAMILY,
        "format": FORMAT,
        "name": name,
        "arguments": asdict(network.config),
        "self_test": self_test(prior.placed(torch.device("cpu"))).hex(),
    }
    card = {"decoder": decoder, "digest": _digest(decoder, _half(arrays, "decoder.")), "notes": dict(notes)}
    return {"json": _pretty(card), "safetensors": safetensors.numpy.save(dict(sorted(arrays.items())))}


def load_full(files: Mapping[str, bytes], placement: Placement) -> LearnedCodec:
    """The codec of a package or of an imported file, with its encoder. Raises ``InvalidCodec``."""
    card = parse_card(files)
    decoder = card.get("decoder")
    if not isinstance(decoder, dict):
        raise InvalidCodec("the codec JSON has no 'decoder' object")
    arrays = read_arrays(files.get("safetensors", b""))
    own = _half(arrays, "decoder.")
    codec = _build(decoder, own, _half(arrays, "encoder."), placement)
    if card.get("digest") != codec.digest:
        raise InvalidCodec(f"codec {codec.name}: the digest does not match the weights; the files are damaged")
    return codec


def load_decoder(config: Mapping[str, Any], files: Mapping[str, bytes], placement: Placement) -> LearnedCodec:
    """The codec that an archive carries; it has no encoder. Raises ``InvalidCodec``."""
    return _build(config, read_arrays(files.get("safetensors", b"")), None, placement)


def read_arrays(data: bytes) -> Arrays:
    """Tensors of a safetensors file. Raises ``InvalidCodec`` for anything malformed or too large."""
    if len(data) > MAX_BYTES:
        raise InvalidCodec(f"weights of {len(data)} bytes; at most {MAX_BYTES} are allowed")
    try:
        return safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, struct.error, OverflowError) as error:
        raise InvalidCodec(f"the weights file is malformed: {error}") from error


def network_from_files(files: Mapping[str, bytes]) -> CodecNetwork:
    """A trainable network from full codec files, to go on training with a fresh optimiser.

    The scale network and the tables over quality come back from their integers.
    """
    card = parse_card(files)
    arrays = read_arrays(files.get("safetensors", b""))
    decoder = _half(arrays, "decoder.")
    network = _network(_arguments(card["decoder"]), decoder, _half(arrays, "encoder."))
    restore_floats(network.entropy, IntegerPrior.from_arrays(_integers(decoder)))
    return network


# --- parts ----------------------------------------------------------------------------------------


def _build(config: Mapping[str, Any], decoder: Arrays, encoder: Arrays | None, placement: Placement) -> LearnedCodec:
    arguments = _arguments(config)
    network = _network(arguments, decoder, encoder)
    prior = IntegerPrior.from_arrays(_integers(decoder))
    if (prior.latent, prior.hyper, prior.offset.shape[0]) != (arguments.latent, arguments.hyper, arguments.anchors):
        raise InvalidCodec("the integer prior does not fit the architecture")
    config = dict(config)
    files = {"json": _canonical(config), "safetensors": safetensors.numpy.save(dict(sorted(decoder.items())))}
    return LearnedCodec(
        name=config["name"],
        digest=_digest(config, decoder),
        network=network,
        prior=prior,
        expected=bytes.fromhex(config["self_test"]),
        files=files,
        placement=placement,
        encoder=encoder is not None,
    )


def _arguments(config: Mapping[str, Any]) -> NetworkConfig:
    if set(config) != {"family", "format", "name", "arguments", "self_test"}:
        raise InvalidCodec("the codec JSON does not have the fields of this format")
    if config["family"] != FAMILY or config["format"] != FORMAT:
        raise InvalidCodec(
            f"codec format {str(config['format'])[:20]} of {str(config['family'])[:40]} is not known here"
        )
    name, test = config["name"], config["self_test"]
    if not isinstance(name, str) or not 0 < len(name) <= 100 or not isinstance(test, str) or len(test) != 32:
        raise InvalidCodec("the codec JSON has a malformed name or self-test")
    if any(c not in "0123456789abcdef" for c in test):
        raise InvalidCodec("the self-test of the codec JSON is not hexadecimal")
    given = config["arguments"]
    names = {f.name for f in fields(NetworkConfig)}
    if not isinstance(given, dict) or set(given) != names:
        raise InvalidCodec("the codec JSON does not have the constructor arguments of this architecture")
    values: dict[str, Any] = {}
    for key, (low, high) in _LIMITS.items():
        value = given[key]
        kinds = (int, float) if key.startswith("lambda") else int
        if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
            raise InvalidCodec(f"constructor argument {key} is not between {low} and {high}")
        values[key] = value
    try:
        parse(given["blocks"])
    except (UsageError, AttributeError) as error:
        raise InvalidCodec(f"the blocks of the codec are not known here: {error}") from error
    return NetworkConfig(blocks=given["blocks"], **values)


def _network(config: NetworkConfig, decoder: Arrays, encoder: Arrays | None) -> CodecNetwork:
    with torch.device("meta"):  # nothing is allocated until names and shapes have been compared
        network = CodecNetwork(config)
    given = {n: a for n, a in decoder.items() if not n.startswith(_INTEGER)} | (encoder or {})
    prefixes = _DECODER + (_ENCODER if encoder is not None else ())
    wanted = {n: t for n, t in network.state_dict().items() if n.startswith(prefixes)}
    if set(given) != set(wanted):
        odd = sorted(set(given) ^ set(wanted))
        raise InvalidCodec(f"the weights do not fit the architecture: {odd[0]} is missing or too many")
    state = {}
    for name, tensor in wanted.items():
        array = given[name]
        if array.shape != tuple(tensor.shape) or array.dtype not in (np.float16, np.float32):
            raise InvalidCodec(f"weight {name} is {array.dtype}{list(array.shape)}, expected {list(tensor.shape)}")
        if not np.isfinite(array).all():
            raise InvalidCodec(f"weight {name} holds values that are not finite")
        state[name] = torch.from_numpy(array.astype(np.float32))
    for name, tensor in network.state_dict().items():
        if name not in state:  # the encoder of a decoder, and floats that exist as integers
            state[name] = torch.zeros(()).expand(tensor.shape)
    network.load_state_dict(state, assign=True)
    return network


def _half(arrays: Arrays, prefix: str) -> Arrays:
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def _integers(decoder: Arrays) -> Arrays:
    return _half(decoder, _INTEGER)


def _digest(config: Mapping[str, Any], decoder: Arrays) -> str:
    digest = hashlib.sha256(_canonical(config))
    for name, array in sorted(decoder.items()):
        digest.update(f"\0{name}\0{array.dtype.str}\0{list(array.shape)}\0".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _canonical(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _pretty(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
