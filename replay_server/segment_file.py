"""The segment of a journal that is being written."""

from __future__ import annotations

import errno
import os

import numpy as np

from replay_server.disk import Disk, Part
from replay_server.errors import JournalError


class SegmentFile:
    """A file that grows by whole writes: one that fails is cut off again, so that what follows is never behind rubbish.

    Attributes:
        handle: to write it back with.
        size: bytes up to the end of the last whole write.
    """

    def __init__(self, disk: Disk, path: str, handle: int, size: int) -> None:
        self._disk = disk
        self._path = path
        self._torn = False
        self.handle = handle
        self.size = size

    @staticmethod
    def create(disk: Disk, path: str, parts: list[Part], *, fsync: bool) -> SegmentFile:
        """A file that has its name only once `parts` are in it, so that a crash leaves nothing or a good beginning.

        Raises OSError; then there is none.
        """
        beside = path + ".new"
        handle = disk.open(beside)
        try:
            disk.truncate(handle, 0)
            size = _write(disk, handle, 0, parts)
            if fsync:
                disk.fsync(handle)
            disk.rename(beside, path)
        except OSError:
            disk.close(handle)
            raise
        return SegmentFile(disk, path, handle, size)

    def append(self, parts: list[Part]) -> None:
        """All of it or nothing.

        Raises:
            OSError: nothing was written.
            JournalError: a failed write cannot be cut off, this one or an earlier one.
        """
        self.mend()
        try:
            self.size += _write(self._disk, self.handle, self.size, parts)
        except OSError:
            self._torn = True
            self.mend()
            raise

    def mend(self) -> None:
        """Cut a failed write off; raises JournalError when that fails too."""
        if not self._torn:
            return
        try:
            self._disk.truncate(self.handle, self.size)
        except OSError as error:
            raise JournalError(
                f"{self._path}: a failed write cannot be cut off: {error.strerror}; inserts are refused until it can"
            ) from None
        self._torn = False

    def close(self) -> None:
        self._disk.close(self.handle)


def _write(disk: Disk, handle: int, offset: int, parts: list[Part]) -> int:
    """All the parts, in one call unless the disk takes them piecemeal; the number of bytes."""
    total = sum(part.nbytes if isinstance(part, np.ndarray) else len(part) for part in parts)
    written = disk.write(handle, offset, parts)
    if written < total:
        rest = b"".join(part.tobytes() if isinstance(part, np.ndarray) else part for part in parts)
        while written < total:
            more = disk.write(handle, offset + written, [rest[written:]])
            if more <= 0:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            written += more
    return total
