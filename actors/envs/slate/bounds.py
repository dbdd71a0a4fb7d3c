"""What no policy of the slate tasks exceeds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.envs.slate.candidates import CandidateSource
from actors.envs.slate.interests import InterestModel
from actors.envs.slate.planning import is_exact, minutes_taken, watch_rates
from actors.envs.slate.simulation import SlateSimulation

_WATCHES = 250  # of one topic, after which an interest stays where it is
_SAMPLES = 64  # of candidates
_ROUNDS = 6
_USERS = 256  # at a time


def best_interests_bound(simulation: SlateSimulation) -> NDArray[np.float64]:
    """Minutes watched if every interest were, all session long, the highest it may ever come to.

    Whether an interest rises or falls when its topic is watched the n-th time is drawn here beforehand, and the policy
    is told; then it is given each interest at its height from the start. With interests that do not move, minutes
    watched - rate x minutes taken is not above 0 in any step's mean, whatever is shown (`watch_rates`), so a session
    is worth its time x rate; what less than one document's minutes are worth at its end is bounded by the best quality.

    Returns:
        float64[B], for every running user, whose session has just begun; their mean bounds the mean return.
    """
    model, quality = simulation.model, simulation.catalogue.quality
    minutes = minutes_taken(model, quality)
    if minutes.min() <= 0.0:
        return np.full(simulation.num_users, np.inf)
    rest = model.length**2 / float(minutes.min())
    if not is_exact(simulation.choice):  # whatever it is, something of the best quality is watched every time
        return np.full(simulation.num_users, model.budget_minutes * rest / model.length)
    rng = np.random.default_rng(model.catalogue_seed)
    candidates = CandidateSource(model.documents, model.candidates).draw(_SAMPLES, rng)
    heights = highest(simulation.interests, simulation.interest_model, rng)
    rates = [_rates(simulation, part, candidates) for part in np.array_split(heights, -(-len(heights) // _USERS))]
    rate = np.concatenate(rates).astype(np.float64)
    beyond = max(model.ignore_minutes, float(minutes.max()) - model.length)
    return np.maximum(rate * (model.budget_minutes - model.length) + rest, rate * (model.budget_minutes + beyond))


def highest(
    interests: NDArray[np.float32], interest_model: InterestModel, rng: np.random.Generator
) -> NDArray[np.float32]:
    """The highest that each interest comes to if its topic is watched again and again: [B, T] -> [B, T]."""
    now = interests.reshape(-1)
    height = now.copy()
    for _ in range(_WATCHES):
        now = interest_model.moved(now, rng.random(now.shape, dtype=np.float32))
        np.maximum(height, now, out=height)
    return height.reshape(interests.shape)


def _rates(
    simulation: SlateSimulation, interests: NDArray[np.float32], candidates: NDArray[np.int32]
) -> NDArray[np.float32]:
    catalogue, model = simulation.catalogue, simulation.model
    scores = interests[:, catalogue.topic[candidates]]
    minutes = minutes_taken(model, catalogue.quality[candidates])
    rates = np.ones(len(interests), dtype=np.float32)
    for _ in range(_ROUNDS):
        rates = watch_rates(model, simulation.choice, scores, minutes, rates, fill=False)
    return rates


BOUNDS: Mapping[str, Callable[[Any], NDArray[np.float64]]] = {
    "interests at their height, known beforehand": lambda env: best_interests_bound(env.simulation),
}
