"""The two files of a codec: JSON and safetensors, halves for encoder and decoder, and the digest of the decoder's.

Files from elsewhere are hostile until proven otherwise: sizes, names, shapes and dtypes are checked against the
architecture before anything of their size is allocated.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
import torch
from numpy.typing import NDArray
from torch import nn

from lichen.errors import InvalidCodec

MAX_BYTES = 1 << 29
"""Largest safetensors file that is looked at."""

Arrays = dict[str, NDArray[Any]]


def read_arrays(data: bytes) -> Arrays:
    """Tensors of a safetensors file. Raises ``InvalidCodec`` for anything malformed or too large."""
    if len(data) > MAX_BYTES:
        raise InvalidCodec(f"weights of {len(data)} bytes; at most {MAX_BYTES} are allowed")
    try:
        return safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, struct.error, OverflowError) as error:
        raise InvalidCodec(f"the weights file is malformed: {error}") from error


def half(arrays: Arrays, prefix: str) -> Arrays:
    """The arrays whose names begin with ``prefix``, without it."""
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def decoder_digest(config: Mapping[str, Any], decoder: Arrays) -> str:
    """The digest of a codec: of the canonical decoder JSON, and of every array's name, dtype, shape and bytes."""
    digest = hashlib.sha256(canonical(config))
    for name, array in sorted(decoder.items()):
        digest.update(f"\0{name}\0{array.dtype.str}\0{list(array.shape)}\0".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def canonical(value: Mapping[str, Any]) -> bytes:
    """JSON in its one shortest spelling."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def pretty(value: Mapping[str, Any]) -> bytes:
    """JSON for people."""
    return (json.dumps(value, indent=1) + "\n").encode()


def pack_arrays(arrays: Arrays) -> bytes:
    """A safetensors file. It holds the memory as it lies, so only C order is right."""
    return safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())})


def check_runs(network: nn.Module) -> None:
    """Raise ``InvalidCodec`` unless a network, whose weights have been compared with its shapes, takes a picture.

    Constructor arguments that are fine one by one need not go together. Not on the meta device: the first arithmetic
    there makes torch load its compiler, which takes longer than all the rest of loading a codec.
    """
    side = int(getattr(network, "grid", 64))
    try:
        with torch.inference_mode():
            network(torch.zeros(1, 3, side, side), torch.full((1,), 50.0))
    except (RuntimeError, ValueError, IndexError, ZeroDivisionError) as error:
        raise InvalidCodec(f"the constructor arguments make no network that runs: {error}") from error


def fit_weights(network: nn.Module, given: Arrays, prefixes: tuple[str, ...] | None = None) -> None:
    """Load ``given`` into a network that was made on the meta device.

    ``prefixes``: names that it has to cover, all by default; what is not covered becomes zeros that take no memory.
    Raises ``InvalidCodec`` unless names, shapes and dtypes are exactly those of the network, and all values finite.
    """
    wanted = {n: t for n, t in network.state_dict().items() if prefixes is None or n.startswith(prefixes)}
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
        if name not in state:
            state[name] = torch.zeros(()).expand(tensor.shape)
    network.load_state_dict(state, assign=True)
