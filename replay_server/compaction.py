"""Keeps a journal short: when most of it is dead, a snapshot takes its place."""

from __future__ import annotations

import threading

from replay_server.errors import HeadraceError
from replay_server.shard import Shard

_CHECK_S = 1.0
_PAUSE_S = 30.0
"""After a snapshot that failed, for want of space for example."""
_DEAD_SHARE = 0.6
_LEAST_BYTES = 128 << 20
"""Two segments of the largest size: the one being written is never deleted."""


class Compactor:
    """A thread that looks after the journal of one shard, from its start to `stop`.

    A table that only ever overwrites its oldest records needs none of this: its oldest segments die whole and are
    deleted. Records that leave in the middle, by their last draw or lowest priority, leave segments half dead.

    Args:
        shard: recovered.
    """

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._ended = threading.Event()
        self.last_error: str | None = None
        """Why the last attempt failed, None after one that did not."""
        self._thread = threading.Thread(target=self._run, name="replay-compaction", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """A snapshot under way is finished first."""
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        pause = _CHECK_S
        while not self._ended.wait(pause):
            pause = _CHECK_S
            if not self._shard.journal_is_mostly_dead(_LEAST_BYTES, _DEAD_SHARE):
                continue
            try:
                self._shard.compact()
                self.last_error = None
            except HeadraceError as error:
                self.last_error = str(error)
                pause = _PAUSE_S
