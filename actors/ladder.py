"""Measures the baselines and bounds an environment brings along."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from actors.environments import EnvironmentConfig, make_vector_env
from actors.evaluator import Estimate, EvaluationResult, play_first_episodes
from actors.vector_steps import VectorSteps

BaselineFactory = Callable[[VectorEnv[Any, Any, Any]], Any]
"""Builds a policy for one vector environment, whose insides it may look at; called anew for every evaluation."""

Bound = Callable[[VectorEnv[Any, Any, Any]], NDArray[np.float64]]
"""From a vector environment, just reset, to what no policy's return exceeds: float64[n], or float64[] worked out."""


@dataclass(frozen=True)
class LadderRow:
    """One policy's undiscounted return an episode, or a bound on it.

    Attributes:
        name: of the policy or bound.
        mean: mean return.
        sem: its standard error; 0 of a number that was worked out.
        episodes: how many, of a bound how many users; 0 of a number that was worked out.
        metrics: means of the environment's `episode_metrics`; empty of bounds.
        bound: whether no policy can have more.
    """

    name: str
    mean: float
    sem: float
    episodes: int
    metrics: Mapping[str, Estimate] = field(default_factory=dict)
    bound: bool = False

    @staticmethod
    def of(name: str, result: EvaluationResult) -> LadderRow:
        """A policy's row."""
        return LadderRow(name, result.mean, result.sem, result.episodes, result.metrics)


def find_baselines(env: VectorEnv[Any, Any, Any]) -> Mapping[str, BaselineFactory]:
    """What the environment's `baselines()` offers, name -> factory; empty where it has none."""
    return _offered(env, "baselines")


def find_bounds(env: VectorEnv[Any, Any, Any]) -> Mapping[str, Bound]:
    """What the environment's `bounds()` offers, name -> function; empty where it has none."""
    return _offered(env, "bounds")


def _offered(env: VectorEnv[Any, Any, Any], method: str) -> dict[str, Any]:
    offered = getattr(env.unwrapped, method, None)
    return dict(offered()) if callable(offered) else {}


class Ladder:
    """Measures one rung after the other, all on the same episodes; a context manager.

    Args:
        config: the environment.
        episodes: environments, one episode each.
        seed: environment seed; a policy evaluated with the same seed meets the same episodes.

    Attributes:
        baselines: their names, in the environment's order.
        bounds: the names of bounds.
    """

    def __init__(self, config: EnvironmentConfig, episodes: int, seed: int) -> None:
        self._steps = VectorSteps(make_vector_env(config, episodes))
        self._seed = seed
        self._factories = find_baselines(self._steps.env)
        self._functions = find_bounds(self._steps.env)
        self.baselines = tuple(self._factories)
        self.bounds = tuple(self._functions)

    def __enter__(self) -> Ladder:
        return self

    def __exit__(self, *_: object) -> None:
        self._steps.close()

    def baseline(self, name: str) -> LadderRow:
        """Play one baseline's episodes."""
        policy = self._factories[name](self._steps.env.unwrapped)
        return LadderRow.of(name, EvaluationResult.of(play_first_episodes(policy, self._steps, self._seed)))

    def bound(self, name: str) -> LadderRow:
        """Work out one bound for the users of the same episodes."""
        self._steps.reset(self._seed)
        values = np.asarray(self._functions[name](self._steps.env.unwrapped), dtype=np.float64)
        if values.ndim == 0:
            return LadderRow(name, float(values), 0.0, 0, bound=True)
        estimate = Estimate.of(values)
        return LadderRow(name, estimate.mean, estimate.sem, len(values), bound=True)


def ladder(config: EnvironmentConfig, episodes: int, seed: int) -> list[LadderRow]:
    """One row a baseline, in the environment's order; empty where it has none. See Ladder."""
    with Ladder(config, episodes, seed) as rungs:
        return [rungs.baseline(name) for name in rungs.baselines]
