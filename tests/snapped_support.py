"""Small published networks that behave as trained ones: latents and scales of a usual size."""

from __future__ import annotations

from typing import Any

import torch
from learned_support import photograph
from torch import nn

from lichen.models.device import find_device
from lichen.models.registry import load_files
from lichen.models.snapped.codec import SnappedCodec
from lichen.models.snapped.cwam import CWAM
from lichen.models.snapped.network import SteppedNetwork
from lichen.models.snapped.scheme import freeze, new_network

_TINY = {"depths": (1, 1, 1), "expansion": 1, "gated": False}
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "tcm": ("tcm", {"half": 32}),
    "cwam": ("cwam", {"channels": 16}),
    "cwam-serial": ("cwam", {"channels": 16, "context": "serial"}),
    "s2c-hybrid": ("grouped", {"widths": (16, 16, 32), **_TINY}),
    "hscatb": ("grouped", {"blocks": "hscatb", "widths": (16, 32, 32), **_TINY}),
    "factorized": ("compressai", {"kind": "bmshj2018-factorized", "channels": 16, "latent": 24}),
    "mbt2018-mean": ("compressai", {"kind": "mbt2018-mean", "channels": 16, "latent": 24, "anchors": 4}),
}
"""Architecture and constructor arguments."""


def lively(name: str) -> SteppedNetwork:
    """An untrained network whose latents and scales are as large as a trained one's."""
    torch.manual_seed(5)
    system, arguments = SMALL[name]
    network = new_network(system, **arguments).eval()
    x = torch.from_numpy(photograph()[:256, :256].copy()).permute(2, 0, 1)[None].float() / 255
    with torch.no_grad():
        trunk = network.cnn["g_a"] if isinstance(network, CWAM) else network.g_a
        last = [m for m in trunk.modules() if isinstance(m, nn.Conv2d)][-1]
        factor = 2 / network.analyse(x).std()
        for parameter in last.parameters():
            parameter.mul_(factor)
        hyper = [m for m in network.h_a.modules() if isinstance(m, nn.Conv2d)]
        for parameter in hyper[-1].parameters() if hyper else ():
            parameter.mul_(2 / network.h_a(network.analyse(x)).std())
    return network


def snapped_codec(name: str) -> SnappedCodec:
    """The codec of such a network."""
    return load_files(freeze(lively(name), name, {}), find_device("cpu", "float32"))
