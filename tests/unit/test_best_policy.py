"""Which policy a run ends with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from actors.evaluator import Episodes, EvaluationResult
from distributed.driver import Driver
from distributed.runtime import Evaluation
from learners.weights import WeightSnapshot


def evaluation(env_steps: int, mean: float) -> Evaluation:
    snapshot = WeightSnapshot.of(env_steps, {"w": np.zeros(1, np.float32)})
    return Evaluation(env_steps, snapshot, EvaluationResult.of(Episodes(np.array([mean]), np.array([1]))))


@pytest.mark.parametrize(
    ("means", "best"),
    [([1.0, 3.0, 2.0], 2), ([1.0, 3.0, 3.0, 2.0], 3), ([500.0, 500.0], 2), ([-5.0], 1), ([2.0, -1.0, 2.0], 3)],
)
def test_the_highest_mean_and_the_later_of_equals(means: list[float], best: int) -> None:
    view: Any = SimpleNamespace(evaluated=lambda finished: None, say=print)
    clock: Any = SimpleNamespace(monotonic=lambda: 0.0)
    config: Any = SimpleNamespace(run=SimpleNamespace(checkpoint_url=None, keep_checkpoints=1))
    driver: Any = Driver(config, SimpleNamespace(), SimpleNamespace(), view, clock)  # type: ignore[arg-type]
    driver._began = 0.0
    for number, mean in enumerate(means, start=1):
        driver._judge(evaluation(number, mean))
    driver._newest = evaluation(99, 0.0).snapshot
    assert driver.best_snapshot.version == best
