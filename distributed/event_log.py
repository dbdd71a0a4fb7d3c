"""What happens to a process of a run, as one JSON object a line."""

from __future__ import annotations

import json
import logging
import platform
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from distributed import __version__
from distributed.identity import Identity


class EventLog:
    """Appends to `logs/ROLE-INDEX.jsonl` of the run; where the node does not see the run directory, to standard error.

    Ray keeps its workers' standard error in the session directory of their node. Every line has `time` (UTC), `level`,
    `run`, `role`, `index`, `pid` and `event`, and what belongs to the event. Starts, ends, failures, checkpoints and
    evaluations are logged, and what takes long; never a step.

    Args:
        identity: of the process.
    """

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.path: Path | None = None
        """The file, or None."""
        handler: logging.Handler = logging.StreamHandler()
        if _sees(identity):
            logs = identity.directory / "logs"
            logs.mkdir(exist_ok=True)
            self.path = logs / f"{identity.name}.jsonl"
            handler = logging.FileHandler(self.path)
        handler.setFormatter(_JsonLines(identity))
        self._handler = handler
        self._logger = logging.Logger(identity.name)  # of our own: not among the names that `logging` keeps
        self._logger.addHandler(handler)

    def __str__(self) -> str:
        """Where to look, for messages."""
        return str(self.path) if self.path is not None else f"what {self.identity.name} wrote to standard error"

    def start(self, **fields: Any) -> None:
        """The process is there: on which host, with which versions, because nodes may differ."""
        self.info("start", host=socket.gethostname(), version=__version__, python=platform.python_version(), **fields)

    def info(self, event: str, **fields: Any) -> None:
        """What is meant to happen."""
        self._logger.info(event, extra={"fields": fields})

    def warning(self, event: str, **fields: Any) -> None:
        """What somebody may want to look into; the run goes on by itself."""
        self._logger.warning(event, extra={"fields": fields})

    def error(self, event: str, error: BaseException, **fields: Any) -> None:
        """A failure, with its traceback."""
        told = (type(error), error, error.__traceback__)
        self._logger.error(event, exc_info=told, extra={"fields": {"error": str(error), **fields}})

    def close(self) -> None:
        """Close the file."""
        self._handler.close()


class _JsonLines(logging.Formatter):
    def __init__(self, identity: Identity) -> None:
        super().__init__()
        self._who = {"run": identity.run, "role": identity.role, "index": identity.index}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            **self._who,
            "pid": record.process,
            "event": record.getMessage(),
            **record.__dict__["fields"],
        }
        if record.exc_info is not None:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _sees(identity: Identity) -> bool:
    """Whether the run directory here is the run's, rather than another node's directory of the same name."""
    try:
        return (identity.directory / "run_id").read_text().strip() == identity.run
    except OSError:
        return False
