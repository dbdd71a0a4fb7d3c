"""MoviePick as a Gymnasium vector environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from actors.envs.movie_pick.baselines import BASELINES
from actors.envs.movie_pick.core import MoviePickCore
from actors.envs.movie_pick.model import MoviePickModel
from actors.envs.movie_pick.spaces import action_space, observation_space

Step = tuple[NDArray[Any], NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]


class MoviePickVectorEnv(gymnasium.vector.VectorEnv[NDArray[Any], NDArray[Any], NDArray[Any]]):
    """B users at once; every episode is truncated after `max_episode_steps`.

    Args:
        num_envs: B.
        max_episode_steps: length of an episode.
        autoreset_mode: "SameStep" (with `final_obs` in the infos), "NextStep" or "Disabled".
        render_mode: always None, there is nothing to draw.
        constants: fields of MoviePickModel.

    Attributes:
        item_embeddings: float32[films, film_dim], the films' vectors.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  Gymnasium declares it an instance attribute
        "render_modes": [],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        max_episode_steps: int = 100,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
        **constants: Any,
    ) -> None:
        if max_episode_steps < 1:
            raise ValueError(f"max_episode_steps is {max_episode_steps}, must be at least 1")
        self.num_envs = num_envs
        self.max_episode_steps = max_episode_steps
        self.render_mode = render_mode
        self.metadata = {**type(self).metadata, "autoreset_mode": AutoresetMode(autoreset_mode)}
        self.core = MoviePickCore(MoviePickModel(**constants), num_envs)
        self.item_embeddings = self.core.catalogue.films
        self.single_observation_space = observation_space(self.core.model)
        self.single_action_space = action_space(self.core.model)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._ended = np.zeros(num_envs, dtype=np.bool_)

    @staticmethod
    def baselines() -> Mapping[str, Callable[[gymnasium.vector.VectorEnv[Any, Any, Any]], Any]]:
        """Policies to compare with, weakest first: name -> factory taking this vector environment."""
        return BASELINES

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[Any], dict[str, Any]]:
        """Meet new users, at the rows of `options["reset_mask"]` (bool[B]) or everywhere."""
        super().reset(seed=seed)
        self.core.generator = self.np_random
        if options is not None and "reset_mask" in options:
            self._reset_rows(np.asarray(options["reset_mask"], dtype=np.bool_))
        else:
            self._reset_rows(np.ones(self.num_envs, dtype=np.bool_))
        return self.core.observe(), {}

    def step(self, actions: NDArray[Any]) -> Step:
        """Show one film to every user."""
        mode = self.metadata["autoreset_mode"]
        if mode is AutoresetMode.DISABLED and self._ended.any():
            raise RuntimeError('an episode has ended: call reset(options={"reset_mask": mask}) first')
        fresh = self._ended.copy()
        reward = self.core.step(np.asarray(actions))
        self._steps += 1
        if fresh.any():  # only in NEXT_STEP mode: these rows ignore their action and begin anew
            self._reset_rows(fresh)
            reward[fresh] = 0.0
        truncated = self._steps >= self.max_episode_steps
        infos: dict[str, Any] = {}
        observation = self.core.observe()
        if truncated.any():
            if mode is AutoresetMode.SAME_STEP:
                infos = {"final_obs": observation, "_final_obs": truncated.copy()}
                self._reset_rows(truncated)
                observation = self.core.observe()
            else:
                self._ended = truncated.copy()
        return observation, reward, np.zeros(self.num_envs, dtype=np.bool_), truncated, infos

    def _reset_rows(self, mask: NDArray[np.bool_]) -> None:
        rows = np.flatnonzero(mask)
        self.core.reset(rows)
        self._steps[rows] = 0
        self._ended[rows] = False
