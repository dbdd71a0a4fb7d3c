"""The place of one worker in a run, whichever process fills it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from distributed.event_log import EventLog
from distributed.failures import Failures
from distributed.identity import Identity
from distributed.processes import FETCH_SECONDS, Processes
from distributed.worker_state import WorkerState
from replay_server.errors import HeadraceError, WorkerDied

_LATE_SHARE = 0.5  # of the time an answer may take, after which it is worth a line


class Seat:
    """A worker with at most one call in flight; a process that dies, is late or raises is taken off it.

    The loop it lives in::

        if seat.vacant:
            if seat.due:
                seat.fill(Worker)
                seat.issue(seat.handle.work.remote(), 60.0)
        else:
            try:
                if seat.answered():
                    seat.answer()
                    seat.issue(seat.handle.work.remote(), 60.0)
            except HeadraceError as error:
                seat.vacate(error)

    Args:
        name: for messages, as in `rollout actor 3`.
        identity: of the worker.
        processes: runs the workers.
        log: the driver's: told of every start, failure and late answer.
        clock: monotonic seconds.
    """

    def __init__(
        self, name: str, identity: Identity, processes: Processes, log: EventLog, clock: Callable[[], float]
    ) -> None:
        self.name = name
        self.identity = identity
        self.handle: Any = None
        self.call: Any = None
        self.restarts = 0
        self.error: str | None = None
        self.log = log
        self._processes = processes
        self._clock = clock
        self._failures = Failures(clock)
        self._issued = 0.0
        self._late = False
        self._metrics: tuple[str, ...] = ()
        self._asked: Any = None  # where the process serves metrics
        self._seconds: float | None = None

    @property
    def vacant(self) -> bool:
        """Nobody works here until `fill`."""
        return self.call is None

    @property
    def due(self) -> bool:
        """Whether a vacant seat may be filled again."""
        return self._failures.due

    @property
    def failures(self) -> int:
        """In a row."""
        return self._failures.in_a_row

    @property
    def silent(self) -> float:
        """Seconds since the call in flight was made; 0 without one."""
        return 0.0 if self.call is None else self._clock() - self._issued

    def state(self, stage: str, address: str | None = None) -> WorkerState:
        """How it is, with the stage of a worker that is there."""
        stage = "restarts" if self.vacant else stage
        role, index = self.identity.role, self.identity.index
        metrics = () if self.handle is None else self._metrics_addresses()
        return WorkerState(role, index, stage, self.restarts, self.silent, address, self.error, metrics)

    def fill(self, cls: type) -> None:
        """Start a process, unless the one before was kept."""
        self._failures.begun()
        if self.handle is None:
            self.handle = self._processes.spawn(cls, self.identity.role, self.identity)
            self.log.info("process asked for", of=self.identity.name, restarts=self.restarts)
            self._metrics = ()
            wanted = self.identity.prometheus
            self._asked = self._processes.ask(self.handle, "metrics_address") if wanted else None

    def issue(self, call: Any, seconds: float | None) -> None:
        """The worker has this to do, within so many seconds; None: however long it takes."""
        self.call, self._seconds, self._issued, self._late = call, seconds, self._clock(), False

    def answered(self) -> bool:
        """Whether the call has ended.

        Raises:
            WorkerDied: it is late.
        """
        if self._processes.done(self.call):
            return True
        if self._seconds is None:
            return False
        waited = self._clock() - self._issued
        if not self._late and waited > _LATE_SHARE * self._seconds:
            self._late = True
            self.log.warning("slow", of=self.identity.name, waited_seconds=waited, allowed_seconds=self._seconds)
        if waited > self._seconds:
            raise WorkerDied(f"{self.name} has not answered for {self._seconds:.0f} s")
        return False

    def answer(self) -> Any:
        """What the ended call returned; raises what it raised, and WorkerDied for a process that is gone."""
        value = self._processes.get(self.call, FETCH_SECONDS, self.name)
        self._failures.worked()
        return value

    def vacate(self, error: HeadraceError, *, keep_process: bool = False) -> None:
        """Note a failure, end the process (or keep it, where only what it looks after failed) and begin a pause.

        Raises:
            WorkerDied: it has failed too often in a row.
        """
        self.call, self.error = None, str(error)
        if not keep_process:
            self.stop()
        again = self._failures.failed(error)
        self.log.error("failed", error, of=self.identity.name, in_a_row=self.failures, tried_again=again)
        if not again:
            self.stop()
            raise WorkerDied(
                f"{self.name} failed {self.failures} times in a row, last with: {error} (log: {self.log})"
            ) from error
        self.restarts += 1

    def _metrics_addresses(self) -> tuple[str, ...]:
        """Where the process, or those of a learner, serve metrics, once they have told."""
        if self._asked is not None and self._processes.done(self._asked):
            call, self._asked = self._asked, None
            with suppress(HeadraceError):  # it has ended, which the call in flight tells too
                told = self._processes.get(call, FETCH_SECONDS, self.name)
                answers = told if isinstance(told, list) else [told]
                self._metrics = tuple(address for address in answers if address is not None)
        return self._metrics

    def stop(self) -> None:
        """End the process."""
        if self.handle is not None:
            self._processes.kill(self.handle)
        self.handle = self.call = None
