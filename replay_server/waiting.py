"""Calls that wait on a shard's lock until nothing blocks them, bounded in number and time, and what they wait for."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from replay_server.clock import Clock
from replay_server.replay import Waits


@dataclass(eq=False)
class _Waiter:
    """A call that waits, and the reason it last found."""

    reason: str


class WaitingRoom:
    """One side of a shard: its inserts or its samples. Used with the lock held.

    Args:
        lock: of the shard; released while a call waits.
        limit: calls that wait at a time. One more is answered `blocked` at once and has to come back, so that blocked
            callers never take every thread of a server.
        clock: of the waits.

    Attributes:
        elsewhere: calls of this side that wait for something else than the lock; they count towards the limit.
    """

    def __init__(self, lock: threading.Lock, limit: int, clock: Clock) -> None:
        self.changed = threading.Condition(lock)
        self._limit = limit
        self.elsewhere = 0
        self._clock = clock
        self._waiters: list[_Waiter] = []
        self._calls: dict[str, int] = {}
        self._seconds: dict[str, float] = {}

    @property
    def reason(self) -> str | None:
        """What the call that has waited longest waits for."""
        return self._waiters[0].reason if self._waiters else None

    @property
    def full(self) -> bool:
        """Nobody else may wait now."""
        return len(self._waiters) + self.elsewhere >= self._limit

    def waits(self) -> dict[str, Waits]:
        """Calls that had to wait so far, and their seconds, by the reason they found first."""
        return {reason: Waits(calls, self._seconds.get(reason, 0.0)) for reason, calls in self._calls.items()}

    def notify(self) -> None:
        """Something changed: every waiting call looks again."""
        self.changed.notify_all()

    def wait(self, blocked: Callable[[], str | None], wait_s: float) -> str | None:
        """None as soon as nothing blocks, else the reason after `wait_s` seconds or with too many waiting already."""
        reason = blocked()
        if reason is None:
            return None
        first = reason
        self._calls[first] = self._calls.get(first, 0) + 1
        if wait_s <= 0.0 or self.full:
            return reason
        begin = self._clock.now()
        deadline = begin + wait_s
        waiter = _Waiter(reason)
        self._waiters.append(waiter)
        try:
            while (remaining := deadline - self._clock.now()) > 0.0:
                self.changed.wait(remaining)
                reason = blocked()
                if reason is None:
                    return None
                waiter.reason = reason
            return reason
        finally:
            self._waiters.remove(waiter)
            self._seconds[first] = self._seconds.get(first, 0.0) + self._clock.now() - begin
