"""How fast counters have grown lately."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

_SECONDS = 10.0


class RatesWindow:
    """Counters over the last ten seconds or so."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, dict[str, float]]] = deque()

    def add(self, now: float, counters: Mapping[str, float]) -> dict[str, float | None]:
        """What every counter grew by a second; None where this is the first look, 0 for one that went back.

        Args:
            now: monotonic seconds.
            counters: name -> count.
        """
        while len(self._looks) > 1 and now - self._looks[1][0] >= _SECONDS:
            self._looks.popleft()
        self._looks.append((now, dict(counters)))
        then, before = self._looks[0]
        if now <= then:
            return dict.fromkeys(counters, None)
        return {name: max(count - before[name], 0.0) / (now - then) for name, count in counters.items()}
