"""A bound on the bytes of replies that clients have not taken yet."""

from __future__ import annotations

import threading
import time

from replay_server.replay import Waits


class ReplyBudget:
    """Bytes for replies under way. Thread-safe.

    At most `max_waiters` calls wait for room at a time, so that slow readers never take every thread of a server.

    Args:
        limit: bytes in all; a single reply is let through when nothing else is under way, however large.
        max_waiters: calls that wait.
    """

    def __init__(self, limit: int, max_waiters: int) -> None:
        self._limit = limit
        self._max_waiters = max_waiters
        self._room = threading.Condition()
        self._taken = 0
        self._waiting = self._waits = 0
        self._waited_s = 0.0

    @property
    def taken(self) -> int:
        """Bytes under way."""
        return self._taken

    @property
    def waiting(self) -> int:
        """Calls that wait for room now."""
        return self._waiting

    def waits(self) -> Waits:
        """Calls that found no room, ever, and the seconds they waited for it."""
        with self._room:
            return Waits(self._waits, self._waited_s)

    def take(self, size: int, wait_s: float) -> bool:
        """Take `size` bytes as soon as there is room; False when there is none within `wait_s`."""
        with self._room:
            if self._fits(size):
                self._taken += size
                return True
            self._waits += 1
            if self._waiting >= self._max_waiters:
                return False
            begin = time.monotonic()
            deadline = begin + wait_s
            self._waiting += 1
            try:
                while not self._fits(size):
                    remaining = deadline - time.monotonic()
                    if remaining <= 0.0:
                        return False
                    self._room.wait(remaining)
            finally:
                self._waiting -= 1
                self._waited_s += time.monotonic() - begin
            self._taken += size
            return True

    def give_back(self, size: int) -> None:
        with self._room:
            self._taken -= size
            self._room.notify_all()

    def _fits(self, size: int) -> bool:
        return self._taken == 0 or self._taken + size <= self._limit
