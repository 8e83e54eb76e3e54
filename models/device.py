"""Where and how networks run. Importing this is cheap: torch is imported when a device is looked for."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lichen.errors import UsageError

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """Where and how the networks run.

    ``half`` is the precision of the transforms where that is less than float32. ``batch_pixels``: pictures of one size
    go through together up to this many.
    """

    on: torch.device
    half: torch.dtype | None
    batch_pixels: int

    @property
    def precision(self) -> str:
        """The precision of the transforms by its name."""
        return str(self.half or "float32").removeprefix("torch.")

    def autocast(self) -> AbstractContextManager[object]:
        """Runs what is inside in half precision, if there is one."""
        import torch

        return torch.autocast(self.on.type, self.half) if self.half is not None else nullcontext()


def check_device(device: str, precision: str) -> None:
    """Raise ``UsageError`` for a device or precision that no codec knows."""
    kind, _, number = device.partition(":")
    if kind not in DEVICES or (number and (kind != "cuda" or not number.isdecimal())):
        raise UsageError(f"unknown device {device!r}; use one of {', '.join(DEVICES)}")
    if precision not in PRECISIONS:
        raise UsageError(f"unknown precision {precision!r}; use one of {', '.join(PRECISIONS)}")


def find_device(device: str, precision: str) -> Device:
    """Resolve ``auto``: CUDA where there is one; half precision where the processor has it in hardware.

    Raises ``UsageError`` for what is unknown or not there.
    """
    import torch

    check_device(device, precision)
    cuda = torch.cuda.is_available()
    kind = torch.device(("cuda" if cuda else "cpu") if device == "auto" else device)
    if kind.type == "cuda" and not cuda:
        raise UsageError("no CUDA device is available here; use device 'cpu' or 'auto'")
    if precision == "auto":
        fast = torch.cuda.is_bf16_supported() if kind.type == "cuda" else _cpu_has_bfloat16()
        precision = "bfloat16" if fast else "float32"
    half = None if precision == "float32" else getattr(torch, precision)
    return Device(on=kind, half=half, batch_pixels=1 << 24 if kind.type == "cuda" else 1 << 19)


def _cpu_has_bfloat16() -> bool:
    """Whether the CPU has matrix units for bfloat16. With the instructions of AVX-512 alone it is slower than float32
    (seen on a Xeon, in training and in coding); elsewhere it is emulated and slower still."""
    import torch

    return bool(torch.cpu.get_capabilities().get("amx_bf16"))
