"""The evaluator's process: what it answers, and what is said of it when it can't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kit.fake_processes import FakeClock, FakeProcesses
from kit.logs import log_of, logged
from kit.runs import experiment

from distributed.failures import PAUSES_S
from distributed.ray_evaluator import RayEvaluator
from replay_server.errors import EnvironmentFault, WorkerDied


def test_one_that_could_not_begin_says_why_and_is_replaced_until_that_is_hopeless(tmp_path: Path) -> None:
    processes, clock = FakeProcesses(), FakeClock()
    weights: Any = object()
    evaluator = RayEvaluator(experiment("CartPole-v1", 1), processes, weights, log_of(tmp_path), clock)
    evaluator.request(100)
    with pytest.raises(WorkerDied, match=r"the evaluator failed 6 times in a row, last with: no such data"):
        for _ in range(len(PAUSES_S) + 1):
            assert evaluator.finished() == ()
            begin, evaluate = processes.newest.calls
            begin.answer(EnvironmentFault("no such data"))
            evaluate.answer(WorkerDied("'EvaluatorWorker' object has no attribute '_policy'"))
            evaluator.finished()
            clock.now += 100.0
    told = {line["error"] for line in logged(tmp_path) if line["event"] == "failed"}
    assert told == {"no such data"} and evaluator.casualties().restarts == len(PAUSES_S)


def test_one_that_had_begun_is_replaced_for_what_went_wrong_later(tmp_path: Path) -> None:
    processes, clock = FakeProcesses(), FakeClock()
    weights: Any = object()
    evaluator = RayEvaluator(experiment("CartPole-v1", 1), processes, weights, log_of(tmp_path), clock)
    evaluator.request(100)
    evaluator.finished()
    begin, evaluate = processes.newest.calls
    begin.answer()
    evaluate.answer(EnvironmentFault("division by zero"))
    assert evaluator.finished() == ()
    assert [state.error for state in evaluator.workers()] == ["division by zero"]
