"""Ends a child process with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


class ParentProcess:
    """The process that started this one.

    On Linux the kernel sends SIGTERM when the thread that started this process ends, which covers a parent killed
    outright; everywhere `gone` tells by the parent's id, which covers one that ended before the request was made.
    """

    def __init__(self) -> None:
        self._id = os.getppid()
        if sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)

    def gone(self) -> bool:
        """Whether it has ended (this process then has another parent)."""
        return os.getppid() != self._id
