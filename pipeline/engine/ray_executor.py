"""Shards in Ray actors: on this machine by default, on a cluster by its address.

Actors are never restarted by Ray: the driver replaces them, so that every attempt at a shard has its own name
and is counted. Only lists of sources go in and summaries come out; pixels never leave a worker.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from lichen.errors import JobError, JobInterrupted, LichenError
from lichen.pipeline.engine.cluster import start_ray
from lichen.pipeline.engine.config import JobConfig
from lichen.pipeline.engine.executor import (
    IN_FLIGHT,
    MAX_FRUITLESS_DEATHS,
    SILENCE,
    Blame,
    Died,
    Event,
    Failed,
    Finished,
)
from lichen.pipeline.engine.guardian import guard_descendants
from lichen.pipeline.engine.messages import CodecFiles, Counts, ShardTask, WorkerConfig
from lichen.pipeline.engine.ray_worker import RayWorker
from lichen.pipeline.engine.resources import plan_resources
from lichen.pipeline.logs import Log, take_over

PATIENCE = 120.0
"""Seconds that a worker may take to start while another one is idle."""

log = Log(__name__)
_LAST = 1.0
_KILL_WAIT = 5.0
_LOOK = 0.5
_NODES = 10.0


@dataclass(slots=True, kw_only=True)
class _Member:
    """An actor and what it has in flight, oldest first."""

    actor: Any
    loading: Any
    """The answer to ``prepare``; None once it came."""
    node: str = ""
    """The node that the actor is on, once that is known."""
    began: float = field(default_factory=time.monotonic)
    tasks: dict[Any, ShardTask] = field(default_factory=dict)
    polling: Any = None
    heard: float = field(default_factory=time.monotonic)
    """When the actor last answered, or was first asked."""
    retiring: bool = False
    """A call that hangs was left behind in it: it gets no more shards."""
    live: dict[str, Counts] = field(default_factory=dict)

    def hear(self, answer: tuple[dict[str, Counts], list[logging.LogRecord]]) -> None:
        """The answer to ``live``."""
        self.live, records = answer
        for record in records:
            take_over(record)

    def has_room(self, solo: bool) -> bool:
        if self.retiring:
            return False
        if solo or any(task.solo for task in self.tasks.values()):
            return not self.tasks
        return len(self.tasks) < IN_FLIGHT


class RayExecutor:
    """Starts actors as there is work for them, up to what the resources allow, and replaces dead ones."""

    def __init__(self, config: JobConfig) -> None:
        if config.engine.address == "local":  # on this machine, as without an address
            config = replace(config, engine=replace(config.engine, address=None))
        self._config, self._looked = config, time.monotonic()
        self._silence = config.sources.picture_timeout + SILENCE
        self._owns_ray = not ray.is_initialized()
        self._restore_stdout = _keep_stdout_clean()
        self._end_guard: Callable[[], None] = lambda: None
        if self._owns_ray:
            start_ray(config.engine.address)
            if config.engine.address is None:
                self._end_guard = guard_descendants()
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        self._resources = plan_resources([node["Resources"] for node in nodes if node["Alive"]], config)
        self.workers = self._resources.workers
        self.deaths = 0
        self._fruitless = 0
        self._struck: dict[str, float] = {}
        """Nodes that lost a worker, and when they did last."""
        self._members: list[_Member] = []
        settings = WorkerConfig.of(config, cpus=self._resources.cpus)
        # Without a GPU of its own a worker must not take one that it happens to see.
        on_cpu = config.codec.device == "auto" and not self._resources.gpus
        self._settings = replace(settings, codec=replace(settings.codec, device="cpu")) if on_cpu else settings
        self._actor_class: Any = ray.remote(RayWorker)

    def prepare(self, stop: threading.Event) -> CodecFiles:
        """Start the first actor; its failures are the job's."""
        member = self._start(tell=True)
        while not ray.wait([member.loading], timeout=_LOOK)[0]:
            if stop.is_set():
                raise JobInterrupted("stopped while the first worker was loading the codec")
        try:
            files: CodecFiles
            files, member.node = ray.get(member.loading)
        except RayTaskError as error:
            raise _cause(error) from error
        except RayError as error:
            raise JobError(f"the first worker died while it loaded the codec: {error}") from error
        member.loading = None
        return files

    def has_room(self, *, solo: bool) -> bool:
        return len(self._members) < self.workers or any(member.has_room(solo) for member in self._members)

    def submit(self, task: ShardTask, digest: str) -> None:
        open_members = [member for member in self._members if member.has_room(task.solo)]
        member = min(open_members, key=lambda member: len(member.tasks), default=None)
        if member is None or (member.tasks and len(self._members) < self.workers):
            member = self._start(tell=False)
        member.tasks[member.actor.run.remote(task, digest)] = task

    def wait(self, timeout: float) -> list[Event]:
        # Loading first: it tells why tasks fail.
        owners = {member.loading: member for member in self._members if member.loading is not None}
        owners |= {ref: member for member in self._members for ref in member.tasks}
        if not owners:
            return []
        ready, _ = ray.wait(list(owners), timeout=timeout)
        events: list[Event] = []
        for ref in ready:
            if owners[ref] in self._members:  # not buried with an earlier answer
                events += self._take(owners[ref], ref)
        events += self._take_back()
        events += self._poll()
        self._retire()
        self._look_at_nodes()
        return events

    def live(self) -> Mapping[str, Counts]:
        known: dict[str, Counts] = {}
        for member in self._members:
            attempts = {task.attempt for task in member.tasks.values()}
            known |= {attempt: counts for attempt, counts in member.live.items() if attempt in attempts}
        return known

    def close(self) -> None:
        self._hear_last()
        for member in self._members:
            ray.kill(member.actor, no_restart=True)
        self._members.clear()
        if self._owns_ray and ray.is_initialized():
            ray.shutdown()
        self._end_guard()
        self._restore_stdout()

    def _hear_last(self) -> None:
        """Take what workers logged and nobody asked for yet; those that do not answer at once are not waited for."""
        if not ray.is_initialized():
            return
        asked = {member.actor.live.remote(): member for member in self._members if member.loading is None}
        ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_LAST) if asked else ([], [])
        for ref in ready:
            with suppress(RayError):
                asked[ref].hear(ray.get(ref))

    def pids(self) -> list[int]:
        """Process ids of the workers, on whichever machine each is."""
        answers: list[int] = ray.get([member.actor.pid.remote() for member in self._members])
        return answers

    # --- internals ---

    def _start(self, *, tell: bool) -> _Member:
        actor: Any = self._actor_class.options(
            num_cpus=self._resources.cpus,
            num_gpus=self._resources.gpus,
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=IN_FLIGHT + 2,
        ).remote(self._settings)
        member = _Member(actor=actor, loading=actor.prepare.remote(tell))
        self._members.append(member)
        return member

    def _take(self, member: _Member, ref: Any) -> list[Event]:
        """One answer of a living actor; the answers of all its attempts, if it turns out to be dead."""
        task = member.tasks.get(ref)
        try:
            answer = ray.get(ref)
        except RayTaskError as error:
            cause = _cause(error)
            if isinstance(cause, JobError):  # of no more use, such as after a fault on its GPU
                return self._bury(member, str(cause), suspect=True)
            if task is None or not isinstance(cause, LichenError):
                raise cause from error
            del member.tasks[ref]
            return [Failed(task=task, error=cause)]
        except RayError as error:
            taken_away = isinstance(error, ActorDiedError) and error.preempted
            return self._bury(member, str(error), suspect=not taken_away)
        if task is None:
            member.loading, member.node = None, answer[1]
            log.info("a worker is ready on node %s", member.node[:12])
            return []
        del member.tasks[ref]
        if answer.hung and not member.retiring:
            log.warning("a call hangs in a worker on node %s; it gets no more shards", member.node[:12])
            member.retiring = True
        self._fruitless = 0
        return [Finished(task=task, result=answer)]

    def _bury(self, member: _Member, message: str, *, suspect: bool) -> list[Event]:
        """Forget an actor that died, cannot be reached or is broken. What it finished before counts."""
        self._members.remove(member)
        ray.kill(member.actor, no_restart=True)
        self.deaths += 1
        log.warning("a worker on node %s died: %s", member.node[:12] or "?", " ".join(message.split())[:400])
        # What dies with its node, and what is taken away, dies of nothing that it did.
        if suspect and member.began > self._struck.get(member.node, 0.0):
            self._fruitless += 1
            if member.node:
                self._struck[member.node] = time.monotonic()
        if self._fruitless > MAX_FRUITLESS_DEATHS:
            raise JobError(f"{self._fruitless} workers died one after the other; the last: {message}")
        events: list[Event] = []
        orphans = []
        for ref, task in member.tasks.items():
            done, _ = ray.wait([ref], timeout=_KILL_WAIT)
            try:
                if done:
                    events.append(Finished(task=task, result=ray.get(ref)))
                    continue
            except RayError:
                pass  # its worker is gone, as was known
            orphans.append(task)
        blame = Blame.NO
        if suspect and member.loading is None:
            blame = Blame.YES if len(orphans) == 1 else Blame.PERHAPS
        line = " ".join(message.split())[:400]
        return events + [Died(task=task, blame=blame, message=line) for task in orphans]

    def _take_back(self) -> list[Event]:
        """Shards of a worker that Ray cannot place (its node is gone, or others have it), once another worker is idle.

        There are fewer workers from then on.
        """
        if not any(member.loading is None and not member.tasks for member in self._members):
            return []
        limit = time.monotonic() - PATIENCE
        late = [m for m in self._members if m.loading is not None and m.tasks and m.began < limit]
        events: list[Event] = []
        for member in late:
            self._members.remove(member)
            ray.kill(member.actor, no_restart=True)
            self.workers -= 1
            log.warning("a worker could not be started within %.0f s; there are %d now", PATIENCE, self.workers)
            message = "it could not be started"
            events += [Died(task=task, blame=Blame.NO, message=message) for task in member.tasks.values()]
        return events

    def _poll(self) -> list[Event]:
        """Take the counters that came in and ask again; never waits. Who does not answer any more counts as dead."""
        events: list[Event] = []
        now = time.monotonic()
        for member in list(self._members):
            if member.loading is not None:
                member.heard = now  # loading has no limit of time; ``_take_back`` looks after it
                continue
            if member.polling is not None:
                done, _ = ray.wait([member.polling], timeout=0)
                if not done:
                    if now - member.heard > self._silence:
                        events += self._bury(member, f"it did not answer for {self._silence:.0f} s", suspect=True)
                    continue
                try:
                    member.hear(ray.get(member.polling))
                except RayError:
                    continue  # its attempts will tell
            member.heard, member.polling = now, member.actor.live.remote()
        return events

    def _look_at_nodes(self) -> None:
        """Raise ``JobError`` if Ray on this machine has lost its only node: whoever waits for it waits for ever."""
        now = time.monotonic()
        if not self._owns_ray or self._config.engine.address is not None or now - self._looked < _NODES:
            return
        self._looked = now
        nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
        if not any(node["Alive"] for node in nodes):
            raise JobError("Ray on this machine has died; the job is not finished, the same command goes on with it")

    def _retire(self) -> None:
        """Let workers go in which a call hangs, once they have nothing in flight; others take their place."""
        for member in [member for member in self._members if member.retiring and not member.tasks]:
            self._members.remove(member)
            ray.kill(member.actor, no_restart=True)


def _keep_stdout_clean() -> Callable[[], None]:
    """Send what Ray's daemons report (dead workers) to standard error; returns what undoes it.

    Ray prints it to standard output whatever ``log_to_driver`` says, and has no public switch.
    """
    from ray._private import worker

    printer = getattr(worker, "print_to_stdstream", None)
    if printer is None:
        return lambda: None
    worker.print_to_stdstream = lambda data, ignore_prefix: printer({**data, "is_err": True}, ignore_prefix)

    def restore() -> None:
        worker.print_to_stdstream = printer

    return restore


def _cause(error: RayTaskError) -> Exception:
    """The worker's own error, without Ray's wrapper."""
    cause = error.cause
    return cause if isinstance(cause, LichenError) else error
