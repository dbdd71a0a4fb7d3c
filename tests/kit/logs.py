"""What a run writes line by line."""

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


def metrics(path: Path) -> list[dict[str, Any]]:
    """The whole rows of metrics of the run in a directory; [] before the first."""
    file = path / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().split("\n")[:-1]] if file.exists() else []
