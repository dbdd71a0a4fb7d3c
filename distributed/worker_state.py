"""How one process of a run is, as its supervisor sees it."""

from __future__ import annotations

from dataclasses import dataclass

from distributed.processes import Role


@dataclass(frozen=True)
class WorkerState:
    """What `headrace status` shows of a process beside its own reports.

    Attributes:
        role: what it is there for.
        index: which of its role.
        stage: what it does: `starts` (or waits for room), `begins`, `acts`, `learns`, `serves`, `evaluates`, `idle`; or
            `restarts`, `quarantined`.
        restarts: times it was replaced.
        silent: seconds since it was asked for what it has not answered.
        address: HOST:PORT where it serves records.
        error: why it failed last, or None.
        metrics: HOST:PORT where Prometheus finds it and, of a learner of several processes, the next indices.
    """

    role: Role
    index: int
    stage: str
    restarts: int = 0
    silent: float = 0.0
    address: str | None = None
    error: str | None = None
    metrics: tuple[str, ...] = ()
