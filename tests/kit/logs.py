"""The log of a run's driver, written and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from distributed.event_log import EventLog
from distributed.run_directory import RunDirectory


def log_of(path: Path) -> EventLog:
    """The driver's, of the run in a directory."""
    return EventLog(RunDirectory(path).identity())


def logged(path: Path, name: str = "driver-0") -> list[dict[str, Any]]:
    """The lines that a process of the run in a directory has logged."""
    return [json.loads(line) for line in (path / "logs" / f"{name}.jsonl").read_text().splitlines()]
