"""Who a process of a run is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from distributed.processes import Role


@dataclass(frozen=True)
class Identity:
    """Stands in every line that a process logs; travels to it when it starts.

    Attributes:
        run: the run's word.
        directory: of the run, which the process's node need not see.
        role: what it is there for.
        index: which of its role.
        prometheus: it serves metrics.
        loopback: all processes of the run are on this machine.
    """

    run: str
    directory: Path
    role: Role = Role.DRIVER
    index: int = 0
    prometheus: bool = False
    loopback: bool = True

    def of(self, role: Role, index: int = 0) -> Identity:
        """Another process of the same run."""
        return replace(self, role=role, index=index)

    @property
    def host(self) -> str:
        """Where the other processes of the run reach this one."""
        if self.loopback:
            return "127.0.0.1"
        import ray

        return str(ray.util.get_node_ip_address())  # type: ignore[no-untyped-call]

    @property
    def name(self) -> str:
        """For file names, as in `actor-3`."""
        return f"{self.role}-{self.index}"
