"""Many callers with blocking code, a clock that jumps from event to event, and never two of them running at once."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from typing import Any

import numpy as np

_STUCK_S = 60.0


class _Aborted(BaseException):
    """Unwinds a task whose schedule has failed elsewhere."""


class _Task:
    """A thread that only runs while it holds the baton."""

    def __init__(self, work: Callable[[], None], done: Callable[[], None]) -> None:
        self.baton = threading.Lock()
        self.baton.acquire()
        self.wakes = 0
        self.ended = False
        self.error: BaseException | None = None
        self._work = work
        self._done = done
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        self.baton.acquire()
        try:
            self._work()
        except _Aborted:
            pass
        except BaseException as error:
            self.error = error
        self.ended = True
        self._done()


class Scheduler:
    """Runs tasks and events in the order of simulated time; ties are broken by the seed. Also the tasks' clock.

    Tasks are threads, but the next one starts only when the last one waits (`sleep`, `wait`): for a seed everything
    happens in one order, always the same.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._events: list[tuple[float, float, int, Callable[[], None]]] = []
        self._number = 0
        self._now = 1000.0
        self._mine = threading.Lock()
        self._mine.acquire()
        self._tasks: list[_Task] = []
        self._running: _Task | None = None
        self._aborting = False

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        """Let others run for so long."""
        self.wait(lambda wake: None, self._now + max(seconds, 0.0))

    def at(self, delay_s: float, event: Callable[[], None]) -> None:
        """Run `event` after `delay_s`, in nobody's task."""
        self._number += 1
        heapq.heappush(self._events, (self._now + delay_s, self._rng.random(), self._number, event))

    def start(self, work: Callable[[], None], delay_s: float = 0.0) -> None:
        """Begin a task."""
        task = _Task(work, self._mine.release)
        self._tasks.append(task)
        self.at(delay_s, lambda: self._resume(task))

    def wait(self, subscribe: Callable[[Callable[[], None]], None], deadline: float) -> None:
        """Stop the running task until the function handed to `subscribe` is called, or the deadline."""
        if self._aborting:
            raise _Aborted
        task = self._running
        assert task is not None, "only a task can wait"
        task.wakes += 1
        turn = task.wakes

        def wake() -> None:
            if not task.ended and task.wakes == turn:
                task.wakes += 1
                self._resume(task)

        self.at(max(deadline - self._now, 0.0), wake)
        subscribe(lambda: self.at(0.0, wake))
        self._mine.release()
        task.baton.acquire()
        if self._aborting:
            raise _Aborted

    def run(self) -> None:
        """Until nothing is left to happen; raises what a task or an event raised."""
        try:
            while self._events:
                self._now, _, _, event = heapq.heappop(self._events)
                event()
            waiting = sum(not task.ended for task in self._tasks)
            assert not waiting, f"{waiting} tasks wait for something that will never happen"
        finally:
            self._aborting = True
            for task in self._tasks:
                if not task.ended:
                    self._switch_to(task)
                task.thread.join(_STUCK_S)

    def _resume(self, task: _Task) -> None:
        self._switch_to(task)
        if task.error is not None:
            raise task.error

    def _switch_to(self, task: _Task) -> None:
        self._running = task
        task.baton.release()
        taken: Any = self._mine.acquire(timeout=_STUCK_S)
        assert taken, "a task blocks in real time: something in it does not use the simulated clock"
        self._running = None
