"""Measures the baselines an environment brings along."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from gymnasium.vector import VectorEnv

from actors.environments import EnvironmentConfig, make_vector_env
from actors.evaluator import EvaluationResult, play_first_episodes
from actors.vector_steps import VectorSteps

BaselineFactory = Callable[[VectorEnv[Any, Any, Any]], Any]
"""Builds a policy for one vector environment, whose insides it may look at; called anew for every evaluation."""


@dataclass(frozen=True)
class LadderRow:
    """One policy's undiscounted return an episode: mean, standard error, episodes."""

    name: str
    mean: float
    sem: float
    episodes: int


def find_baselines(env: VectorEnv[Any, Any, Any]) -> Mapping[str, BaselineFactory]:
    """What the environment's `baselines()` offers, name -> factory; empty where it has none."""
    offered = getattr(env.unwrapped, "baselines", None)
    return dict(offered()) if callable(offered) else {}


def ladder(config: EnvironmentConfig, episodes: int, seed: int) -> list[LadderRow]:
    """Evaluate every baseline on the same `episodes` first episodes, in the environment's order.

    Args:
        config: the environment.
        episodes: environments, one episode each.
        seed: environment seed; a policy evaluated with the same seed meets the same episodes.

    Returns:
        One row a baseline; empty where the environment has none.
    """
    steps = VectorSteps(make_vector_env(config, episodes))
    rows = []
    try:
        for name, build in find_baselines(steps.env).items():
            result = EvaluationResult.of(*play_first_episodes(build(steps.env.unwrapped), steps, seed))
            rows.append(LadderRow(name, result.mean, result.sem, result.episodes))
    finally:
        steps.close()
    return rows
