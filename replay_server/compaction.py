"""Keeps a journal short: when most of it is dead, a snapshot takes its place."""

from __future__ import annotations

import threading
from collections.abc import Callable

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
        report_failed: called once when the journal takes nothing any more.
    """

    def __init__(self, shard: Shard, report_failed: Callable[[], None]) -> None:
        self._shard = shard
        self._report_failed = report_failed
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="replay-compaction", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """A snapshot under way is given up."""
        self._ended.set()
        self._shard.stop_saving()
        self._thread.join()

    def _run(self) -> None:
        pause = _CHECK_S
        while not self._ended.wait(pause):
            pause = _CHECK_S
            if self._shard.failed:
                self._report_failed()
                return
            if not self._shard.journal_is_mostly_dead(_LEAST_BYTES, _DEAD_SHARE):
                continue
            try:
                self._shard.compact()
            except Exception:  # of any kind: the stats of the journal say which, and the next attempt may do better
                pause = _PAUSE_S
