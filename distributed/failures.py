"""When a worker that failed is tried again, and when no more."""

from __future__ import annotations

from collections.abc import Callable

from replay_server.errors import HeadraceError, Unavailable

PAUSES_S = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Before the first, second, ... restart of a worker that has not worked for long in between."""

HEALTHY_S = 30.0
"""A worker that has worked for so long begins with the first pause again."""

_AWAY_S = 1.0


class Failures:
    """Failures of one worker in a row: it is tried again at once, then after growing pauses, then no more.

    Who cannot reach a shard is not to blame for it: that is tried again every second, for as long as the shard may be
    away.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = clock()
        self._due = 0.0
        self.in_a_row = 0

    def begun(self) -> None:
        """The worker starts now."""
        self._began = self._clock()

    def worked(self) -> None:
        """It has answered."""
        if self._clock() - self._began > HEALTHY_S:
            self.in_a_row = 0

    def failed(self, error: HeadraceError) -> bool:
        """It has failed; False when it is not to be tried again."""
        if isinstance(error, Unavailable):
            self._due = self._clock() + _AWAY_S
            return True
        self.in_a_row += 1
        if self.in_a_row > len(PAUSES_S):
            return False
        self._due = self._clock() + PAUSES_S[self.in_a_row - 1]
        return True

    @property
    def due(self) -> bool:
        """Whether the pause is over."""
        return self._clock() >= self._due
