"""How the nodes of a Ray cluster are divided into workers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lichen.errors import UsageError
from lichen.pipeline.engine.config import JobConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one actor asks Ray for, and how many actors that makes."""

    workers: int
    cpus: int
    gpus: float


def plan_resources(nodes: list[Mapping[str, float]], config: JobConfig) -> Resources:
    """Divide the nodes (their ``CPU`` and ``GPU``) into workers. Pure.

    Without GPUs a worker takes a node, or with ``workers`` its share of one. With GPUs each takes ``gpus_per_worker``
    and its share of the node's cores, and nodes without GPUs do nothing; nor do nodes without a core. Raises
    ``UsageError`` if no node can hold a worker, or not as many as ``workers`` says fit on this machine; a cluster may
    grow nodes on demand.
    """
    nodes = [node for node in nodes if node.get("CPU", 0) >= 1]
    engine = config.engine
    gpus = engine.gpus_per_worker
    if gpus is None:
        wanted = config.codec.device != "cpu" and not config.quality.lossless
        gpus = 1.0 if wanted and any(node.get("GPU", 0) >= 1 for node in nodes) else 0.0
    share = -(-(engine.workers or 1) // max(1, len(nodes)))
    fits = [int(node.get("GPU", 0) / gpus + 1e-9) if gpus else share for node in nodes]
    cores = [int(node.get("CPU", 0)) // fit for node, fit in zip(nodes, fits, strict=True) if fit]
    cpus = engine.cpus_per_worker or max(1, min(cores, default=1))
    workers = sum(
        min(fit, int(node.get("CPU", 0)) // cpus) if gpus else int(node.get("CPU", 0)) // cpus
        for node, fit in zip(nodes, fits, strict=True)
    )
    if not workers and (engine.workers is None or engine.address is None):
        raise UsageError(f"Ray has no node with {cpus} CPUs and {gpus:g} GPUs, which one worker would take")
    if engine.workers is not None and engine.workers > workers and engine.address is None:
        raise UsageError(f"{engine.workers} workers of {cpus} CPUs and {gpus:g} GPUs do not fit here, but {workers}")
    return Resources(workers=engine.workers or workers, cpus=cpus, gpus=gpus)
