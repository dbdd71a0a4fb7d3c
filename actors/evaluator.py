"""Greedy episodes that tell how good a policy is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Protocol

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from actors.environments import EnvironmentConfig, make_vector_env
from actors.ranking import RankingMetrics
from actors.seeds import generator
from actors.vector_steps import VectorSteps
from learners.policies import Action
from replay_server.errors import EnvironmentFault

_LONGEST_EPISODE = 1_000_000


class EvaluationConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often and how thoroughly a run is evaluated."""

    episodes: Annotated[
        int, Meta(ge=1, description="Episodes of one evaluation while training; the best policy is chosen by it.")
    ] = 20
    every_env_steps: Annotated[
        int, Meta(ge=0, description="Transitions (updates without actors) between evaluations; 0: none.")
    ] = 20_000
    final_episodes: Annotated[
        int, Meta(ge=1, description="Episodes of the final evaluation, on seeds never used before.")
    ] = 100


class Actor(Protocol):
    """What is evaluated: anything that acts.

    One that also has `observe(action, timestep)` is told what came of it. One that also has `scores(observation)`,
    number[B, N] of B observations and N actions, larger for what it would recommend first, is ranked by it where the
    environment tells what users consumed next.
    """

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action: ...


@dataclass(frozen=True)
class Episodes:
    """Whole episodes.

    Attributes:
        returns: float64[episodes], undiscounted and unscaled.
        lengths: int64[episodes], steps.
        metrics: name -> float64[episodes], the environment's `episode_metrics`, and `recall_at_20` and `mrr_at_20` of
            policies with scores where it tells what was consumed next; NaN where an episode has none.
    """

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    metrics: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def first(self, count: int) -> Episodes:
        """The first `count` of them."""
        metrics = {name: values[:count] for name, values in self.metrics.items()}
        return Episodes(self.returns[:count], self.lengths[:count], metrics)


@dataclass(frozen=True)
class Estimate:
    """A mean over episodes and its standard error (0 for a single episode)."""

    mean: float
    sem: float

    @staticmethod
    def of(values: NDArray[np.float64]) -> Estimate:
        """Of values [n], n >= 1."""
        count = len(values)
        sem = float(values.std(ddof=1) / np.sqrt(count)) if count > 1 else 0.0
        return Estimate(float(values.mean()), sem)


@dataclass(frozen=True)
class EvaluationResult:
    """Undiscounted, unscaled returns of whole episodes.

    Attributes:
        mean: mean return.
        sem: its standard error (0 for a single episode).
        episodes: how many.
        returns: float64[episodes].
        lengths: int64[episodes], steps.
        metrics: the environment's `episode_metrics`, each over the episodes that have it; without those none has.
    """

    mean: float
    sem: float
    episodes: int
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    metrics: Mapping[str, Estimate] = field(default_factory=dict)

    @staticmethod
    def of(episodes: Episodes) -> EvaluationResult:
        """Summarise episodes."""
        of_return = Estimate.of(episodes.returns)
        had = {name: values[~np.isnan(values)] for name, values in episodes.metrics.items()}
        metrics = {name: Estimate.of(values) for name, values in had.items() if len(values)}
        count = len(episodes.returns)
        return EvaluationResult(of_return.mean, of_return.sem, count, episodes.returns, episodes.lengths, metrics)

    def summary(self) -> dict[str, Any]:
        """What JSON files keep of it: mean, sem, episodes and, of environments that have any, metrics."""
        kept: dict[str, Any] = {"mean": self.mean, "sem": self.sem, "episodes": self.episodes}
        if self.metrics:
            kept["metrics"] = {name: {"mean": m.mean, "sem": m.sem} for name, m in self.metrics.items()}
        return kept


def evaluate(
    policy: Actor,
    config: EnvironmentConfig,
    episodes: int,
    seed: int,
    num_envs: int | None = None,
    *,
    env_steps: int = 0,
) -> EvaluationResult:
    """Play the first episode of each of `episodes` environments greedily.

    One episode an environment, so that short episodes are not counted more often than long ones.

    Args:
        policy: acts with `explore=False`; observations are as the environment gives them.
        config: the environment; `num_envs` in it is not used.
        episodes: how many, >= 1.
        seed: environment seed, from `seeds.derive` with the family of the purpose.
        num_envs: environments at a time (default all); further rounds take further seeds.
        env_steps: handed on to the policy.

    Raises:
        EnvironmentFault: the environment broke its contract, or an episode did not end.
    """
    width = min(num_envs or episodes, episodes)
    steps = VectorSteps(make_vector_env(config, width))
    try:
        return _play_all(policy, steps, episodes, seed, env_steps)
    finally:
        steps.close()


def _play_all(policy: Actor, steps: VectorSteps, episodes: int, seed: int, env_steps: int) -> EvaluationResult:
    rounds = []
    for start in range(0, episodes, steps.num_envs):
        played = play_first_episodes(policy, steps, seed + start, env_steps)
        rounds.append(played.first(episodes - start))
    returns = np.concatenate([played.returns for played in rounds])
    lengths = np.concatenate([played.lengths for played in rounds])
    metrics = {name: np.concatenate([played.metrics[name] for played in rounds]) for name in rounds[0].metrics}
    return EvaluationResult.of(Episodes(returns, lengths, metrics))


def play_first_episodes(policy: Actor, steps: VectorSteps, seed: int, env_steps: int = 0) -> Episodes:
    """Reset every environment with `seed` and play each one's first episode, B episodes."""
    rng = generator(seed, "evaluation policy")
    observe, scores = getattr(policy, "observe", None), getattr(policy, "scores", None)
    ranking: RankingMetrics | None = None
    returns = np.zeros(steps.num_envs)
    lengths = np.zeros(steps.num_envs, dtype=np.int64)
    metrics: dict[str, NDArray[np.float64]] = {}
    running = np.ones(steps.num_envs, dtype=np.bool_)
    observation = steps.reset(seed)
    for _ in range(_LONGEST_EPISODE):
        action = policy.act(observation, rng, explore=False, env_steps=env_steps)
        timestep = steps.step(action.action)
        if observe is not None:
            observe(action, timestep)
        if scores is not None and timestep.next_item is not None:
            ranking = ranking or RankingMetrics(steps.num_envs)
            ranking.add(scores(observation), timestep.next_item, running)
        returns[running] += timestep.reward[running]
        lengths += running
        ended = running & (timestep.terminated | timestep.truncated)  # a first episode has no reset rows
        for name, values in timestep.metrics.items():
            metrics.setdefault(name, np.full(steps.num_envs, np.nan))[ended] = values[ended]
        running &= ~ended
        if not running.any():
            return Episodes(returns, lengths, metrics | ranking.of_episodes() if ranking else metrics)
        observation = timestep.observation
    raise EnvironmentFault(
        f"environment {steps.name}: an episode did not end within {_LONGEST_EPISODE} steps; "
        "set environment.max_episode_steps"
    )
