"""What the driver knows of its run, for Prometheus: the numbers of `status.json`, and where everybody is scraped."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args

from distributed.identity import Identity
from distributed.monitoring.exporter import Number, endpoint
from distributed.processes import Role
from distributed.run_status import RunState, RunStatus
from learners.checkpoint import write_json


class RunNumbers:
    """Read from the newest status."""

    def __init__(self, status: RunStatus) -> None:
        self._status = status

    def numbers(self) -> Iterator[Number]:
        told = self._status.document
        states = {state: float(state == told["state"]) for state in get_args(RunState)}
        yield Number("run_state", "1 for the state of the run.", states, "state")
        if told["looked"] is None:
            return
        yield Number("run_env_steps_total", "Environment transitions (updates without actors).", told["env_steps"])
        yield Number("run_updates_total", "Updates.", told["updates"])
        yield Number("run_training_seconds_total", "Seconds of training, over restarts of the run.", told["seconds"])
        yield Number("run_return", "Mean training return of the newest row of metrics.", told["train_return"])
        yield Number("run_weights_version", "Newest published version.", told["weights_version"])
        text = "Versions that actors were behind on average, in the newest row of metrics."
        yield Number("run_staleness_versions", text, told["staleness"])
        text = "Transitions made with weights further behind than actors.max_weight_lag."
        yield Number("run_overdue_transitions_total", text, told["overdue_transitions"])
        bound = {} if told["bound_by"] is None else {told["bound_by"]: 1.0}
        yield Number("run_bound_by", "1 for the stage that the others wait for.", bound, "stage")
        yield from self._processes(told["workers"])
        text = "Processes that were replaced since the run was started or resumed, by role."
        yield Number("run_restarts_total", text, told["restarts_by_role"], "of")
        text = "Transitions that were lost when a process died."
        yield Number("run_lost_transitions_total", text, told["lost_transitions"])
        yield Number("run_quarantined_actors", "Actors that failed too often.", told["quarantined_actors"])
        yield from self._checkpoints(told)

    def _processes(self, workers: Mapping[str, list[dict[str, Any]]]) -> Iterator[Number]:
        blocked = Counter(
            actor.get("blocked_on") or "nothing" for actor in workers["actor"] if actor["stage"] == "acts"
        )
        yield Number("run_actors_acting", "Actors that act, by what holds them up.", dict(blocked), "reason")
        down = Counter(worker["stage"] for role in workers.values() for worker in role)
        yield Number("run_processes", "Processes of the run, by what they do.", dict(down), "stage")

    def _checkpoints(self, told: Mapping[str, Any]) -> Iterator[Number]:
        checkpoint, evaluation = told["checkpoint"], told["evaluation"]
        yield Number("run_checkpoints_total", "Complete checkpoints made by this process.", checkpoint["completed"])
        yield Number("run_given_up_checkpoints_total", "Checkpoints given up.", checkpoint["given_up"])
        yield Number("run_checkpoint_seconds", "Seconds the newest one took, from start to end.", checkpoint["seconds"])
        age = None if checkpoint["at"] is None else time.time() - checkpoint["at"]
        yield Number("run_checkpoint_age_seconds", "Seconds since the newest complete one.", age)
        yield Number("run_evaluations_total", "Evaluations of the run.", told["evaluations"])
        mean = None if evaluation is None else evaluation["mean"]
        yield Number("run_evaluation_return", "Mean return of the newest evaluation.", mean)


class RunExporter:
    """The driver's own endpoint, and `prometheus_targets.json`: every process of the run, for Prometheus' file_sd.

    Args:
        identity: the driver's.
        status: of the run.
    """

    def __init__(self, identity: Identity, status: RunStatus) -> None:
        self._identity = identity
        self._status = status
        self._file: Path = identity.directory / "prometheus_targets.json"
        self._endpoint = endpoint(identity, RunNumbers(status))
        self._written: list[dict[str, Any]] | None = None

    def refresh(self) -> None:
        """Write the file where a process has come, gone or moved."""
        workers = self._status.document.get("workers", {})
        places = [(Role.DRIVER, 0, self._endpoint.address)]
        places += [
            (role, worker["index"] + rank, address)
            for role, some in workers.items()
            for worker in some
            for rank, address in enumerate(worker.get("metrics", ()))
        ]
        self._write([self._target(*place) for place in places])

    def close(self) -> None:
        """The run has ended: nothing is to be scraped."""
        self._write([])
        self._endpoint.close()

    def _target(self, role: str, index: int, address: str) -> dict[str, Any]:
        return {"targets": [address], "labels": {"run": self._identity.run, "role": role, "index": str(index)}}

    def _write(self, targets: list[dict[str, Any]]) -> None:
        if targets != self._written:
            with suppress(OSError):  # tried again at the next look
                write_json(self._file, targets)
                self._written = targets
