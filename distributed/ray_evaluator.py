"""The evaluator process: periodic evaluations in the background, replaced when it dies."""

from __future__ import annotations

import time
import traceback
from pathlib import Path
from typing import Any

import ray

from actors.evaluator import EvaluationResult
from distributed.config import ExperimentConfig
from distributed.ray_session import get, spawn
from distributed.ray_weights import RayWeightSource
from distributed.ray_workers import EvaluatorWorker
from distributed.runtime import Evaluation
from learners.weights import WeightSnapshot
from replay_server.errors import HeadraceError, WorkerDied

_ANSWER_SECONDS = 60.0
_EVALUATION_SECONDS = 600.0
_MOST_FAILURES = 5


class RayEvaluator:
    """At most one periodic evaluation at a time; a process that dies, hangs or raises is replaced.

    Args:
        config: the experiment.
        weights: where the newest policy is.
        logs: directory for the reasons of failures.
    """

    def __init__(self, config: ExperimentConfig, weights: RayWeightSource, logs: Path) -> None:
        self._config = config
        self._weights = weights
        self._log_file = logs / "evaluator_failures.log"
        self._running: tuple[int, Any, float] | None = None
        self._failures = 0
        self.restarts = 0
        self._start()

    def request(self, env_steps: int) -> None:
        """Evaluate the newest published policy, unless an evaluation is under way."""
        if self._running is None:
            self._running = (env_steps, self._worker.evaluate_newest.remote(), time.monotonic())

    def finished(self) -> tuple[Evaluation, ...]:
        """The evaluation that finished since the last call, if one did.

        Raises:
            WorkerDied: evaluations failed several times in a row.
        """
        if self._running is None:
            return ()
        env_steps, call, since = self._running
        late = time.monotonic() - since > _EVALUATION_SECONDS
        if not late and not ray.wait([call], timeout=0)[0]:
            return ()
        self._running = None
        try:
            snapshot, result = get(call, 0.0 if late else _ANSWER_SECONDS, "the evaluator")
        except HeadraceError as error:
            self._replace(error)
            return ()
        self._failures = 0
        return (Evaluation(env_steps, snapshot, result),)

    def evaluate(self, snapshot: WeightSnapshot, episodes: int, seed: int) -> EvaluationResult:
        """Greedy episodes of one policy, waited for; tried once more when the process fails."""
        try:
            return self._evaluate(snapshot, episodes, seed)
        except HeadraceError as error:
            self._replace(error)
            return self._evaluate(snapshot, episodes, seed)

    def stop(self) -> None:
        """End the process."""
        ray.kill(self._worker)

    def _evaluate(self, snapshot: WeightSnapshot, episodes: int, seed: int) -> EvaluationResult:
        call = self._worker.evaluate.remote(snapshot, episodes, seed)
        result: EvaluationResult = get(call, _EVALUATION_SECONDS, "the evaluator")
        return result

    def _start(self) -> None:
        self._worker = spawn(EvaluatorWorker, num_cpus=0)
        self._worker.begin.remote(self._config, self._weights)

    def _replace(self, error: HeadraceError) -> None:
        with self._log_file.open("a") as log:
            log.writelines(traceback.format_exception(error))
        self._failures += 1
        if self._failures >= _MOST_FAILURES:
            raise WorkerDied(
                f"the evaluator failed {self._failures} times in a row, last with: {error} (log: {self._log_file})"
            ) from error
        ray.kill(self._worker)
        self.restarts += 1
        self._start()
