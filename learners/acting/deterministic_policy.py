"""A deterministic actor with noise around it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from learners.acting.noise import Noise, NoisyActions
from learners.networks.actor_critic import Actor
from learners.policies import Action, NetworkPolicy


class DeterministicPolicy(NetworkPolicy[Actor]):
    """The actor's action plus noise, cut to the bounds; uniform actions at the start of the run.

    `log_prob` is exact for what is stored: see `clipped_normal_log_prob`; given the noise's past where it has one.

    Args:
        actor: the network.
        noise: one row an environment.
        random_env_steps: transitions of the run before which actions are uniform.
    """

    def __init__(self, actor: Actor, noise: Noise, random_env_steps: int) -> None:
        super().__init__(actor)
        self._noisy = NoisyActions(actor.bounds, noise)
        self._random_env_steps = random_env_steps

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """Actions float32[B, n]; see Policy.act."""
        if explore and env_steps < self._random_env_steps:
            return self._noisy.uniform(len(observation), rng)
        with torch.inference_mode():
            greedy = self._network(torch.from_numpy(observation)).numpy()
        if not explore:
            return Action(greedy, np.zeros(len(greedy), dtype=np.float32))
        return self._noisy.around(greedy, rng)
