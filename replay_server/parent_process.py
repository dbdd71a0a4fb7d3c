"""Ends a child process with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

_PR_SET_PDEATHSIG = 1


VARIABLE = "HEADRACE_PARENT"
"""Environment variable with the process id of the parent that the process is to end with."""


class ParentProcess:
    """The process to end with, if the environment names one.

    On Linux the kernel sends SIGTERM when the thread that started this process ends, which covers a parent killed
    outright; everywhere `gone` compares ids, which covers a parent that ended while this process was still starting.
    """

    def __init__(self) -> None:
        named = os.environ.get(VARIABLE)
        self._id = int(named) if named else None
        if self._id is not None and sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)

    def gone(self) -> bool:
        """Whether it has ended (this process then has another parent)."""
        return self._id is not None and os.getppid() != self._id


def end_within(seconds: float) -> None:
    """End this process by force unless it has ended by itself by then; nobody else is there to do it."""
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()
