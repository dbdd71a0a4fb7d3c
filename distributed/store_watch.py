"""Sees when Ray had to restart the weight store, which is empty then, and has it restarted when it is silent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distributed.processes import Processes, Role
from distributed.ray_weights import StoreState
from distributed.runtime import Casualties
from distributed.worker_state import WorkerState
from replay_server.errors import HeadraceError

_EVERY_SECONDS = 1.0
_SILENT_SECONDS = 30.0  # after which it hangs


class StoreWatch:
    """Asks the store now and then for what it holds; never waits.

    Args:
        store: handle of the weight store.
        processes: runs it.
        start_again: ends its process, after which Ray starts another.
        clock: monotonic seconds.
    """

    def __init__(
        self, store: Any, processes: Processes, start_again: Callable[[], None], clock: Callable[[], float]
    ) -> None:
        self._store = store
        self._processes = processes
        self._start_again = start_again
        self._clock = clock
        self._call: Any = None
        self._asked = self._next = clock()
        self._life: str | None = None
        self._restarts = 0
        self._metrics: str | None = None

    def found_empty(self) -> bool:
        """Whether it has come back empty since the last call: the learner has to publish again."""
        if self._call is None:
            if self._clock() >= self._next:
                self._call = self._store.state.remote()
                self._asked = self._clock()
                self._next = self._asked + _EVERY_SECONDS
            return False
        if not self._processes.done(self._call):
            if self._life is not None and self._clock() - self._asked > _SILENT_SECONDS:
                self._start_again()
                self._call = None
            return False
        call, self._call = self._call, None
        try:
            state: StoreState = self._processes.get(call, _EVERY_SECONDS, "the weight store")
        except HeadraceError:
            return False  # it has ended; the next answer is of the next one
        before, self._life, self._metrics = self._life, state.life, state.metrics
        if before == state.life:
            return False
        self._restarts += before is not None
        return state.version == 0

    def workers(self) -> tuple[WorkerState, ...]:
        """How the store is."""
        stage = "begins" if self._life is None else "serves"
        return (
            WorkerState(
                Role.STORE, 0, stage, self._restarts, metrics=() if self._metrics is None else (self._metrics,)
            ),
        )

    def casualties(self) -> Casualties:
        """Restarts so far."""
        return Casualties(self._restarts)
