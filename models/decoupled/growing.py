"""A deeper network that starts as a shallower one: what was trained goes on, and new blocks begin as identities.

After Chen, Goodfellow and Shlens: Net2Net, ICLR 2016. A block adds to what passes by, so with the weights of its last
layers at zero it changes nothing until it has learnt something.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from lichen.errors import UsageError
from lichen.models.decoupled.network import CodecNetwork, NetworkConfig


@torch.no_grad()
def grow(network: nn.Module, config: object) -> CodecNetwork:
    """A network of ``config`` that computes exactly what ``network`` does.

    The two may differ in their number of blocks, and in the kind of those that are new: the first blocks have to be
    of the same kind in both. Raises ``UsageError`` for anything else.
    """
    if not isinstance(network, CodecNetwork) or not isinstance(config, NetworkConfig):
        raise UsageError("only codecs with the decoupled entropy model can grow")
    small = network.config
    if config.depth < small.depth or replace(config, depth=small.depth, blocks=small.blocks) != small:
        raise UsageError("a codec grows by blocks only: more of them, and everything else as it was")
    grown = CodecNetwork(config)
    state = network.state_dict()
    for pixels in (grown.g_a.network, grown.g_s.network):
        for block in pixels.blocks[small.depth :]:
            layers = getattr(block, "last_layers", tuple)
            if not layers():
                raise UsageError(f"blocks of {config.blocks} cannot begin as identities")
            for layer in layers():
                for parameter in layer.parameters():
                    parameter.zero_()
    new = {name: value for name, value in grown.state_dict().items() if _is_new(name, small.depth)}
    try:
        grown.load_state_dict(state | new)
    except RuntimeError as error:
        raise UsageError(
            f"the first {small.depth} blocks of {config.blocks} are not those of {small.blocks}"
        ) from error
    return grown


def _is_new(name: str, depth: int) -> bool:
    """Whether a tensor belongs to a block beyond the first ``depth`` of a trunk."""
    _, found, rest = name.partition(".network.blocks.")
    return bool(found) and int(rest.partition(".")[0]) >= depth
