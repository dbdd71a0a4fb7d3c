"""Counts the calls a server answers: plain numbers, read when somebody asks."""

from __future__ import annotations

import threading
from bisect import bisect_left

from replay_server.replay import Calls

LATENCY_BOUNDS = (
    0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0,
)  # fmt: skip
"""Upper ends, in seconds, of the classes of `Calls.latency`; one more class takes what is above."""


class _Method:
    """One method's numbers."""

    __slots__ = ("bytes_in", "bytes_out", "count", "latency", "seconds")

    def __init__(self) -> None:
        self.count = self.bytes_in = self.bytes_out = 0
        self.seconds = 0.0
        self.latency = [0] * (len(LATENCY_BOUNDS) + 1)


class CallMeter:
    """Thread-safe.

    Args:
        methods: names of what can be called.
    """

    def __init__(self, methods: tuple[str, ...]) -> None:
        self._lock = threading.Lock()
        self._methods = {name: _Method() for name in methods}
        self._refusals: dict[str, int] = {}

    def answered(self, name: str, seconds: float, bytes_in: int, bytes_out: int) -> None:
        """A call was answered, be it with `blocked`."""
        method = self._methods[name]
        with self._lock:
            method.count += 1
            method.seconds += seconds
            method.bytes_in += bytes_in
            method.bytes_out += bytes_out
            method.latency[bisect_left(LATENCY_BOUNDS, seconds)] += 1

    def refused(self, error: str) -> None:
        """A call was answered with an error, by the name of its class."""
        with self._lock:
            self._refusals[error] = self._refusals.get(error, 0) + 1

    def calls(self) -> dict[str, Calls]:
        """By method, since the start; methods never called are left out."""
        with self._lock:
            return {
                name: Calls(m.count, m.seconds, m.bytes_in, m.bytes_out, tuple(m.latency))
                for name, m in self._methods.items()
                if m.count
            }

    def refusals(self) -> dict[str, int]:
        """Calls answered with an error, by its name, since the start."""
        with self._lock:
            return dict(self._refusals)
