"""What a run comes to, in its driver's log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from distributed.checkpoints import Checkpoints
from distributed.event_log import EventLog

_OF_RESULT = (
    "stopped_by", "env_steps", "updates", "wall_seconds", "evaluation", "restarts", "lost_transitions",
    "quarantined_actors", "fenced_transitions", "given_up_checkpoints",
)  # fmt: skip


class Milestones:
    """Logs every evaluation and every complete checkpoint once, and the end.

    Args:
        log: the driver's.
        evaluations: made before the run was resumed.
    """

    def __init__(self, log: EventLog, evaluations: int) -> None:
        self._log = log
        self._evaluations = evaluations
        self._checkpoints = 0

    def note(self, env_steps: int, evaluations: Sequence[Mapping[str, Any]], checkpoints: Checkpoints) -> None:
        """See what is new: of all evaluations of the run, and of the checkpoints of this process."""
        for evaluation in evaluations[self._evaluations :]:
            self._log.info("evaluation", **evaluation)
        self._evaluations = len(evaluations)
        if checkpoints.completed > self._checkpoints:
            self._log.info("checkpoint", env_steps=env_steps, seconds=checkpoints.seconds)
            self._checkpoints = checkpoints.completed

    def end(self, result: Mapping[str, Any]) -> None:
        """The run has ended with this `result.json`."""
        self._log.info("end", **{name: result[name] for name in _OF_RESULT})
