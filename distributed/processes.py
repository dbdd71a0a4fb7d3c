"""What supervisors ask of whoever runs worker processes."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Protocol

FETCH_SECONDS = 60.0
"""To fetch what a call that has ended returned."""


class Role(StrEnum):
    """What a process of a run is there for; decides where it is placed."""

    DRIVER = "driver"
    ACTOR = "actor"
    LEARNER = "learner"
    SHARD = "shard"
    EVALUATOR = "evaluator"
    STORE = "store"


class Processes(Protocol):
    """Starts, asks and ends worker processes.

    A handle has the worker's methods as `handle.method.remote(...)`, each of which returns a call; nothing waits but
    `get`.
    """

    @property
    def room_seconds(self) -> float:
        """How long a new process may take to find room and to start."""

    @property
    def patience_seconds(self) -> float:
        """How long a run waits with its start for processes that it can do without."""

    def spawn(self, cls: type, role: Role, *arguments: Any) -> Any:
        """A new process for a worker of this class, made with these arguments; it may have to wait for room."""

    def ask(self, handle: Any, method: str) -> Any:
        """A call of a method without arguments."""

    def done(self, call: Any) -> bool:
        """Whether a call has ended, well or badly."""

    def get(self, call: Any, seconds: float, who: str) -> Any:
        """The answer of a call.

        Raises:
            WorkerDied: the process has ended or did not answer in time, or failed in an unforeseen way.
            HeadraceError: what the method raised.
        """

    def kill(self, handle: Any) -> None:
        """End a process at once."""
