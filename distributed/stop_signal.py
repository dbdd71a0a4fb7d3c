"""Ctrl-C and SIGTERM: at once where nothing can be lost, as a flag where work is to be brought to an end first."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class StopSignal:
    """While entered, SIGINT and SIGTERM raise KeyboardInterrupt; inside `deferred` the first one sets `requested`."""

    def __init__(self) -> None:
        self.requested = False
        self._deferring = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignal:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """Training and checkpoints: a stop is asked for here and carried out between two steps."""
        self._deferring = True
        try:
            yield
        finally:
            self._deferring = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again = self.requested
        self.requested = True
        if again or not self._deferring:
            raise KeyboardInterrupt
