"""A disk in memory that fills up, writes short, tears what is under way at a crash, and forgets what was not synced."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Crashed(BaseException):
    """The machine or process ended inside a call to the disk."""


@dataclass(eq=False)
class _File:
    """`now` is what the process reads back, `durable` what a power loss leaves."""

    now: bytearray = field(default_factory=bytearray)
    durable: bytes = b""


class SimulatedDisk:
    """Implements `replay_server.disk.Disk` in memory. Not thread-safe beyond what the interpreter gives.

    Args:
        rng: of everything that goes wrong.

    Attributes:
        room: bytes all files may hold together; None for no limit.
        short_writes: probability that a write takes fewer bytes than it was given.
        crash_in: calls that write until `Crashed` is raised in the middle of one; None for never.
        crashed: it was, and from then on nothing is written; until `crash` says what is left.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._names: dict[str, _File] = {}
        self._since_sync: list[dict[str, _File]] = [{}]
        self._handles: dict[int, tuple[str, _File]] = {}
        self._locks: dict[str, int] = {}
        self._next_handle = 3
        self.room: int | None = None
        self.short_writes = 0.0
        self.crash_in: int | None = None
        self.crashed = False

    def crash(self, power: bool) -> None:
        """The process is gone. With `power` so is all that was not synced: any part of a file written since may be
        there, and the names are those of some moment since (a journalling file system keeps their order)."""
        self._handles.clear()
        self._locks.clear()
        self.crash_in, self.crashed = None, False
        if not power:
            return
        self._names = dict(self._since_sync[int(self._rng.integers(len(self._since_sync)))])
        for file in self._names.values():
            file.now = bytearray(self._torn(file))
            file.durable = bytes(file.now)
        self._since_sync = [dict(self._names)]

    @property
    def used(self) -> int:
        return sum(len(file.now) for file in self._names.values())

    def flip(self, name: str, offset: int) -> None:
        """One bit of a file turns over."""
        self._names[name].now[offset] ^= 1 << int(self._rng.integers(8))

    def makedirs(self, directory: str) -> None:
        return

    def list(self, directory: str) -> list[str]:
        inside = directory.rstrip("/") + "/"
        return [name[len(inside) :] for name in self._names if name.startswith(inside)]

    def lock(self, path: str) -> int:
        if path in self._locks:
            raise BlockingIOError(errno.EWOULDBLOCK, os.strerror(errno.EWOULDBLOCK), path)
        handle = self.open(path)
        self._locks[path] = handle
        return handle

    def read(self, path: str) -> bytes:
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return bytes(self._names[path].now)

    def open(self, path: str) -> int:
        if path not in self._names:
            self._names[path] = _File()
            self._named()
        file = self._names[path]
        self._next_handle += 1
        self._handles[self._next_handle] = (path, file)
        return self._next_handle

    def write(self, handle: int, offset: int, parts: Sequence[bytes | NDArray[Any]]) -> int:
        file = self._file(handle)
        data = b"".join(part if isinstance(part, bytes) else part.tobytes() for part in parts)
        size = len(data)
        crashes = self._crashes()
        if crashes or (size > 1 and self._rng.random() < self.short_writes):
            size = int(self._rng.integers(0, size + 1)) if crashes else int(self._rng.integers(1, size))
        if self.room is not None:
            growth = max(offset + size - len(file.now), 0)
            growth = min(growth, max(self.room - self.used, 0))
            size = min(size, max(len(file.now) + growth - offset, 0))
            if size == 0 and data and not crashes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if len(file.now) < offset:
            file.now.extend(bytes(offset - len(file.now)))
        file.now[offset : offset + size] = data[:size]
        if crashes:
            raise Crashed
        return size

    def truncate(self, handle: int, length: int) -> None:
        self._maybe_crash()
        file = self._file(handle)
        del file.now[length:]
        file.now.extend(bytes(length - len(file.now)))

    def fsync(self, handle: int) -> None:
        self._maybe_crash()
        file = self._file(handle)
        file.durable = bytes(file.now)

    def close(self, handle: int) -> None:
        path, _ = self._handles.pop(handle, ("", None))
        if self._locks.get(path) == handle:
            del self._locks[path]

    def rename(self, old: str, new: str) -> None:
        self._maybe_crash()
        self._names[new] = self._names.pop(old)
        self._named()

    def unlink(self, path: str) -> None:
        self._maybe_crash()
        if self._names.pop(path, None) is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        self._named()

    def fsync_dir(self, directory: str) -> None:
        self._maybe_crash()
        self._since_sync = [dict(self._names)]

    def _named(self) -> None:
        self._since_sync.append(dict(self._names))

    def _file(self, handle: int) -> _File:
        if handle not in self._handles:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        return self._handles[handle][1]

    def _torn(self, file: _File) -> bytes:
        """What a power loss leaves: the synced content, and of each later piece the old bytes, zeros or the new."""
        torn = bytearray(file.now)
        page = 512
        for start in range(0, len(torn), page):
            piece = slice(start, start + page)
            synced = file.durable[piece]
            if torn[piece] == synced:
                continue
            old = synced.ljust(len(torn[piece]), b"\0")[: len(torn[piece])]
            same = 0  # bytes that were synced and not written since are never lost
            while same < len(synced) and same < len(old) and torn[start + same] == synced[same]:
                same += 1
            if self._rng.random() < 0.5:
                torn[start + same : start + len(old)] = old[same:]
        if self._rng.random() < 0.5:
            keep = int(self._rng.integers(min(len(file.durable), len(torn)), len(torn) + 1))
            del torn[keep:]
        return bytes(torn)

    def _crashes(self) -> bool:
        if self.crashed:
            raise Crashed
        if self.crash_in is None:
            return False
        self.crash_in -= 1
        self.crashed = self.crash_in < 0
        return self.crashed

    def _maybe_crash(self) -> None:
        if self._crashes():
            raise Crashed
