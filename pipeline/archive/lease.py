"""The lease of a driver on its job, or on the whole archive where creates are not atomic.

Numbered generations, each created put-if-absent, each with a heartbeat (section 8 of docs/format.md).
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from lichen.errors import JobInterrupted, LeaseHeld, LeaseLost, StoreError
from lichen.pipeline.archive import layout
from lichen.pipeline.archive.manifest import Fields, dump, load
from lichen.pipeline.archive.store import Store
from lichen.pipeline.logs import Log

log = Log(__name__)
TIME_TO_LIVE = 60.0
SETTLE = 1.0
"""Seconds that a driver waits before it believes a lease on a store without atomic creates."""
WAIT = TIME_TO_LIVE + 5
"""Seconds after which the lease of a holder that died anywhere is free."""
POLL = 0.2


@dataclass(frozen=True, slots=True)
class Generation:
    """The newest lease of a folder, as far as it is known."""

    number: int
    holder: str
    host: str
    pid: int
    expires: float
    """Unix seconds; 0 when released."""

    @property
    def live(self) -> bool:
        """Whether its holder may still be at work: not released, not expired, not a dead local process."""
        if self.expires <= time.time():
            return False
        return self.host != _host() or _process_exists(self.pid)


def current(store: Store, job: str | None) -> Generation | None:
    """The newest generation of a job's lease (of the archive's with None), live or not."""
    folder = layout.lease_folder(job)
    numbers = []
    for entry in store.entries(folder):
        match = re.fullmatch(rf"{folder}/(\d{{8}})\.json", entry.path)
        if match:
            numbers.append(int(match[1]))
    if not numbers:
        return None
    number = max(numbers)
    stated = load(store, _path(folder, number))
    beat = load(store, _path(folder, number, beat=True))
    if stated is None:  # deleted between the listing and now
        return None
    return Generation(
        number=number,
        holder=stated.name("holder", "attempt"),
        host=stated.text("host"),
        pid=stated.integer("pid"),
        expires=_seconds(stated if beat is None else beat),
    )


def is_live(store: Store, job: str | None) -> bool:
    """Whether a driver holds this lease now."""
    generation = current(store, job)
    return generation is not None and generation.live


class Lease:
    """A lease that this process holds. As a context manager it renews itself from a thread until it is left.

    Call ``check`` before and after anything that only the holder may do.
    """

    def __init__(self, store: Store, job: str | None, number: int, holder: str, ttl: float) -> None:
        self.job, self.number, self.holder, self.ttl = job, number, holder, ttl
        self._store = store
        self._folder = layout.lease_folder(job)
        self._where: dict[str, str] = {} if job is None else {"job": job}
        self._expires = 0.0
        self._lost: str | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._beat, name="lichen-lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def renew(self) -> None:
        """Write the heartbeat. Raises ``LeaseLost`` if another driver took over."""
        later = current(self._store, self.job)
        if later is None or (later.number, later.holder) != (self.number, self.holder):
            self._lost = f"another driver took over {self._folder}"
            log.info("lease lost, another driver has it", **self._where)
        self.check(renewing=True)
        expires = time.time() + self.ttl
        data = dump({"holder": self.holder, "expires": expires})
        self._store.put(_path(self._folder, self.number, beat=True), data)
        self._expires = expires

    def check(self, *, renewing: bool = False) -> None:
        """Raise ``LeaseLost`` if the lease is gone or may be."""
        if self._lost is None and not renewing and time.time() >= self._expires:
            self._lost = f"the lease {self._folder} could not be renewed in time"
            log.info("lease lost, it could not be renewed in time", **self._where)
        if self._lost is not None:
            raise LeaseLost(self._lost)

    def release(self) -> None:
        """Give the lease up, so that others can take it at once."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        if self._lost is None:
            self._lost = "the lease was released"
            log.debug("lease released", **self._where)
            data = dump({"holder": self.holder, "expires": 0})
            if self._store.exists(_path(self._folder, self.number)):  # else the archive was deleted meanwhile
                self._store.put(_path(self._folder, self.number, beat=True), data)

    def _beat(self) -> None:
        while not self._stop.wait(self.ttl / 3):
            try:
                self.renew()
            except StoreError as error:  # the next beat may get through; check() knows when it is too late
                log.warning("the lease could not be renewed, trying again: %s", error, **self._where)
            except LeaseLost:
                return


def acquire(
    store: Store,
    job: str | None,
    ttl: float = TIME_TO_LIVE,
    *,
    wait: float = 0.0,
    stop: threading.Event | None = None,
) -> Lease:
    """Take the lease of a job, or of the archive (None). Raises ``LeaseHeld`` while another driver has it.

    With ``wait``, only after that many seconds: for a lease that is held for moments, as that of the archive by a
    driver that finds out what there is to do. ``stop`` ends the waiting with ``JobInterrupted``.
    """
    stop = stop or threading.Event()
    deadline = time.monotonic() + wait
    while True:
        try:
            return _take(store, job, ttl)
        except LeaseHeld:
            left = deadline - time.monotonic()
            if left <= 0:
                raise
        if stop.wait(min(POLL, left)):
            raise JobInterrupted("stopped while another driver of the archive was at work; nothing was done")


def _take(store: Store, job: str | None, ttl: float) -> Lease:
    folder = layout.lease_folder(job)
    present = current(store, job)
    if present is not None and present.live:
        raise LeaseHeld(_held(folder, present))
    number = 0 if present is None else present.number + 1
    lease = Lease(store, job, number, layout.new_attempt(), ttl)
    data = dump(
        {
            "holder": lease.holder,
            "host": _host(),
            "pid": os.getpid(),
            "created": layout.now(),
            "expires": time.time() + ttl,
        }
    )
    if not store.create(_path(folder, number), data):
        winner = current(store, job)
        raise LeaseHeld(_held(folder, winner) if winner else f"another driver takes {folder}")
    if not store.conditional:
        time.sleep(SETTLE)
    try:
        lease.renew()
    except LeaseLost as error:
        raise LeaseHeld(str(error)) from error
    what = "archive" if job is None else "job"
    log.info("lease of the %s taken, generation %d", what, number, **({} if job is None else {"job": job}))
    return lease


def _held(folder: str, generation: Generation) -> str:
    left = max(0.0, generation.expires - time.time())
    return (
        f"a driver on {generation.host} (process {generation.pid}) holds {folder}; "
        f"if it is dead, try again in {left:.0f} s"
    )


def _path(folder: str, number: int, *, beat: bool = False) -> str:
    return f"{folder}/{number:08d}.beat.json" if beat else f"{folder}/{number:08d}.json"


def _seconds(fields: Fields) -> float:
    value = fields.values.get("expires")
    # A beat that makes no sense is no sign of life.
    return float(value) if isinstance(value, int | float) and abs(value) < 1e12 else 0.0


def _host() -> str:
    """This machine and process namespace: where a process id has a meaning."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        space = "?"
    return f"{socket.gethostname()}/{space}"


def _process_exists(pid: int) -> bool:
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
