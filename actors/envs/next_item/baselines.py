"""The ladder of simple policies a NextItem agent is measured against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.envs.next_item.behaviour import Behaviour
from actors.envs.next_item.simulation import NextItem
from actors.timestep import TimeStep
from learners.policies import Action

_POOL = 20  # items that the round robin goes through and bandits try
_STEP = 0.5  # how fast a bandit forgets
_UNIFORM_SHARE, _SKEW = 0.2, 1.0  # of the policy that logs are made with


def _certain(action: NDArray[np.int64]) -> Action:
    return Action(action, np.zeros(len(action), dtype=np.float32))


def popularity(simulation: NextItem) -> NDArray[np.float64]:
    """How often each item is consumed in the long run, float64[N]."""
    catalogue = simulation.catalogue
    return np.asarray(simulation.chain.stationary[catalogue.topic_of] * catalogue.taste[catalogue.rank_of])


class Popular:
    """The `top` items consumed most in turn, the same for every user.

    Args:
        simulation: the items.
        top: how many of them; 1 shows the most popular item always.
    """

    def __init__(self, simulation: NextItem, top: int) -> None:
        self._popularity = popularity(simulation)
        self._items = np.argsort(-self._popularity, kind="stable")[:top]
        self._shown = 0

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """One item each."""
        item = self._items[self._shown % len(self._items)]
        self._shown += 1
        return _certain(np.full(len(observation), item, dtype=np.int64))

    def scores(self, observation: NDArray[Any]) -> NDArray[np.float64]:
        """Popularity, float64[B, N]."""
        return np.broadcast_to(self._popularity, (len(observation), len(self._popularity)))


class PerUserBandit:
    """A bandit for every user over the `arms` most popular items, looking at his own clicks alone.

    Values begin at 1, so that every arm is tried, the most popular first, and move `step` of the way to each reward: an
    item that is clicked stays until the user has wandered on.

    Args:
        simulation: the items.
        arms: how many of them.
        step: share of the way from an arm's value to a reward, in (0, 1].
    """

    def __init__(self, simulation: NextItem, arms: int, step: float) -> None:
        self._items = np.argsort(-popularity(simulation), kind="stable")[:arms]
        self._step = step
        self._value = np.ones((simulation.num_users, arms))
        self._arm = np.zeros(simulation.num_users, dtype=np.int64)

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """One item each, of equal ones the most popular."""
        self._arm = self._value.argmax(axis=1)
        return _certain(self._items[self._arm])

    def observe(self, action: Action, timestep: TimeStep) -> None:
        """Learn from what came of the last action; a user who left is forgotten."""
        rows = np.flatnonzero(timestep.valid)
        value = self._value[rows, self._arm[rows]]
        self._value[rows, self._arm[rows]] = value + self._step * (timestep.reward[rows] - value)
        self._value[timestep.terminated | timestep.truncated] = 1.0


class Bayes:
    """Knows everything but the future: the topic of the newest item, the matrix and all tastes."""

    def __init__(self, simulation: NextItem) -> None:
        self._topic_of = simulation.catalogue.topic_of
        self._best = simulation.click_probabilities().argmax(axis=1)
        self._next_item = simulation.next_item_probabilities()

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """The item of largest click probability for each."""
        return _certain(self._best[self._topics(observation)])

    def scores(self, observation: NDArray[Any]) -> NDArray[np.float64]:
        """Probability of each item to be consumed next, float64[B, N]."""
        return np.asarray(self._next_item[self._topics(observation)])

    def _topics(self, observation: NDArray[Any]) -> NDArray[np.int32]:
        return np.asarray(self._topic_of[observation[:, -1].astype(np.int64)])


Factory = Callable[[Any], Any]


def _on_simulation(build: Callable[[NextItem], Any]) -> Factory:
    return lambda env: build(env.simulation)


BASELINES: Mapping[str, Factory] = {
    "random": _on_simulation(lambda simulation: Behaviour.mix(popularity(simulation), 1.0, 0.0)),
    "popularity mix": _on_simulation(lambda simulation: Behaviour.mix(popularity(simulation), _UNIFORM_SHARE, _SKEW)),
    "round-robin popular": _on_simulation(lambda simulation: Popular(simulation, _POOL)),
    "most popular": _on_simulation(lambda simulation: Popular(simulation, 1)),
    "per-user bandit": _on_simulation(lambda simulation: PerUserBandit(simulation, _POOL, _STEP)),
    "myopic oracle": _on_simulation(Bayes),
}
