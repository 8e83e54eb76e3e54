"""Checkpoints of the published codecs, as their authors' code saves them, to networks of ours.

Everything is read from the tensors: sizes from their shapes. Nothing but tensors is unpickled. What the training code
keeps beside the weights (tables, bounds, masks, position indexes, modules that it never calls) is left out;
every weight must then fit, strictly.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lichen.errors import InvalidCodec, UnknownCodec, UsageError
from lichen.models.snapped.cwam import CWAM, CWAMConfig
from lichen.models.snapped.hyperpriors import KINDS, HyperpriorConfig, hyperprior
from lichen.models.snapped.network import SteppedNetwork
from lichen.models.snapped.tcm import TCM, TCMConfig

State = dict[str, Tensor]

_OLD_NAMES = {"_matrix": "matrices.", "_bias": "biases.", "_factor": "factors."}
_DERIVED = re.compile(
    r"(^|\.)(_offset|_quantized_cdf|_cdf_length|target|scale_table|scale_bound|attn_mask|relative_position_index"
    r"|pedestal|(likelihood_)?lower_bound(_scale)?\.bound)$"
)


def read_checkpoint(path: Path) -> State:
    """The tensors of a PyTorch checkpoint, without the prefix that parallel training adds.

    Raises ``UnknownCodec`` if there is none, and ``InvalidCodec`` if the file holds something else than tensors.
    """
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UnknownCodec(f"the checkpoint {path} cannot be read: {error}") from error
    except (pickle.UnpicklingError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise InvalidCodec(f"{path} is not a PyTorch checkpoint of plain tensors: {error}") from error
    for key in ("state_dict", "model_state_dict", "network", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not any(isinstance(value, Tensor) for value in loaded.values()):
        raise InvalidCodec(f"{path} holds no weights")
    return {str(k).removeprefix("module."): v for k, v in loaded.items() if isinstance(v, Tensor)}


def import_checkpoint(system: str, state: State, *, weight: float | None = None) -> SteppedNetwork:
    """A network of one of ``SYSTEMS`` with the weights of a checkpoint; ``weight`` is the lambda it was trained for.

    Raises ``UsageError`` for an unknown system, and ``InvalidCodec`` unless all weights fit.
    """
    make = SYSTEMS.get(system)
    if make is None:
        raise UsageError(f"no published system {system!r}; there are {', '.join(SYSTEMS)}")
    weights = {_new_name(name): tensor for name, tensor in state.items() if not _DERIVED.search(name)}
    try:
        network, weights = make(weights, {} if weight is None else {"weight": weight})
    except KeyError as error:
        raise InvalidCodec(f"no checkpoint of {system}: {error} is missing") from error
    own = network.state_dict()
    kept = {name for name in own if name.endswith("context_prediction.mask")}
    weights = {name: tensor for name, tensor in weights.items() if name not in kept}
    if odd := sorted(set(weights) ^ (set(own) - kept)):
        where = "missing from" if odd[0] in own else "too many in"
        raise InvalidCodec(f"no checkpoint of {system}: {odd[0]} is {where} it ({len(odd)} names differ)")
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape:
            raise InvalidCodec(
                f"no checkpoint of {system}: {name} is {list(tensor.shape)}, expected {list(own[name].shape)}"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise InvalidCodec(f"weight {name} holds values that are not finite")
    network.load_state_dict(weights | {name: own[name] for name in kept})
    return network.eval()


Maker = Callable[[State, Mapping[str, Any]], tuple[SteppedNetwork, State]]


def _tcm(state: State, more: Mapping[str, Any]) -> tuple[SteppedNetwork, State]:
    return TCM(TCMConfig(half=len(state["g_a.1.trans_block.ln1.weight"]), **more)), state


def _cwam(state: State, more: Mapping[str, Any]) -> tuple[SteppedNetwork, State]:
    network = CWAM(CWAMConfig(channels=len(state["cnn.g_a.0.weight"]), context="serial", **more))
    state = {name: tensor for name, tensor in state.items() if not name.startswith("enh1.")}  # never called
    # the names inside of the enhancement blocks are matched by their order
    prefix = "enh."
    own = [name for name in network.state_dict() if name.startswith(prefix)]
    given = [name for name in state if name.startswith(prefix)]
    renamed = dict(zip(given, own, strict=False)) if len(own) == len(given) else {}
    return network, {renamed.get(name, name): tensor for name, tensor in state.items()}


def _compressai(kind: str) -> Maker:
    def make(state: State, more: Mapping[str, Any]) -> tuple[SteppedNetwork, State]:
        channels = state["g_a.0.weight" if "factorized" in kind else "entropy_bottleneck.quantiles"].shape[0]
        latent = channels if kind.startswith("cheng") else state["g_s.0.weight"].shape[0]
        return hyperprior(HyperpriorConfig(kind=kind, channels=channels, latent=latent, **more)), state

    return make


SYSTEMS: dict[str, Maker] = {
    "tcm": _tcm,
    "cwam": _cwam,
    **{f"compressai/{kind}": _compressai(kind) for kind in KINDS},
}


def _new_name(name: str) -> str:
    """Entropy bottlenecks have had other names."""
    head, dot, last = name.rpartition(".")
    for old, new in _OLD_NAMES.items():
        number = last.removeprefix(old)
        if number != last and number.isdigit():
            return f"{head}{dot}{new}{number}"
    return name
