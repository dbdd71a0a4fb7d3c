"""The policies whose worth is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.envs.topk_toy.fixed_points import best_independent, uncorrected
from actors.envs.topk_toy.model import TopKToyModel
from learners.policies import Action


class Draws:
    """K independent draws of one distribution; `log_prob` is that of the drawn items in their order.

    Args:
        pi: float64[items], sums to 1.
        slate_size: K.
    """

    def __init__(self, pi: NDArray[np.float64], slate_size: int) -> None:
        self._pi = pi
        self._slate_size = slate_size

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """One slate each, int64[B, K], or int64[B] of one item."""
        slate = rng.choice(len(self._pi), size=(len(observation), self._slate_size), p=self._pi)
        log_prob = np.log(self._pi[slate]).sum(axis=1).astype(np.float32)
        return Action(slate if self._slate_size > 1 else slate[:, 0], log_prob)


def _draws(of: Callable[[TopKToyModel], NDArray[np.float64]]) -> Callable[[Any], Draws]:
    return lambda env: Draws(of(env.simulation.model), env.simulation.model.slate_size)


BASELINES: Mapping[str, Callable[[Any], Any]] = {
    "logging policy": _draws(lambda model: model.logging_probabilities()),
    "learnt without correction": _draws(lambda model: uncorrected(model.worth(), model.logging_probabilities())),
    "best single item": _draws(lambda model: best_independent(model.worth(), 1)),
    "best independent draws": _draws(lambda model: best_independent(model.worth(), model.slate_size)),
}
