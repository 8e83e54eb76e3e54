"""Does what one configuration encodes decode to the same symbols under every other?

Each configuration runs in a process of its own: threads, batch size, memory layout, oneDNN, precision, the kernels
of another CPU, and relative noise on every floating-point tensor of the entropy path. All of them encode the same
pictures and decode what all others encoded; symbols are compared by digest, pixels sample by sample.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lichen.errors import LichenError

OTHER_CPU = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "OMP_NUM_THREADS": "1",
}
"""Environment that makes the libraries use the kernels of a much older CPU, which give measurably other floats."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Configuration:
    """One way to run the codec."""

    name: str
    threads: int = 1
    batch: int = 1
    channels_last: bool = True
    onednn: bool = True
    precision: str = "float32"
    noise: float = 0.0
    device: str = "cpu"
    environment: dict[str, str] = field(default_factory=dict)


CONFIGURATIONS = (
    Configuration(name="reference"),
    Configuration(name="2 threads", threads=2),
    Configuration(name="batches of 7", batch=7),
    Configuration(name="contiguous", channels_last=False),
    Configuration(name="no oneDNN", onednn=False),
    Configuration(name="bfloat16", precision="bfloat16"),
    Configuration(name="other CPU", environment=OTHER_CPU),
    Configuration(name="noise 1e-4", noise=1e-4),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """What one configuration made of the bitstreams of another, over all pictures.

    ``apart``: share of samples that differ by more than one grey level from the encoder's own reconstruction;
    ``psnr_change``: largest change of a picture's PSNR against the source, in dB.
    """

    encoder: str
    decoder: str
    pictures: int
    differing: int
    apart: float
    psnr_change: float


def run(
    codec: str,
    pictures: Sequence[Path],
    *,
    quality: float = 50.0,
    configurations: Sequence[Configuration] = CONFIGURATIONS,
    workers: int | None = None,
) -> list[Pair]:
    """Every pair of configurations on ``pictures`` (files that Pillow opens), ``workers`` processes at a time.

    One for each core by default.
    """
    with TemporaryDirectory() as name, ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        folder = Path(name)
        for mode in ("encode", "decode"):
            tasks = [
                pool.submit(_child, mode, folder, number, configuration, codec, pictures, quality)
                for number, configuration in enumerate(configurations)
            ]
            for task in tasks:
                task.result()
        return [
            _compare(folder, configurations, encoder, decoder, pictures)
            for encoder in range(len(configurations))
            for decoder in range(len(configurations))
        ]


def _child(
    mode: str, folder: Path, number: int, configuration: Configuration, codec: str, pictures: Sequence[Path], q: float
) -> None:
    task = {
        "mode": mode,
        "folder": str(folder),
        "number": number,
        "configuration": asdict(configuration),
        "codec": codec,
        "pictures": [str(p) for p in pictures],
        "quality": q,
    }
    environment = os.environ | configuration.environment
    code = "from lichen.jobs.bench.portability import child; child()"
    done = subprocess.run(  # noqa: S603 - our own code in our own interpreter
        [sys.executable, "-c", code],
        input=json.dumps(task),
        text=True,
        capture_output=True,
        env=environment,
        check=False,
    )
    if done.returncode != 0:
        raise LichenError(f"{mode} under {configuration.name!r} failed:\n{done.stderr[-2000:]}")


def child() -> None:
    """One configuration's process: reads its task from standard input."""
    task = json.load(sys.stdin)
    configuration = Configuration(**task["configuration"])
    folder, number = Path(task["folder"]), task["number"]
    codec = _configured(configuration, task["codec"])
    if task["mode"] == "encode":
        images = [load_rgb(Path(p)) for p in task["pictures"]]
        encoded = [e for chunk in _chunks(images, configuration.batch) for e in codec.encode(chunk, task["quality"])]
        for i, result in enumerate(encoded):
            (folder / f"{number}-{i}.bin").write_bytes(result.bitstream)
        (folder / f"{number}.json").write_text(json.dumps([e.symbols.hex() for e in encoded]))
        return
    for source in sorted(int(p.stem) for p in folder.glob("*.json")):
        data = [(folder / f"{source}-{i}.bin").read_bytes() for i in range(len(task["pictures"]))]
        decoded = [d for chunk in _chunks(data, configuration.batch) for d in codec.decode(chunk)]
        np.savez(
            folder / f"{source}-by-{number}.npz",
            symbols=np.array([d.symbols.hex() for d in decoded]),
            **{f"pixels{i}": d.pixels for i, d in enumerate(decoded)},
        )


def load_rgb(path: Path) -> NDArray[np.uint8]:
    """The ``(H, W, 3)`` pixels of a picture file."""
    from lichen.pipeline.images import read_picture

    return read_picture(path.read_bytes(), name=path.name).pixels


def _configured(configuration: Configuration, name: str) -> Any:
    import torch

    from lichen.models.registry import load_codec

    torch.set_num_threads(configuration.threads)
    torch.backends.mkldnn.set_flags(configuration.onednn)  # type: ignore[no-untyped-call]
    if not configuration.channels_last:
        from lichen.models.blocks import conv
        from lichen.models.decoupled import transforms

        for module in (conv, transforms):
            vars(module)["unshuffle"] = torch.nn.functional.pixel_unshuffle
    codec: Any = load_codec(name, device=configuration.device, precision=configuration.precision)
    if configuration.noise:
        _disturb(codec, configuration.noise)
    return codec


def _disturb(codec: Any, level: float) -> None:
    """Multiply the output of every floating-point layer of the entropy path by ``1 + level * normal noise``."""
    import torch

    generator = torch.Generator().manual_seed(7)

    def noisy(_module: Any, _inputs: Any, output: Any) -> Any:
        return output * (1 + level * torch.randn(output.shape, generator=generator).to(output))

    level *= codec.network.noise
    for module in (module for part in codec.network.entropy_modules() for module in part.modules()):
        if not list(module.children()):
            module.register_forward_hook(noisy)


def _chunks(items: list[Any], size: int) -> list[list[Any]]:
    return [items[i : i + size] for i in range(0, len(items), size)]


def _compare(
    folder: Path, configurations: Sequence[Configuration], encoder: int, decoder: int, pictures: Sequence[Path]
) -> Pair:
    wanted = json.loads((folder / f"{encoder}.json").read_text())
    differing, apart, samples, change = 0, 0, 0, 0.0
    with np.load(folder / f"{encoder}-by-{encoder}.npz") as own, np.load(folder / f"{encoder}-by-{decoder}.npz") as got:
        for i, path in enumerate(pictures):
            differing += int(got["symbols"][i] != wanted[i])
            a, b, source = own[f"pixels{i}"].astype(np.int16), got[f"pixels{i}"].astype(np.int16), load_rgb(path)
            apart += int((np.abs(a - b) > 1).sum())
            samples += a.size
            change = max(change, abs(_psnr(a, source) - _psnr(b, source)))
    names = configurations[encoder].name, configurations[decoder].name
    return Pair(
        encoder=names[0],
        decoder=names[1],
        pictures=len(pictures),
        differing=differing,
        apart=apart / samples,
        psnr_change=change,
    )


def _psnr(a: NDArray[np.int16], b: NDArray[np.uint8]) -> float:
    error = float(np.mean(np.square(a.astype(np.float64) - b)))
    return float(10 * np.log10(255**2 / max(error, 1e-12)))
