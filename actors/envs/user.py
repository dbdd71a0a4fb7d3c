"""One simulated user as a Gymnasium environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector.utils import batch_space

from actors.envs.simulation import Observation, Simulation, check_actions


class UserEnv(gymnasium.Env[Any, Any]):
    """One user. `gymnasium.make` adds the limit on steps that the id was registered with.

    Args:
        simulation: of one user.
        render_mode: always None, there is nothing to draw.

    Attributes:
        simulation: as given.
        episode_metrics: names of the info's entries that tell of the episode so far.
        item_embeddings: float32[N, d], vectors of the items actions choose from; None where there are none.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012  Gymnasium declares it an instance attribute

    def __init__(self, simulation: Simulation, render_mode: str | None = None) -> None:
        self.render_mode = render_mode
        self.simulation = simulation
        self.episode_metrics = simulation.episode_metrics
        self.item_embeddings = simulation.item_embeddings
        self.observation_space = simulation.observation_space
        self.action_space = simulation.action_space
        self._actions = batch_space(self.action_space, 1)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Meet a new user."""
        super().reset(seed=seed)
        self.simulation.generator = self.np_random
        self.simulation.reset()
        return _first(self.simulation.observe()), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Act once.

        Raises:
            ValueError: it is no action.
        """
        actions = np.asarray(action)[None]
        check_actions(self._actions, actions)
        outcome = self.simulation.step(actions)
        info = {name: values[0] for name, values in outcome.info.items()}
        ended = bool(outcome.terminated[0]), bool(outcome.truncated[0])
        return _first(self.simulation.observe()), float(outcome.reward[0]), *ended, info


def _first(observation: Observation) -> Any:
    if isinstance(observation, dict):
        return {name: values[0] for name, values in observation.items()}
    return observation[0]
