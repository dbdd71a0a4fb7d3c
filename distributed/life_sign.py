"""Whether the process that drives a run is still there, told from what it wrote about itself."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

SILENT_SECONDS = 30.0
"""A status this old, from a process that nobody here can look for, is no sign of life."""


def of_this_process() -> dict[str, Any]:
    """What others need to look for this process: host, pid, and when it began, because pids are used again."""
    return {"host": socket.gethostname(), "pid": os.getpid(), "began": _began(os.getpid())}


def is_there(driver: Mapping[str, Any], age: float) -> bool:
    """Whether a driver lives.

    Args:
        driver: what `of_this_process` was there.
        age: seconds since its newest sign of life.
    """
    if driver["host"] != socket.gethostname() or driver["began"] is None:
        return age < SILENT_SECONDS
    return bool(_began(driver["pid"]) == driver["began"])


def _began(pid: int) -> int | None:
    """When a process of this host began, in ticks since the host did; None when there is none, or no /proc."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if after_name[0] in "ZX" else int(after_name[19])
