"""When, at which commit and on what machine something was measured."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from distributed.bench.machine import Machine  # noqa: E402


def provenance() -> dict[str, Any]:
    """`date`, `commit` and `machine`, for a report in JSON."""
    machine = msgspec.to_builtins(Machine.here())
    machine["versions"] |= {name: version(name) for name in ("torch", "gymnasium", "ray")}
    return {"date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "commit": commit(), "machine": machine}


def commit() -> str:
    """The checkout's commit, marked when it has changes of its own beside results."""
    changes = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results")
    return _git("rev-parse", "--short=12", "HEAD") + ("-dirty" if changes else "")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
