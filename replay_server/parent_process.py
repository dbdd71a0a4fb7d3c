"""Ends a child process with its parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


VARIABLE = "HEADRACE_PARENT"
"""Environment variable with the process id of the parent that the process is to end with."""


class ParentProcess:
    """The process to end with, if the environment names one.

    At once and without draining: what was acknowledged is as safe as `durability` makes it, and a successor may be
    waiting for the directory already. On Linux the kernel kills this process when the thread that started it ends;
    everywhere `end_with_it` compares ids, which covers a parent that ended while this process was still starting.
    """

    def __init__(self) -> None:
        named = os.environ.get(VARIABLE)
        self._id = int(named) if named else None
        if self._id is not None and sys.platform == "linux":
            ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    def end_with_it(self) -> None:
        """End this process if the parent has ended (this process then has another one)."""
        if self._id is not None and os.getppid() != self._id:
            os._exit(1)
