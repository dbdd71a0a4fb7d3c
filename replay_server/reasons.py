"""What calls wait for, in words: one text for each reason a shard or a client gives."""

from __future__ import annotations

from replay_server.errors import ReplayTimeout

_TEXTS = {
    "min_size": "shard {} holds fewer records than its min_size",
    "inserts": "the rate limiter of shard {} waits for more inserts",
    "samples": "the rate limiter of shard {} waits for more samples",
    "snapshot": "shard {} takes no inserts until the snapshot being written has made room for them",
    "bytes": "replies under way fill the memory budget of shard {}",
    "disk": "the disk of shard {}'s journal is full, or has not written back yet",
    "reply": "shard {} has not answered yet",
}


def timed_out(reason: str, shard: int) -> ReplayTimeout:
    """The error of a wait for `reason` at a shard that passed its deadline."""
    return ReplayTimeout(_TEXTS.get(reason, "shard {} waits for " + reason).format(shard), reason)


class WaitTimes:
    """Seconds waited so far, by reason."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def add(self, reason: str, seconds: float) -> None:
        if seconds > 0.0:
            self.seconds[reason] = self.seconds.get(reason, 0.0) + seconds
