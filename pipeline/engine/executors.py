"""Which executor runs a job. The one module of the engine that knows all of them; they know only their protocol."""

from __future__ import annotations

import glob
import sys

from lichen.choices import ExecutorName
from lichen.errors import JobInterrupted, UsageError
from lichen.pipeline.engine.config import JobConfig
from lichen.pipeline.engine.executor import Executor


def choose(config: JobConfig, *, gpus: int, ray_runs: bool) -> ExecutorName:
    """What ``auto`` means. Pure.

    Ray where it is asked for (an address, several workers, parts of GPUs), where it runs already, and where there is
    more than one GPU to pin workers to. On one machine without that a job has one worker anyway, so a process of its
    own does the same without Ray's start. An archive in memory has to stay in this process.
    """
    if config.engine.executor != "auto":
        return config.engine.executor
    if config.archive.startswith("memory://"):
        return "local"
    engine = config.engine
    asked = engine.address is not None or (engine.workers or 1) > 1 or engine.gpus_per_worker is not None
    several = gpus > 1 and config.codec.device in ("auto", "cuda") and not config.quality.lossless
    return "ray" if asked or ray_runs or several else "process"


def make_executor(config: JobConfig) -> Executor:
    """The executor that a job asks for, or that suits it (``choose``)."""
    ray = sys.modules.get("ray")
    gpus = len(glob.glob("/dev/nvidia[0-9]*"))
    name = choose(config, gpus=gpus, ray_runs=ray is not None and bool(ray.is_initialized()))
    if name != "local" and config.archive.startswith("memory://"):
        raise UsageError("an archive in memory lives in one process; use the local executor")
    if name == "ray":
        from lichen.pipeline.engine.ray_executor import RayExecutor

        try:
            return RayExecutor(config)
        except SystemExit as error:  # while Ray starts, SIGTERM is its own
            raise JobInterrupted("stopped while Ray was starting") from error
    if name == "process":
        from lichen.pipeline.engine.process import ProcessExecutor

        return ProcessExecutor(config)
    from lichen.pipeline.engine.local import LocalExecutor

    return LocalExecutor(config)
