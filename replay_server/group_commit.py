"""One fsync for all who wait for one."""

from __future__ import annotations

import threading
import time

from replay_server.disk import Disk
from replay_server.errors import JournalError, ReplayTimeout
from replay_server.segments import DURABLE_AT, pack_durable


class GroupCommit:
    """Writes a journal's active segment back, in a thread of its own, as soon as somebody waits for it.

    A failed fsync is never tried again: the kernel may have dropped the pages and would call the next one a success.
    From then on everything raises JournalError; what was acknowledged before is on disk.

    Args:
        disk: where the segments lie.
        lsn: the last entry that is on disk already.

    Attributes:
        failure: why everything raises from now on, None while all is well.
        syncs, sync_seconds: how often it wrote back so far, and how long that took.
    """

    def __init__(self, disk: Disk, lsn: int) -> None:
        self._disk = disk
        self._handle: int | None = None
        self._syncing = threading.Lock()  # held while the handle is in use
        self._changed = threading.Condition()
        self._written = self._durable = self._wanted = lsn
        self.failure: str | None = None
        self.syncs = 0
        self.sync_seconds = 0.0
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="journal-commit", daemon=True)
        self._thread.start()

    @property
    def durable(self) -> int:
        """lsn of the last entry known to survive a power loss."""
        return self._durable

    def check(self) -> None:
        """Raises JournalError after an fsync has failed."""
        if self.failure is not None:
            raise JournalError(self.failure)

    def follow(self, handle: int | None) -> None:
        """The active segment from now on; everything in it is on disk. The one before may be closed after this."""
        with self._syncing:
            self._handle = handle

    def written(self, lsn: int) -> None:
        """Entries up to `lsn` are in the active segment or durable."""
        self._written = lsn

    def skip(self, lsn: int) -> None:
        """No segment will hold entries up to `lsn`; before there is one."""
        assert self._handle is None
        self._written = self._durable = self._wanted = lsn

    def wait(self, lsn: int, timeout_s: float) -> None:
        """Until `lsn` is durable.

        Raises:
            ReplayTimeout: not within `timeout_s`.
            JournalError: writing back failed, or the journal was closed.
        """
        deadline = time.monotonic() + timeout_s
        with self._changed:
            if lsn > self._wanted:
                self._wanted = lsn
                self._changed.notify_all()
            while self._durable < lsn:
                self.check()
                remaining = deadline - time.monotonic()
                if remaining <= 0.0:
                    raise ReplayTimeout(f"the journal's disk did not write back within {timeout_s:g} s", "disk")
                if self._closing:
                    raise JournalError("the journal was closed before this was written back")
                self._changed.wait(remaining)

    def sync(self) -> None:
        """Write back everything written so far, in the caller's thread; raises JournalError."""
        with self._syncing:
            self.check()
            target = self._written
            if self._handle is None or target == self._durable:
                return
            try:
                begin = time.monotonic()
                self._disk.fsync(self._handle)
                self.syncs += 1
                self.sync_seconds += time.monotonic() - begin
            except OSError as error:
                self.fail(f"the journal's disk failed to write back: {error.strerror}")
                self.check()
            self._note(target)
        with self._changed:
            self._durable = target
            self._changed.notify_all()

    def fail(self, failure: str) -> None:
        """Nothing is certain any more: everything raises JournalError from now on."""
        with self._changed:
            self.failure = failure + "; find out why, then restart this shard"
            self._changed.notify_all()

    def close(self) -> None:
        """Write back what was written; later waits fail."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join()

    def _note(self, lsn: int) -> None:
        """Tell recovery what was acknowledged, so that damage to it is not taken for a write that ended early."""
        assert self._handle is not None
        try:
            self._disk.write(self._handle, DURABLE_AT, [pack_durable(lsn)])
        except OSError:
            return  # the entries themselves are on disk; without the note only damage to the last of them is misread

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._wanted <= self._durable and not self._closing:
                    self._changed.wait()
                closing = self._closing
            try:
                self.sync()
            except JournalError:
                return
            except BaseException as error:  # nobody waits in vain, whatever ended this thread
                self.fail(f"writing the journal back failed: {error!r}")
                return
            if closing:
                return
