"""Secrets under a path, for interfaces that take files."""

from __future__ import annotations

import os
from pathlib import Path


class PrivateFile:
    """Bytes in memory that this process and the children it hands the descriptor to read under `path`.

    It lies on no disk, nobody but this user may open it, and it is gone with the processes that hold it, however they
    end.

    Args:
        name: shown by the operating system beside the descriptor.
        content: the bytes.
    """

    def __init__(self, name: str, content: bytes) -> None:
        self.descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
        os.fchmod(self.descriptor, 0o600)
        with os.fdopen(os.dup(self.descriptor), "wb") as file:
            file.write(content)

    @property
    def path(self) -> Path:
        """Where this process, and a child that was given the descriptor, reads it."""
        return Path(f"/proc/self/fd/{self.descriptor}")

    def close(self) -> None:
        """Let go of it here."""
        os.close(self.descriptor)
