"""What the journal asks of a file system, small enough that a test can bring its own."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

Part = bytes | NDArray[Any]
"""A piece of a write; arrays are C-contiguous and not copied."""


class Disk(Protocol):
    """Files by path and handle; every method raises OSError.

    What survives the process: everything a call has done when it returned. What survives a power loss: the contents
    of a file up to the last `fsync` of it, and names (made, renamed or removed) up to the last `fsync_dir`.
    """

    def makedirs(self, directory: str) -> None:
        """Make a directory and those above it; one that exists is fine."""

    def list(self, directory: str) -> list[str]:
        """Names of the files in a directory, in any order."""

    def lock(self, path: str) -> int:
        """Make the file when it is missing and keep every other process from locking it until `close` of the handle.

        Raises BlockingIOError at once when another holds it.
        """

    def read(self, path: str) -> bytes:
        """A whole file."""

    def open(self, path: str) -> int:
        """A handle to write a file with; makes an empty one when it is missing, changes nothing in one that exists."""

    def write(self, handle: int, offset: int, parts: Sequence[Part]) -> int:
        """Write `parts` one after the other from `offset` on; returns how many bytes were written, perhaps fewer."""

    def truncate(self, handle: int, length: int) -> None: ...

    def fsync(self, handle: int) -> None: ...

    def close(self, handle: int) -> None: ...

    def rename(self, old: str, new: str) -> None:
        """Replaces `new` when it exists, in one step."""

    def unlink(self, path: str) -> None: ...

    def fsync_dir(self, directory: str) -> None: ...


class OsDisk:
    """The real thing."""

    def makedirs(self, directory: str) -> None:
        os.makedirs(directory, exist_ok=True)

    def list(self, directory: str) -> list[str]:
        return os.listdir(directory)

    def lock(self, path: str) -> int:
        handle = self.open(path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            raise
        return handle

    def read(self, path: str) -> bytes:
        with open(path, "rb") as file:
            return file.read()

    def open(self, path: str) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, handle: int, offset: int, parts: Sequence[Part]) -> int:
        buffers: list[Any] = list(parts)  # arrays are buffers, which their type stubs do not say
        return os.pwritev(handle, buffers, offset)

    def truncate(self, handle: int, length: int) -> None:
        os.ftruncate(handle, length)

    def fsync(self, handle: int) -> None:
        os.fsync(handle)

    def close(self, handle: int) -> None:
        os.close(handle)

    def rename(self, old: str, new: str) -> None:
        os.replace(old, new)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def fsync_dir(self, directory: str) -> None:
        handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
