"""Where and how networks run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from lichen.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Where and how the networks run. ``batch_pixels``: pictures of one size go through together up to this many."""

    device: torch.device
    half: torch.dtype | None
    batch_pixels: int

    def half_precision(self) -> AbstractContextManager[object]:
        """Autocast to ``half``, if there is one."""
        return torch.autocast(self.device.type, self.half) if self.half is not None else nullcontext()


def place(device: str, precision: str) -> Placement:
    """Resolve ``auto``: CUDA where there is one; half precision where the processor has it in hardware."""
    cuda = torch.cuda.is_available()
    kind = torch.device(("cuda" if cuda else "cpu") if device == "auto" else device)
    if kind.type == "cuda" and not cuda:
        raise UsageError("no CUDA device is available here; use device 'cpu' or 'auto'")
    if precision == "auto":
        fast = torch.cuda.is_bf16_supported() if kind.type == "cuda" else cpu_has_bfloat16()
        precision = "bfloat16" if fast else "float32"
    half = None if precision == "float32" else getattr(torch, precision)
    return Placement(device=kind, half=half, batch_pixels=1 << 24 if kind.type == "cuda" else 1 << 19)


def cpu_has_bfloat16() -> bool:
    """Whether the CPU has matrix units for bfloat16. With the instructions of AVX-512 alone it is slower than float32
    (seen on a Xeon, in training and in coding); elsewhere it is emulated and slower still."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))
