"""The ladder of simple policies a LogUsers agent is measured against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from actors.envs.log_users.simulation import LogUsers
from actors.timestep import TimeStep
from learners.policies import Action

_BLOCK = 1024  # users whose click probabilities are averaged at a time


def _certain(action: NDArray[np.int64]) -> Action:
    return Action(action, np.zeros(len(action), dtype=np.float32))


class Uniform:
    """Anything on offer with equal probability."""

    def __init__(self, simulation: LogUsers) -> None:
        self._actions = int(simulation.action_space.n)

    def act(self, observation: Any, rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """One item each."""
        action = rng.integers(self._actions, size=len(observation))
        return Action(action, np.full(len(action), -np.log(self._actions), dtype=np.float32))


class Ranked:
    """The best of one ranking for everybody.

    Args:
        simulation: the users.
        scores: of the items, [N].
        repeat: whether to show again what was shown before.
    """

    def __init__(self, simulation: LogUsers, scores: NDArray[Any], *, repeat: bool = False) -> None:
        self._simulation = simulation
        self._scores = scores.astype(np.float64)
        self._repeat = repeat

    def act(self, observation: Any, rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """One item each."""
        values = self._simulation.offered(self._scores)
        if not self._repeat:
            values = np.where(self._simulation.unseen(), values, -np.inf)
        return _certain(values.argmax(axis=1))


class TasteBandit:
    """Learns each user's factors from his clicks, knowing the items, the click model and the population.

    The state of a user is (factors, generosity); it starts from mean and covariance of the population and moves by an
    extended Kalman filter on every click or none. The item of largest expected logit is shown, never one twice.

    Args:
        simulation: the users; their factors are hidden from this policy.
    """

    def __init__(self, simulation: LogUsers) -> None:
        fitted, click = simulation.fitted, simulation.fitted.click
        self._simulation = simulation
        population = np.column_stack([fitted.user_factors, fitted.generosity]).astype(np.float64)
        items = len(fitted.item_names)
        self._features = np.column_stack([fitted.item_factors * click[1], np.full(items, click[2])])
        self._offset = click[0] + click[3] * fitted.quality
        self._prior = population.mean(axis=0), np.cov(population.T) + 1e-6 * np.eye(population.shape[1])
        self._mean = np.tile(self._prior[0], (simulation.num_users, 1))
        self._covariance = np.tile(self._prior[1], (simulation.num_users, 1, 1))
        self._shown = np.zeros(simulation.num_users, dtype=np.int64)

    def act(self, observation: Any, rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """One item each."""
        simulation = self._simulation
        values = simulation.offered(self._mean @ self._features.T + self._offset)
        action = np.where(simulation.unseen(), values, -np.inf).argmax(axis=1)
        rows = np.arange(len(action))
        self._shown = action if simulation.candidates is None else simulation.candidates[rows, action].astype(np.int64)
        return _certain(action)

    def observe(self, action: Action, timestep: TimeStep) -> None:
        """Learn from what came of the last action; a user who left is forgotten."""
        x = self._features[self._shown]
        spread = np.einsum("bij,bj->bi", self._covariance, x)
        expected = 1.0 / (1.0 + np.exp(-((self._mean * x).sum(axis=1) + self._offset[self._shown])))
        certainty = expected * (1.0 - expected)
        gain = spread / (1.0 + certainty * (spread * x).sum(axis=1))[:, None]
        rows = np.flatnonzero(timestep.valid)
        self._mean[rows] += (gain * (timestep.reward - expected)[:, None])[rows]
        self._covariance[rows] -= (certainty[:, None, None] * gain[:, :, None] * spread[:, None, :])[rows]
        gone = timestep.terminated | timestep.truncated
        self._mean[gone], self._covariance[gone] = self._prior


class MyopicOracle:
    """The item of largest click probability, knowing the user; the best policy there is when everything is on offer."""

    def __init__(self, simulation: LogUsers) -> None:
        self._simulation = simulation

    def act(self, observation: Any, rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """One item each."""
        return _certain(self._simulation.expected_rewards().argmax(axis=1))


def mean_clicks(simulation: LogUsers) -> NDArray[np.float64]:
    """Click probability of each item, averaged over the population, float64[N]."""
    users = len(simulation.fitted.user_names)
    total = np.zeros(len(simulation.fitted.item_names))
    for start in range(0, users, _BLOCK):
        total += simulation.clicks.of_all(np.arange(start, min(start + _BLOCK, users))).sum(axis=0)
    return total / users


Factory = Callable[[gymnasium.vector.VectorEnv[Any, Any, Any]], Any]


def _on_simulation(build: Callable[[LogUsers], Any]) -> Factory:
    return lambda env: build(env.simulation)  # type: ignore[attr-defined]


BASELINES: Mapping[str, Factory] = {
    "most popular": _on_simulation(lambda simulation: Ranked(simulation, simulation.fitted.ratings, repeat=True)),
    "random": _on_simulation(Uniform),
    "round-robin popular": _on_simulation(lambda simulation: Ranked(simulation, simulation.fitted.ratings)),
    "best list for everybody": _on_simulation(lambda simulation: Ranked(simulation, mean_clicks(simulation))),
    "per-user bandit": _on_simulation(TasteBandit),
    "myopic oracle": _on_simulation(MyopicOracle),
}
