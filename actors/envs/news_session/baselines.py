"""The ladder of simple policies a NewsSession agent is measured against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from actors.envs.news_session.simulation import NewsSession
from actors.timestep import TimeStep
from learners.policies import Action

Scores = Callable[[NewsSession], NDArray[np.float32]]
"""What the articles on offer are ranked by: float32[B, M] (or [M], the same for all users)."""

_RIDGE, _OPTIMISM = 1.0, 0.5


class Uniform:
    """Any different articles in any order."""

    def __init__(self, simulation: NewsSession) -> None:
        self._simulation = simulation

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """One list each."""
        model = self._simulation.model
        lists = best(rng.random((len(observation), model.pool), dtype=np.float32), model.slots)
        ways = np.log(np.arange(model.pool, model.pool - model.slots, -1)).sum()
        return Action(lists, np.full(len(lists), -ways, dtype=np.float32))


class Ranked:
    """The articles of highest score, the highest at the top.

    Args:
        simulation: the articles and users.
        scores: what they are ranked by.
    """

    def __init__(self, simulation: NewsSession, scores: Scores) -> None:
        self._simulation = simulation
        self._scores = scores

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """One list each."""
        model = self._simulation.model
        scores = np.broadcast_to(self._scores(self._simulation), (len(observation), model.pool))
        return _certain(best(scores, model.slots))


class LinUCB:
    """Each user's own ridge regression of clicks on article properties, with optimism (Li et al. 2010).

    An article x ranks by theta . x + alpha sqrt(x' A^-1 x); clicks count the same at every place.

    Args:
        simulation: the articles' properties, and what was clicked.
    """

    def __init__(self, simulation: NewsSession) -> None:
        self._simulation = simulation
        size = simulation.model.article_properties + 1
        self._start = np.eye(size, dtype=np.float32) / np.float32(_RIDGE)
        self._inverse = np.repeat(self._start[None], simulation.num_users, axis=0)
        self._moment = np.zeros((simulation.num_users, size), dtype=np.float32)
        self._shown = np.zeros((simulation.num_users, 0, size), dtype=np.float32)

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """One list each."""
        properties = self._simulation.pool.properties
        articles = np.column_stack([properties, np.ones(len(properties), dtype=np.float32)])
        theta = np.einsum("bij,bj->bi", self._inverse, self._moment)
        spread = ((articles @ self._inverse) * articles).sum(axis=2)
        lists = best(theta @ articles.T + np.float32(_OPTIMISM) * np.sqrt(spread), self._simulation.model.slots)
        self._shown = articles[lists]
        return _certain(lists)

    def observe(self, action: Action, timestep: TimeStep) -> None:
        """Learn from the clicks on the last lists; a user who left is forgotten."""
        for place in range(self._shown.shape[1]):
            article = self._shown[:, place]
            step = np.einsum("bij,bj->bi", self._inverse, article)
            norm = np.float32(1.0) + (step * article).sum(axis=1)
            self._inverse -= step[:, :, None] * (step / norm[:, None])[:, None, :]
            self._moment += article * self._simulation.response[:, place, None]
        gone = timestep.terminated | timestep.truncated | ~timestep.valid
        self._inverse[gone] = self._start
        self._moment[gone] = 0.0


def best(scores: NDArray[np.floating[Any]], slots: int) -> NDArray[np.int64]:
    """Positions of the highest scores [B, M], the highest first: int64[B, slots]."""
    top = np.argpartition(-scores, slots - 1, axis=1)[:, :slots]
    order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1)
    return np.take_along_axis(top, order, axis=1)


def _certain(lists: NDArray[np.int64]) -> Action:
    return Action(lists, np.zeros(len(lists), dtype=np.float32))


Factory = Callable[[gymnasium.vector.VectorEnv[Any, Any, Any]], Any]


def _on_simulation(build: Callable[[NewsSession], Any]) -> Factory:
    return lambda env: build(env.simulation)  # type: ignore[attr-defined]


def _ranked(scores: Scores) -> Factory:
    return _on_simulation(lambda simulation: Ranked(simulation, scores))


BASELINES: Mapping[str, Factory] = {
    "random": _on_simulation(Uniform),
    "worth": _ranked(lambda simulation: simulation.pool.worth),
    "popular": _ranked(lambda simulation: simulation.pool.appeal),
    "per-user LinUCB": _on_simulation(LinUCB),
    "click probability": _ranked(lambda simulation: simulation.click_probabilities()),
    "click probability x sqrt(worth)": _ranked(
        lambda simulation: simulation.click_probabilities() * np.sqrt(simulation.pool.worth)
    ),
    "click probability x worth": _ranked(lambda simulation: simulation.click_probabilities() * simulation.pool.worth),
}
