"""What the driver says of a run as a whole, in `status.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distributed.checkpoints import Checkpoints
from distributed.config import ExperimentConfig
from distributed.run_directory import RunDirectory
from distributed.runtime import Casualties
from distributed.tally import Tally


def run_facts(config: ExperimentConfig, run: RunDirectory) -> dict[str, Any]:
    """What stays as it is from a run's beginning to its end."""
    return {
        "directory": str(run.path),
        "runtime": config.runtime,
        "offline": config.actors.count == 0,
        "total_env_steps": config.run.total_env_steps,
        "max_seconds": config.run.max_seconds,
    }


def figures(
    tally: Tally,
    row: Mapping[str, Any],
    checkpoints: Checkpoints,
    casualties: Casualties,
    evaluations: tuple[Mapping[str, Any] | None, int],
    seconds: float,
) -> dict[str, Any]:
    """At one moment.

    Args:
        tally: counts.
        row: the newest of metrics; empty before the first.
        checkpoints: of this process.
        casualties: of the run.
        evaluations: the newest, or None, and how many there were.
        seconds: of training.
    """
    time = row.get("time", {})
    return {
        "env_steps": tally.env_steps,
        "updates": tally.updates,
        "skipped_updates": tally.skipped_updates,
        "overdue_transitions": tally.overdue_transitions,
        "seconds": seconds,
        "weights_version": tally.weights_version,
        "train_return": tally.recent_return,
        "bound_by": time.get("bound_by"),
        "staleness": row.get("staleness"),
        "actors_blocked": time.get("actors_blocked"),
        "learner_waiting": time.get("learner_waiting"),
        "restarts": casualties.restarts,
        "lost_transitions": casualties.lost_transitions,
        "quarantined_actors": casualties.quarantined,
        "evaluation": evaluations[0],
        "evaluations": evaluations[1],
        "checkpoint": {
            "under_way": checkpoints.under_way,
            "completed": checkpoints.completed,
            "given_up": checkpoints.given_up,
            "seconds": checkpoints.seconds,
        },
    }
