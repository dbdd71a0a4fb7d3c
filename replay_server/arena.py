"""Memory of a client that a shard on the same host writes into: a sealed memfd that dies with the processes holding it.

Only this file and `attachments` know that memory is shared; frames in it are the bytes that gRPC would carry.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import secrets
import threading
import weakref
from collections import deque
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

ARENA_BYTES = 1 << 30
"""Addresses, not memory: pages come into being as far as regions have ever reached."""

MEMFD_NAME = "headrace-arena"
NONCE_BYTES = 32
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_PAGE = 4096


class Region(NamedTuple):
    """A part of an arena, leased until nothing refers to `memory` any more: no array, no view of one."""

    offset: int
    memory: NDArray[np.uint8]


class Arena:
    """Regions of one memfd, handed out first-fit from low addresses, so that little memory is ever touched.

    Args:
        size: bytes, a multiple of the page size.

    Raises:
        OSError: this machine has no memfd, or no room for one.
    """

    def __init__(self, size: int = ARENA_BYTES) -> None:
        self.size = size
        self._descriptor = os.memfd_create(MEMFD_NAME, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        self._close = weakref.finalize(self, os.close, self._descriptor)
        os.ftruncate(self._descriptor, size)
        fcntl.fcntl(self._descriptor, fcntl.F_ADD_SEALS, SEALS)
        self._map = mmap.mmap(self._descriptor, size)
        self._nonce = secrets.token_bytes(NONCE_BYTES)
        self._map[:NONCE_BYTES] = self._nonce
        self._touched = _PAGE
        self._free = [(_PAGE, size)]
        self._returned: deque[tuple[int, int]] = deque()  # filled by finalizers, which run anywhere: takes no lock
        self._lock = threading.Lock()

    def ticket(self) -> dict[str, Any]:
        """What a shard needs to open this memory and to be sure that it is this."""
        return {
            "pid": os.getpid(),
            "descriptor": self._descriptor,
            "inode": os.fstat(self._descriptor).st_ino,
            "size": self.size,
            "nonce": self._nonce.hex(),
        }

    def lease(self, size: int) -> Region | None:
        """`size` bytes that nobody else has; None when there is no room."""
        length = -(-size // _PAGE) * _PAGE
        with self._lock:
            self._take_back()
            found = next((i for i, (start, stop) in enumerate(self._free) if stop - start >= length), None)
            if found is None or not self._touch(self._free[found][0] + length):
                return None
            start, stop = self._free[found]
            if stop - start == length:
                del self._free[found]
            else:
                self._free[found] = (start + length, stop)
            memory = np.frombuffer(self._map, np.uint8, size, start)
            weakref.finalize(memory, self._returned.append, (start, start + length)).atexit = False
        return Region(start, memory)

    @property
    def leased(self) -> int:
        """Bytes in regions now."""
        with self._lock:
            self._take_back()
            return self.size - _PAGE - sum(stop - start for start, stop in self._free)

    def close(self) -> None:
        """Close the descriptor; regions still leased stay good."""
        self._close()

    def _touch(self, stop: int) -> bool:
        """Have pages up to `stop`: a write without a page behind it would kill the writer when memory is short."""
        if stop > self._touched:
            try:
                os.posix_fallocate(self._descriptor, self._touched, stop - self._touched)
            except OSError:
                return False
            self._touched = stop
        return True

    def _take_back(self) -> None:
        while self._returned:
            self._free.append(self._returned.popleft())
        self._free.sort()
        merged: list[tuple[int, int]] = []
        for start, stop in self._free:
            if merged and merged[-1][1] == start:
                merged[-1] = (merged[-1][0], stop)
            else:
                merged.append((start, stop))
        self._free = merged
