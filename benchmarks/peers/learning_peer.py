"""What every peer of `benchmarks/side_by_side.py` shares: the task, the clock of training, and when it is enough.

A peer runs in its own environment and knows nothing of headrace. It is started with one JSON argument (the work),
trains until a periodic evaluation reaches the last threshold or its time is up, and prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np


@dataclass(frozen=True)
class Work:
    """Train on `environment` for at most `seconds`, evaluating every `every_env_steps`.

    Attributes:
        task: name of the task, for the peer's table of settings.
        environment, kwargs: what gymnasium.make takes.
        thresholds: mean returns to reach, increasing; the run ends at the last.
        episodes: greedy episodes of one evaluation.
        hidden_sizes: units of each hidden layer; none for the peer's own.
        started: seconds since the epoch when the process was started.
    """

    task: str
    environment: str
    kwargs: dict[str, Any]
    thresholds: list[float]
    every_env_steps: int
    episodes: int
    seconds: float
    seed: int
    hidden_sizes: list[int] | None
    threads: int
    started: float

    def make(self) -> gymnasium.Env:
        """One environment."""
        return gymnasium.make(self.environment, **self.kwargs)


@dataclass
class Training:
    """The clock of a training that stands still during evaluations, and what these found."""

    work: Work
    act: Callable[[np.ndarray], np.ndarray]
    evaluations: list[dict[str, float]] = field(default_factory=list)
    env_steps: int = 0
    updates: int = 0

    def start(self) -> None:
        """Training begins now."""
        self._paused, self._next = 0.0, self.work.every_env_steps
        self._envs = gymnasium.make_vec(
            self.work.environment, self.work.episodes, vectorization_mode="sync", **self.work.kwargs
        )
        self.start_up_seconds = time.time() - self.work.started
        self._began = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of training so far."""
        return time.perf_counter() - self._began - self._paused

    def over(self, env_steps: int) -> bool:
        """Evaluate when it is due; True when the last threshold is reached or the time is up."""
        self.env_steps = env_steps
        if env_steps >= self._next:
            self._next += self.work.every_env_steps
            seconds, begin = self.seconds, time.perf_counter()
            mean = self._mean_return()
            self._paused += time.perf_counter() - begin
            self.evaluations.append({"env_steps": env_steps, "seconds": seconds, "mean": mean})
            if mean >= self.work.thresholds[-1]:
                return True
        return self.seconds >= self.work.seconds

    def _mean_return(self) -> float:
        """Mean return of one greedy episode of each environment."""
        observation, _ = self._envs.reset(seed=1_000_000 + 1000 * self.work.seed)
        returns, running = np.zeros(self.work.episodes), np.ones(self.work.episodes, bool)
        while running.any():
            observation, reward, terminated, truncated, _ = self._envs.step(self.act(observation))
            returns += np.where(running, reward, 0.0)
            running &= ~(terminated | truncated)
        return float(returns.mean())


def serve(train: Callable[[Work], tuple[Training, dict[str, Any]]]) -> None:
    """Train and print what came of it; what libraries print goes to stderr.

    Args:
        train: runs the training to its end; returns it with what a reader should know (versions, settings).
    """
    reply = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        training, facts = train(Work(**json.loads(sys.argv[1])))
        outcome = {
            "seconds": training.seconds,
            "start_up_seconds": training.start_up_seconds,
            "env_steps": training.env_steps,
            "updates": training.updates,
            "evaluations": training.evaluations,
            "facts": facts,
        }
        print(json.dumps(outcome), file=reply)
    except Exception as error:
        traceback.print_exc()
        print(json.dumps({"error": f"{type(error).__name__}: {error}"[:300]}), file=reply)
