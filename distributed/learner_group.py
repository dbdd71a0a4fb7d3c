"""The processes of one learner, seen as one worker."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from distributed.learner_worker import LearnerCut, LearnerPlace
from distributed.processes import FETCH_SECONDS, Processes, Role
from learners.loop import LearnerReport
from replay_server.errors import HeadraceError, PeersLost, WorkerDied

Calls = tuple[Any, ...]
"""The same call of every process, by rank."""

_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class LearnerGroup:
    """Handles of a learner's processes, by rank; what one is told all are told, in the same order."""

    workers: tuple[Any, ...]

    def begin(self, config: Any, access: Any, sink: Any, place: LearnerPlace, logs: Any) -> Calls:
        """Have each build everything where it starts; several meet at the first one's."""
        several = len(self.workers) > 1
        meeting = self.workers[0].open_meeting.remote() if several else None
        return tuple(
            worker.begin.remote(config, access, sink, replace(place, rank=rank), logs, meeting)
            for rank, worker in enumerate(self.workers)
        )

    def ask(self, method: str, *arguments: Any) -> Calls:
        """Call a method of each."""
        return tuple(getattr(worker, method).remote(*arguments) for worker in self.workers)


class LearnerProcesses:
    """Starts, asks and ends all processes of a learner as if they were one. Implements `Processes`.

    They live and die together: none can make an update without the others.

    Args:
        processes: runs them.
        count: how many a learner has.
    """

    def __init__(self, processes: Processes, count: int) -> None:
        self._processes = processes
        self._count = count

    @property
    def room_seconds(self) -> float:
        """See Processes.room_seconds."""
        return self._processes.room_seconds

    @property
    def patience_seconds(self) -> float:
        """See Processes.patience_seconds."""
        return self._processes.patience_seconds

    def spawn(self, cls: type, role: Role, *arguments: Any) -> LearnerGroup:
        """A new process for each rank, made with the learner's identity and that rank."""
        [identity] = arguments
        ranks = [identity.of(identity.role, rank) for rank in range(self._count)]
        return LearnerGroup(tuple(self._processes.spawn(cls, role, who) for who in ranks))

    def ask(self, handle: LearnerGroup, method: str) -> Calls:
        """The same call of each."""
        return handle.ask(method)

    def done(self, call: Calls) -> bool:
        """Whether all have ended, or one has ended badly: the others then never will."""
        ended = [one for one in call if self._processes.done(one)]
        return len(ended) == len(call) or any(self._error(one, "") is not None for one in ended)

    def waiting(self, call: Calls) -> list[Any]:
        """What to wait for: those that have not ended, or all when the call has."""
        return list(call) if self.done(call) else [one for one in call if not self._processes.done(one)]

    def get(self, call: Calls, seconds: float, who: str) -> list[Any]:
        """What each answered; raises what one of them raised, rather its own failure than that it lost the others."""
        deadline = time.monotonic() + seconds
        while not self.done(call) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        names = [who if len(call) == 1 else f"process {rank} of {who}" for rank in range(len(call))]
        ended = [(one, name) for one, name in zip(call, names, strict=True) if self._processes.done(one)]
        errors = [error for one, name in ended if (error := self._error(one, name)) is not None]
        if errors:
            raise min(errors, key=lambda error: isinstance(error, PeersLost))
        if len(ended) < len(call):
            raise WorkerDied(f"{who} did not answer within {seconds:.0f} s")
        return [self._processes.get(one, FETCH_SECONDS, name) for one, name in ended]

    def kill(self, handle: LearnerGroup) -> None:
        """End all of them at once."""
        for worker in handle.workers:
            self._processes.kill(worker)

    def _error(self, call: Any, who: str) -> HeadraceError | None:
        """What an ended call raised."""
        try:
            self._processes.get(call, FETCH_SECONDS, who)
        except HeadraceError as error:
            return error
        return None


def merged_report(reports: Sequence[LearnerReport]) -> LearnerReport:
    """One report of all ranks: what they count alike is the first one's; metrics and waiting are means."""
    first = reports[0]
    if len(reports) == 1:
        return first
    names = dict.fromkeys(name for report in reports for name in report.metrics)
    return replace(
        first,
        metrics={name: float(np.mean([r.metrics[name] for r in reports if name in r.metrics])) for name in names},
        seconds_waiting=float(np.mean([report.seconds_waiting for report in reports])),
        blocked_on=next((report.blocked_on for report in reports if report.blocked_on is not None), None),
    )


def merged_cut(cuts: Sequence[LearnerCut]) -> LearnerCut:
    """The first one's cut with the report of all; none where one of them could not make it."""
    if len(cuts) == 1:
        return cuts[0]
    error = next((cut.error for cut in cuts if cut.error is not None), None)
    return replace(cuts[0], report=merged_report([cut.report for cut in cuts]), error=error)
