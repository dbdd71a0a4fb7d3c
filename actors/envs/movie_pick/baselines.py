"""The ladder of simple policies a MoviePick agent is measured against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from actors.envs.movie_pick.simulation import MoviePick
from actors.timestep import TimeStep
from learners.policies import Action

_TOP = 3  # films the round robin goes through
_BANDIT_EPSILON = 0.1


def _certain(action: NDArray[np.int64]) -> Action:
    return Action(action, np.zeros(len(action), dtype=np.float32))


class Uniform:
    """Any film with equal probability."""

    def __init__(self, simulation: MoviePick) -> None:
        self._films = simulation.model.films

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """One film each."""
        action = rng.integers(self._films, size=len(observation))
        return Action(action, np.full(len(action), -np.log(self._films), dtype=np.float32))


class Popular:
    """The `top` most popular films in turn, the same for every user.

    Args:
        simulation: the films.
        top: how many of them; 1 shows the most popular film always.
    """

    def __init__(self, simulation: MoviePick, top: int) -> None:
        self._films = np.argsort(-simulation.catalogue.popularity, kind="stable")[:top]
        self._shown = 0

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """One film each."""
        film = self._films[self._shown % len(self._films)]
        self._shown += 1
        return _certain(np.full(len(observation), film, dtype=np.int64))


class EpsilonGreedyBandit:
    """Every user's own running mean reward of each film; explores with a fixed probability.

    Args:
        simulation: the films.
        epsilon: probability of a film chosen uniformly.
    """

    def __init__(self, simulation: MoviePick, epsilon: float) -> None:
        self._epsilon = epsilon
        self._total = np.zeros((simulation.num_users, simulation.model.films))
        self._count = np.zeros((simulation.num_users, simulation.model.films))

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """One film each; films never shown come first, ties are broken at random."""
        users, films = self._total.shape
        mean = np.where(self._count > 0.0, self._total / np.maximum(self._count, 1.0), np.inf)
        best = np.argmax(np.where(mean == mean.max(axis=1, keepdims=True), rng.random(mean.shape), -1.0), axis=1)
        exploring = rng.random(users) < self._epsilon
        return _certain(np.where(exploring, rng.integers(films, size=users), best))

    def observe(self, action: Action, timestep: TimeStep) -> None:
        """Learn from what came of the last action; a user who left is forgotten."""
        rows = np.flatnonzero(timestep.valid)
        self._total[rows, action.action[rows]] += timestep.reward[rows]
        self._count[rows, action.action[rows]] += 1.0
        gone = timestep.terminated | timestep.truncated
        self._total[gone] = 0.0
        self._count[gone] = 0.0


class Affinity:
    """The film the user likes best, knowing the true taste but blind to satiation."""

    def __init__(self, simulation: MoviePick) -> None:
        self._simulation = simulation

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """One film each."""
        return _certain(self._simulation.expected_rewards_unwatched().argmax(axis=1))


class MyopicOracle:
    """The film of largest expected immediate reward, knowing true taste and satiation."""

    def __init__(self, simulation: MoviePick) -> None:
        self._simulation = simulation

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """One film each."""
        return _certain(self._simulation.expected_rewards().argmax(axis=1))


Factory = Callable[[gymnasium.vector.VectorEnv[Any, Any, Any]], Any]


def _on_simulation(build: Callable[[MoviePick], Any]) -> Factory:
    return lambda env: build(env.simulation)  # type: ignore[attr-defined]


BASELINES: Mapping[str, Factory] = {
    "random": _on_simulation(Uniform),
    "most popular": _on_simulation(lambda simulation: Popular(simulation, 1)),
    "round-robin popular": _on_simulation(lambda simulation: Popular(simulation, _TOP)),
    "per-user bandit": _on_simulation(lambda simulation: EpsilonGreedyBandit(simulation, _BANDIT_EPSILON)),
    "affinity without satiation": _on_simulation(Affinity),
    "myopic oracle": _on_simulation(MyopicOracle),
}
