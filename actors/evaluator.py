"""Greedy episodes that tell how good a policy is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Protocol

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from actors.environments import EnvironmentConfig, make_vector_env
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
    """What is evaluated: anything that acts. One that also has `observe(action, timestep)` is told what came of it."""

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action: ...


@dataclass(frozen=True)
class EvaluationResult:
    """Undiscounted, unscaled returns of whole episodes.

    Attributes:
        mean: mean return.
        sem: its standard error (0 for a single episode).
        episodes: how many.
        returns: float64[episodes].
        lengths: int64[episodes], steps.
    """

    mean: float
    sem: float
    episodes: int
    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]

    @staticmethod
    def of(returns: NDArray[np.float64], lengths: NDArray[np.int64]) -> EvaluationResult:
        """Summarise episodes."""
        count = len(returns)
        sem = float(returns.std(ddof=1) / np.sqrt(count)) if count > 1 else 0.0
        return EvaluationResult(float(returns.mean()), sem, count, returns, lengths)


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
    returns, lengths = [], []
    for start in range(0, episodes, steps.num_envs):
        played = play_first_episodes(policy, steps, seed + start, env_steps)
        count = min(steps.num_envs, episodes - start)
        returns.append(played[0][:count])
        lengths.append(played[1][:count])
    return EvaluationResult.of(np.concatenate(returns), np.concatenate(lengths))


def play_first_episodes(
    policy: Actor, steps: VectorSteps, seed: int, env_steps: int = 0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Reset every environment with `seed` and play each one's first episode; returns and lengths, [B] each."""
    rng = generator(seed, "evaluation policy")
    observe = getattr(policy, "observe", None)
    returns = np.zeros(steps.num_envs)
    lengths = np.zeros(steps.num_envs, dtype=np.int64)
    running = np.ones(steps.num_envs, dtype=np.bool_)
    observation = steps.reset(seed)
    for _ in range(_LONGEST_EPISODE):
        action = policy.act(observation, rng, explore=False, env_steps=env_steps)
        timestep = steps.step(action.action)
        if observe is not None:
            observe(action, timestep)
        returns[running] += timestep.reward[running]
        lengths += running
        running &= ~(timestep.terminated | timestep.truncated)  # a first episode has no reset rows
        if not running.any():
            return returns, lengths
        observation = timestep.observation
    raise EnvironmentFault(
        f"environment {steps.name}: an episode did not end within {_LONGEST_EPISODE} steps; "
        "set environment.max_episode_steps"
    )
