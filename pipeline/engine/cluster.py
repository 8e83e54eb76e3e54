"""Ray, started on this machine or met at its address."""

from __future__ import annotations

import logging
import os
import socket

import ray

from lichen.errors import UsageError

_OBJECT_STORE = 128 * 1024 * 1024
"""Enough for lists of sources; the default would take a third of the memory."""

_ANSWER = 10.0
"""Seconds in which a cluster accepts a connection. Ray itself would try a wrong address for a quarter of an hour."""


def start_ray(address: str | None) -> None:
    """Start Ray on this machine without noise and without a dashboard, or connect to a cluster.

    Raises ``UsageError`` where there is no cluster.
    """
    if address is not None:
        _check_answers(os.environ.get("RAY_ADDRESS", address) if address == "auto" else address)
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UsageError(_no_cluster(address, error)) from error
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(
        address="local",
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=_OBJECT_STORE,
    )


def _check_answers(address: str) -> None:
    """Raise ``UsageError`` if nobody listens where an address of host and port leads; others are Ray's to judge."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise UsageError(_no_cluster(address, error)) from error


def _no_cluster(address: str, error: Exception) -> str:
    reason = str(error).rstrip(".")
    return (
        f"there is no Ray cluster at {address}: {reason}. Give the address that `ray start --head` told, or leave out "
        "--address to work on this machine"
    )
