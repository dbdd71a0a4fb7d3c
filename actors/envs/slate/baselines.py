"""The ladder of simple policies that an agent of the slate tasks is measured against."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from actors.envs.slate.candidates import CandidateSource
from actors.envs.slate.planning import best_slates, minutes_taken, odds, watch_rates
from actors.envs.slate.simulation import SlateSimulation
from actors.timestep import TimeStep
from learners.policies import Action

_SAMPLES = 8  # of candidates, that a user's time is valued by
_ROUNDS = 2  # towards the rate, from that of the step before
_FIRST_RATE = 1.8


class Ranker:
    """Shows the K candidates that a measure ranks highest, of equals the first.

    Args:
        simulation: users and candidates, which measures may look into.
        measure: simulation -> float[B, M], what the ranking goes by.
    """

    def __init__(self, simulation: SlateSimulation, measure: Callable[[SlateSimulation], NDArray[Any]]) -> None:
        self._simulation = simulation
        self._measure = measure

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """One slate each."""
        return ranked(self._simulation, self._measure(self._simulation))


class Uniform:
    """Any slate without repeats, with equal probability."""

    def __init__(self, simulation: SlateSimulation) -> None:
        self._simulation = simulation

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """One slate each."""
        return ranked(self._simulation, rng.random(self._simulation.candidates.shape))


class TopicBandit:
    """Thompson sampling of how often each user watches something of a topic when it is shown; sees no interests.

    Args:
        simulation: candidates and what was watched.
    """

    def __init__(self, simulation: SlateSimulation) -> None:
        self._simulation = simulation
        shape = simulation.interests.shape
        self._watched, self._ignored = np.ones(shape), np.ones(shape)

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """One slate each."""
        simulation = self._simulation
        topics = simulation.catalogue.topic[simulation.candidates]
        share = np.take_along_axis(rng.beta(self._watched, self._ignored), topics, axis=1)
        action = ranked(simulation, share)
        slate = np.argsort(-share, axis=1, kind="stable")[:, : simulation.model.slots]
        self._shown = np.take_along_axis(topics, slate, axis=1)
        return action

    def observe(self, action: Action, timestep: TimeStep) -> None:
        """Learn from what came of the last slate; a user who left is forgotten."""
        gone = timestep.terminated | timestep.truncated
        rows = np.flatnonzero(timestep.valid & ~gone)
        for place in range(self._shown.shape[1]):
            watched = self._simulation.response[rows, place] > 0
            self._watched[rows, self._shown[rows, place]] += watched
            self._ignored[rows, self._shown[rows, place]] += ~watched
        self._watched[gone] = self._ignored[gone] = 1.0


class Planner:
    """The slate of largest expected minutes watched - rate x minutes taken, where rate is what a minute of this user's
    time is worth as things stand (`watch_rates`). Knows everything but how interests will move.

    Args:
        simulation: users and candidates.
    """

    def __init__(self, simulation: SlateSimulation) -> None:
        self._simulation = simulation
        model, catalogue = simulation.model, simulation.catalogue
        source, rng = CandidateSource(model.documents, model.candidates), np.random.default_rng(model.catalogue_seed)
        documents = source.draw(_SAMPLES, rng)
        self._topics, self._minutes = catalogue.topic[documents], minutes_taken(model, catalogue.quality[documents])
        self._rate = np.full(simulation.num_users, _FIRST_RATE, dtype=np.float32)

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """One slate each."""
        simulation, model = self._simulation, self._simulation.model
        scores = simulation.interests[:, self._topics]
        for _ in range(_ROUNDS):
            self._rate = watch_rates(model, simulation.choice, scores, self._minutes, self._rate, fill=True)
        gain = np.float32(model.length) - self._rate[:, None] * minutes_taken(model, quality(simulation))
        none = -self._rate * np.float32(model.ignore_minutes)
        slate, _ = best_slates(simulation.choice, interest(simulation), gain, none, model.slots, fill=True)
        measure = np.zeros(simulation.candidates.shape, dtype=np.float32)
        np.put_along_axis(measure, slate, np.arange(model.slots, 0, -1, dtype=np.float32)[None], axis=1)
        return ranked(simulation, measure)


def ranked(simulation: SlateSimulation, measure: NDArray[Any]) -> Action:
    """The action that shows the K candidates of largest measure float[B, M], largest first, of equals the first."""
    order = np.argsort(-measure, axis=1, kind="stable")
    model, certain = simulation.model, np.zeros(len(measure), dtype=np.float32)
    if model.action_mode == "slate":
        return Action(order[:, : model.slots], certain)
    scores = np.empty(order.shape, dtype=np.float32)
    np.put_along_axis(scores, order, np.linspace(1.0, -1.0, model.candidates, dtype=np.float32)[None], axis=1)
    return Action(scores, certain)


def interest(simulation: SlateSimulation) -> NDArray[np.float32]:
    """How much users are interested in each candidate, float32[B, M]."""
    topics = simulation.catalogue.topic[simulation.candidates]
    return np.take_along_axis(simulation.interests, topics, axis=1)


def quality(simulation: SlateSimulation) -> NDArray[np.float32]:
    """Quality of each candidate, float32[B, M]."""
    return simulation.catalogue.quality[simulation.candidates]


def odds_for_time(simulation: SlateSimulation) -> NDArray[np.float32]:
    """Odds that each candidate is watched, for each minute that it takes, float32[B, M]."""
    likely = odds(simulation.choice, interest(simulation))
    return np.asarray(likely / minutes_taken(simulation.model, quality(simulation)))


Factory = Callable[[gymnasium.vector.VectorEnv[Any, Any, Any]], Any]


def _on_simulation(build: Callable[[SlateSimulation], Any]) -> Factory:
    return lambda env: build(env.simulation)  # type: ignore[attr-defined]


BASELINES: Mapping[str, Factory] = {
    "random": _on_simulation(Uniform),
    "per-user bandit": _on_simulation(TopicBandit),
    "most likely watched": _on_simulation(lambda simulation: Ranker(simulation, interest)),
    "odds for time": _on_simulation(lambda simulation: Ranker(simulation, odds_for_time)),
    "best quality": _on_simulation(lambda simulation: Ranker(simulation, quality)),
    "planner with interests as they are": _on_simulation(Planner),
}
