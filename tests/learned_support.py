"""A small learned codec with the starting values of training: every code path of the shipped one, in a second."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

from lichen.models.decoupled.initialise import initialise
from lichen.models.decoupled.network import CodecNetwork, NetworkConfig

SAMPLES = Path(__file__).parent / "data" / "samples"
KODAK = Path(__file__).parent / "data" / "kodak"
SMALL = NetworkConfig(luma=40, chroma=12, width=24, depth=1, hyper=16, hidden=16, features=16, context=24, anchors=4)


def photograph(index: int = 0) -> np.ndarray:
    """One of the sample photographs as ``(H, W, 3)`` uint8."""
    path = sorted(SAMPLES.glob("*.jpg"))[index]
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def kodak(index: int = 0) -> np.ndarray:
    """One of the four Kodak pictures as ``(H, W, 3)`` uint8."""
    with Image.open(sorted(KODAK.glob("*.png"))[index]) as image:
        return np.asarray(image.convert("RGB"))


def new_network(config: NetworkConfig = SMALL, seed: int = 3) -> CodecNetwork:
    torch.manual_seed(seed)
    network = CodecNetwork(config)
    picture = photograph()
    crops = [picture[y : y + 128, x : x + 128] for y in range(0, 256, 64) for x in range(0, 256, 64)]
    patches = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
    initialise(network, patches)
    return network


def damaged(weights: bytes, data: st.DataObject, *, header: int) -> bytes:
    """A safetensors file with a bit of its first ``header`` bytes flipped, cut, grown, or with another length."""
    changed = bytearray(weights)
    how = data.draw(st.sampled_from(["flip", "cut", "grow", "length"]))
    if how == "flip":  # names, shapes, dtypes, offsets
        changed[data.draw(st.integers(0, header))] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "cut":
        del changed[data.draw(st.integers(0, len(changed) - 1)) :]
    elif how == "grow":
        changed += b"\0" * data.draw(st.integers(1, 100))
    else:
        changed[:8] = data.draw(st.integers(0, 2**63)).to_bytes(8, "little")
    return bytes(changed)


def altered(arrays: dict[str, np.ndarray], data: st.DataObject) -> dict[str, np.ndarray]:
    """Arrays of a codec's file with one of them missing, of another dtype, cut, full of huge values, or flat; or one
    too many."""
    arrays = dict(arrays)
    name = data.draw(st.sampled_from(sorted(arrays)))
    what = data.draw(st.sampled_from(["missing", "more", "dtype", "cut", "huge", "flat"]))
    array = np.array(arrays[name])
    if what == "missing":
        del arrays[name]
    elif what == "more":
        arrays["other"] = array
    elif what == "dtype":
        arrays[name] = array.astype(np.float32)
    elif what == "cut":
        arrays[name] = array[: data.draw(st.integers(0, len(array) - 1))]
    elif what == "huge":
        arrays[name] = np.full_like(array, np.iinfo(array.dtype).max)
    else:
        arrays[name] = array.reshape(1, -1)
    return arrays
