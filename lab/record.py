"""Measures again what the page of results shows: runs a command and keeps what it wrote, with the machine."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.results import FOLDER, load
from lichen.errors import JobError


def record(name: str, command: Sequence[str], *, machine: str | None = None, folder: Path = FOLDER) -> Path:
    """Run ``command``, which prints JSON, and put its answer into the file ``name`` of ``docs/results``.

    The kind and the notes of the file stay; a new result begins with a file that has these two. Returns the path.
    Raises ``UsageError`` for a name without a file, and ``JobError`` if the command fails or prints something else.
    """
    kept = load(name, folder)
    done = subprocess.run([*command, "--json"], stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603 - as typed
    if done.returncode:
        raise JobError(f"{shlex.join(command)} ended with {done.returncode}; {name} stays as it is")
    try:
        result = json.loads(done.stdout)
    except ValueError as error:
        raise JobError(f"{shlex.join(command)} --json printed no JSON; {name} stays as it is") from error
    content = {
        "kind": kept["kind"],
        "command": shlex.join(command),
        "machine": machine or this_machine(),
        "notes": kept["notes"],
        "result": result,
    }
    path = folder / f"{name}.json"
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def this_machine() -> str:
    """Processor, cores, memory and versions, as the page names machines."""
    import torch

    cores, memory = len(os.sched_getaffinity(0)), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    model = platform.machine()
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    processor = f"{cores} cores of {model} ({torch.backends.cpu.get_cpu_capability()})"
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    return f"{processor}, {memory:.0f} GiB, {accelerator}, {versions}"
