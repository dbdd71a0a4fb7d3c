"""Notices that inserting and sampling wait for each other."""

from __future__ import annotations

_STUCK_S = 5.0
_FORGOTTEN_S = 1.5
"""A caller that has not asked again for this long has given up and no longer counts. Callers are answered after at most
half a second and ask again at once."""


class StandStill:
    """Both sides of a shard blocked by its rate limiter, none moving.

    One side waiting is normal. Both at once, for seconds and without a single record going in or out, can only end by
    somebody else's doing: every priority is zero, or a batch is larger than a queue can ever hold.
    """

    def __init__(self) -> None:
        self._since: dict[str, float] = {}
        self._last: dict[str, float] = {}

    def moved(self) -> None:
        """Something changed that may let either side go on."""
        self._since.clear()

    def blocked(self, reason: str, now: float) -> bool:
        """A call is blocked for `reason` at this second; True when both sides have been for too long."""
        if reason not in ("inserts", "samples"):
            return False
        if now - self._last.get(reason, now) > _FORGOTTEN_S:
            self._since.pop(reason, None)
        self._since.setdefault(reason, now)
        self._last[reason] = now
        if len(self._since) < 2 or now - min(self._last.values()) > _FORGOTTEN_S:
            return False
        return now - max(self._since.values()) >= _STUCK_S
