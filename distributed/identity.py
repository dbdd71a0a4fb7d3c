"""Who a process of a run is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

DRIVER = "driver"


@dataclass(frozen=True)
class Identity:
    """Stands in every line that a process logs; travels to it when it starts.

    Attributes:
        run: the run's word.
        directory: of the run, which the process's node need not see.
        role: driver, actor, learner, shard, evaluator or store.
        index: which of its role.
        prometheus: it serves metrics.
        loopback: for this machine only.
    """

    run: str
    directory: Path
    role: str = DRIVER
    index: int = 0
    prometheus: bool = False
    loopback: bool = True

    def of(self, role: str, index: int = 0) -> Identity:
        """Another process of the same run."""
        return replace(self, role=role, index=index)

    @property
    def name(self) -> str:
        """For file names, as in `actor-3`."""
        return f"{self.role}-{self.index}"
