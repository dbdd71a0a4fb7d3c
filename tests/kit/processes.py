"""Processes of this machine, found by what they inherited."""

from __future__ import annotations

from pathlib import Path


def processes_with(variable: str, value: str) -> list[int]:
    """Ids of the processes that have this environment variable with this value."""
    wanted, found = f"{variable}={value}".encode(), []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and wanted in (process / "environ").read_bytes().split(b"\0"):
                found.append(int(process.name))
        except OSError:  # it has ended, or is somebody else's
            continue
    return found


def command_line(pid: int) -> str:
    """Words of a process with spaces between them; "" when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""
