"""How long a worker may be without a shard."""

from __future__ import annotations

from collections.abc import Callable

from replay_server.errors import Unavailable


class CutOff:
    """Ends a run whose worker has had no shard in its reach for too long.

    Args:
        seconds: how long that is.
        clock: monotonic seconds.
    """

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._since: float | None = None

    def reached(self) -> None:
        """A shard has answered."""
        self._since = None

    def missed(self, who: str) -> None:
        """None did.

        Args:
            who: could not reach which.

        Raises:
            Unavailable: for too long.
        """
        now = self._clock()
        self._since = now if self._since is None else self._since
        if now - self._since > self._seconds:
            raise Unavailable(f"{who} for {self._seconds:.0f} s (replay.unreachable_seconds)")
