"""The evaluator process: periodic evaluations in the background, replaced when it dies."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from actors.evaluator import EvaluationResult
from distributed.config import ExperimentConfig
from distributed.event_log import EventLog
from distributed.processes import FETCH_SECONDS, Processes, Role
from distributed.ray_weights import RayWeightSource
from distributed.ray_workers import EvaluatorWorker
from distributed.runtime import Casualties, Evaluation
from distributed.seat import Seat
from distributed.worker_state import WorkerState
from learners.weights import WeightSnapshot
from replay_server.errors import HeadraceError

_EVALUATION_SECONDS = 600.0
_POLL_SECONDS = 0.1


class RayEvaluator:
    """At most one periodic evaluation at a time; a process that dies, hangs or raises is replaced.

    Args:
        config: the experiment.
        processes: runs it.
        weights: where the newest policy is.
        log: the driver's.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        config: ExperimentConfig,
        processes: Processes,
        weights: RayWeightSource,
        log: EventLog,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._processes = processes
        self._weights = weights
        self._seat = Seat("the evaluator", log.identity.of(Role.EVALUATOR), processes, log, clock)
        self._asked_at: int | None = None
        self._begun: Any = None
        self._fill()

    def request(self, env_steps: int) -> None:
        """Evaluate the newest published policy, unless an evaluation is under way."""
        if self._asked_at is None:
            self._asked_at = env_steps

    def finished(self) -> tuple[Evaluation, ...]:
        """The evaluation that finished since the last call, if one did.

        Raises:
            WorkerDied: evaluations failed several times in a row.
        """
        if self._asked_at is None:
            return ()
        seat = self._seat
        if seat.vacant:
            if seat.due:
                self._fill()
                seat.issue(seat.handle.evaluate_newest.remote(), _EVALUATION_SECONDS)
            return ()
        try:
            if not seat.answered():
                return ()
            snapshot, result = seat.answer()
        except HeadraceError as error:
            seat.vacate(self._cause(error))
            return ()
        seat.call = None
        env_steps, self._asked_at = self._asked_at, None
        return (Evaluation(env_steps, snapshot, result),)

    def evaluate(self, snapshot: WeightSnapshot, episodes: int, seed: int) -> EvaluationResult:
        """Greedy episodes of one policy, waited for; tried once more when the process fails."""
        try:
            return self._evaluate(snapshot, episodes, seed)
        except HeadraceError as error:
            self._seat.vacate(self._cause(error))
        while not self._seat.due:
            time.sleep(_POLL_SECONDS)
        return self._evaluate(snapshot, episodes, seed)

    def casualties(self) -> Casualties:
        """Restarts so far."""
        return Casualties(self._seat.restarts)

    def workers(self) -> tuple[WorkerState, ...]:
        """How it is."""
        state = self._seat.state("idle")
        if self._asked_at is None:
            return (dataclasses.replace(state, stage="idle"),)
        return (state if state.stage == "restarts" else dataclasses.replace(state, stage="evaluates"),)

    def stop(self) -> None:
        """End the process."""
        self._seat.stop()

    def _evaluate(self, snapshot: WeightSnapshot, episodes: int, seed: int) -> EvaluationResult:
        self._fill()
        call = self._seat.handle.evaluate.remote(snapshot, episodes, seed)
        result: EvaluationResult = self._processes.get(call, _EVALUATION_SECONDS, "the evaluator")
        return result

    def _fill(self) -> None:
        if self._seat.handle is None:
            self._seat.fill(EvaluatorWorker)
            handle: Any = self._seat.handle
            self._begun = handle.begin.remote(self._config, self._weights)

    def _cause(self, error: HeadraceError) -> HeadraceError:
        """What its beginning raised, if it did: an evaluator that has not begun can't evaluate."""
        if self._processes.done(self._begun):
            try:
                self._processes.get(self._begun, FETCH_SECONDS, self._seat.name)
            except HeadraceError as first:
                return first
        return error
