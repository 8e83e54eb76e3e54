"""A codec's two files: a JSON that says what it is, and safetensors with its weights and frozen integers.

The full files have both halves of a codec, the encoder's and the decoder's, and notes; an archive carries only what
decoding depends on. The digest covers exactly that: the canonical JSON of the decoder, and every array of it by name,
dtype, shape and bytes.

Files from elsewhere are hostile until proven otherwise. They are parsed here, once; their digest is compared before
anything in them is believed, and names, shapes and dtypes are compared with the architecture before anything of their
size is allocated.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from lichen.errors import InvalidCodec, UsageError

if TYPE_CHECKING:
    from torch import nn

MAX_JSON_BYTES = 1 << 22
MAX_BYTES = 1 << 29
"""Largest safetensors file that is looked at."""

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bundle:
    """A codec's two files, parsed.

    ``config`` is the JSON object that decoding depends on, ``decoder`` the arrays, without prefix, and ``digest`` that
    of both. ``encoder`` are the arrays of the other half and ``card`` the whole JSON of full files; what an archive
    carries has none and an empty one.
    """

    config: Mapping[str, Any]
    decoder: Arrays
    digest: str
    encoder: Arrays | None = None
    card: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def full(cls, files: Mapping[str, bytes]) -> Bundle:
        """The files of a package, a training run or an import. Raises ``InvalidCodec``."""
        card = parse_card(files)
        config = decoder_card(card)
        arrays = read_arrays(files.get("safetensors", b""))
        decoder = under("decoder.", arrays)
        digest = decoder_digest(config, decoder)
        if card.get("digest") != digest:
            name = str(config.get("name"))[:100]
            raise InvalidCodec(
                f"codec {name}: the digest does not match the weights and the configuration; the files are damaged. "
                "Install lichen again, or fetch or import the codec again."
            )
        return cls(config=config, decoder=decoder, digest=digest, encoder=under("encoder.", arrays), card=card)

    @classmethod
    def carried(cls, config: Mapping[str, Any], files: Mapping[str, bytes]) -> Bundle:
        """What an archive carries, whose JSON is parsed (``parse_card``). Raises ``InvalidCodec``."""
        decoder = read_arrays(files["safetensors"]) if "safetensors" in files else {}
        return cls(config=config, decoder=decoder, digest=decoder_digest(config, decoder))

    def carry(self) -> dict[str, bytes]:
        """What an archive must carry to decode."""
        return {"json": canonical(self.config), "safetensors": pack_arrays(self.decoder)}


def full_files(config: Mapping[str, Any], decoder: Arrays, encoder: Arrays, **more: Any) -> dict[str, bytes]:
    """The full files of a codec, ``{"json": ..., "safetensors": ...}``; ``more`` goes into the JSON."""
    card = {"decoder": dict(config), "digest": decoder_digest(config, decoder), **more}
    arrays = {f"decoder.{name}": array for name, array in decoder.items()}
    return {"json": pretty(card), "safetensors": pack_arrays(arrays | {f"encoder.{n}": a for n, a in encoder.items()})}


# --- JSON -----------------------------------------------------------------------------------------


def parse_card(files: Mapping[str, bytes]) -> dict[str, Any]:
    """The JSON object among the files of a codec. Raises ``InvalidCodec``."""
    data = files.get("json")
    if data is None:
        raise InvalidCodec("a codec needs its JSON file")
    if len(data) > MAX_JSON_BYTES:
        raise InvalidCodec(f"codec JSON of {len(data)} bytes; at most {MAX_JSON_BYTES} are allowed")
    try:
        card = json.loads(data)
    except (ValueError, RecursionError) as error:  # bad UTF-8 and absurd integers are ValueErrors too
        raise InvalidCodec(f"codec JSON does not parse: {error}") from error
    if not isinstance(card, dict):
        raise InvalidCodec("codec JSON is not an object")
    return card


def decoder_card(card: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a full codec's JSON that decoding depends on. Raises ``InvalidCodec``."""
    decoder = card.get("decoder")
    if not isinstance(decoder, dict):
        raise InvalidCodec("the codec JSON has no 'decoder' object")
    return decoder


def check_fields(config: Mapping[str, Any], family: str, versions: tuple[int, ...], names: frozenset[str]) -> None:
    """Raise ``InvalidCodec`` unless the decoder's part has just these fields, for a family and a version of the format.

    Beside ``names`` those are the family, the format, the codec's name and its self-test.
    """
    if set(config) != {"family", "format", "name", "self_test"} | names:
        raise InvalidCodec("the codec JSON does not have the fields of this format")
    if config["family"] != family or not any(is_version(config["format"], v) for v in versions):
        raise InvalidCodec(
            f"codec format {str(config['format'])[:20]} of {str(config['family'])[:40]} is not known here"
        )
    name, test = config["name"], config["self_test"]
    if not isinstance(name, str) or not 0 < len(name) <= 100 or not isinstance(test, str) or len(test) != 32:
        raise InvalidCodec("the codec JSON has a malformed name or self-test")
    if any(c not in "0123456789abcdef" for c in test):
        raise InvalidCodec("the self-test of the codec JSON is not hexadecimal")


def is_version(value: object, version: int) -> bool:
    """Whether a field of a codec's JSON is this version of a format; no ``true`` and no ``1.0`` is."""
    return type(value) is int and value == version


def number_between(value: object, low: float, high: float, what: str, *, whole: bool) -> Any:
    """A constructor argument from a codec's JSON. Raises ``InvalidCodec``."""
    kinds: tuple[type, ...] = (int,) if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:  # type: ignore[operator]
        raise InvalidCodec(f"constructor argument {what} is not between {low} and {high}")
    return value


def canonical(value: Mapping[str, Any]) -> bytes:
    """JSON in its one shortest spelling. Raises ``InvalidCodec`` for what is nested too deeply."""
    try:
        return json.dumps(dict(value), sort_keys=True, separators=(",", ":")).encode()
    except RecursionError as error:
        raise InvalidCodec("codec JSON is nested too deeply") from error


def pretty(value: Mapping[str, Any]) -> bytes:
    """JSON for people."""
    return (json.dumps(value, indent=1) + "\n").encode()


# --- arrays ---------------------------------------------------------------------------------------


def read_arrays(data: bytes) -> Arrays:
    """Tensors of a safetensors file. Raises ``InvalidCodec`` for anything malformed or too large."""
    if len(data) > MAX_BYTES:
        raise InvalidCodec(f"weights of {len(data)} bytes; at most {MAX_BYTES} are allowed")
    try:
        return safetensors.numpy.load(data)
    except (safetensors.SafetensorError, KeyError, ValueError, TypeError, struct.error, OverflowError) as error:
        raise InvalidCodec(f"the weights file is malformed: {error}") from error


def pack_arrays(arrays: Arrays) -> bytes:
    """A safetensors file. It holds the memory as it lies, so only C order is right."""
    return safetensors.numpy.save({name: np.ascontiguousarray(array) for name, array in sorted(arrays.items())})


def under(prefix: str, arrays: Arrays) -> Arrays:
    """The arrays whose names begin with ``prefix``, without it."""
    return {n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)}


def decoder_digest(config: Mapping[str, Any], decoder: Arrays) -> str:
    """The digest of a codec: of the canonical decoder JSON, and of every array's name, dtype, shape and bytes."""
    digest = hashlib.sha256(canonical(config))
    for name, array in sorted(decoder.items()):
        digest.update(f"\0{name}\0{array.dtype.str}\0{list(array.shape)}\0".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def check_runs(network: nn.Module) -> None:
    """Raise ``InvalidCodec`` unless a network, whose weights have been compared with its shapes, takes a picture.

    Constructor arguments that are fine one by one need not go together. Not on the meta device: the first arithmetic
    there makes torch load its compiler, which takes longer than all the rest of loading a codec.
    """
    import torch

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
    import torch

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


# --- files ----------------------------------------------------------------------------------------


def write_codec(folder: Path, name: str, files: Mapping[str, bytes]) -> Path:
    """Write codec files as ``name.json`` and ``name.safetensors``, the JSON last; returns its path.

    Each is there whole or not at all. An older codec of this name is replaced. Raises ``UsageError`` where files of
    these names are something else.
    """
    check_free(folder, name)
    folder.mkdir(parents=True, exist_ok=True)
    for kind in ("safetensors", "json"):
        write_whole(folder / f"{name}.{kind}", files[kind])
    return folder / f"{name}.json"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file of ours, or replace it, so that it is there whole or not at all; no other file is touched."""
    temporary = path.parent / f".{secrets.token_hex(8)}.partial"
    try:
        with temporary.open("xb") as file:
            file.write(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def check_free(folder: Path, name: str) -> None:
    """Raise ``UsageError`` unless a codec of this name can be written there: nothing but a codec is replaced."""
    taken = [path for kind in ("json", "safetensors") if os.path.lexists(path := folder / f"{name}.{kind}")]
    if taken and not _is_codec(folder / f"{name}.json"):
        raise UsageError(f"{taken[0]} is there already, and is no codec; choose another name or another folder")


def _is_codec(path: Path) -> bool:
    try:
        card = parse_card({"json": path.read_bytes()}) if path.is_file() else {}
    except (InvalidCodec, OSError):
        return False
    return isinstance(card.get("decoder"), dict) and isinstance(card.get("digest"), str)
