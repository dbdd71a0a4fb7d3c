"""Simulated users as a Gymnasium vector environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from actors.envs.simulation import Observation, Simulation, check_actions

Step = tuple[Observation, NDArray[np.float32], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]


class UsersVectorEnv(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """B users at once, without a loop over them.

    With autoreset SAME_STEP `infos["final_obs"]` holds the last observations of episodes that ended, at the rows of
    `infos["_final_obs"]`; they belong to the user that left, the observation returned to the next one.

    Args:
        simulation: of B users.
        max_episode_steps: steps after which an episode is truncated; None leaves its end to the simulation.
        autoreset_mode: "SameStep", "NextStep" or "Disabled".
        render_mode: always None, there is nothing to draw.

    Attributes:
        simulation: as given.
        episode_metrics: names of the infos' entries that tell of the episode so far.
        item_embeddings: float32[N, d], vectors of the items actions choose from; None where there are none.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012  Gymnasium declares it an instance attribute
        "render_modes": [],
        "autoreset_mode": AutoresetMode.SAME_STEP,
    }

    _baselines: ClassVar[Mapping[str, Callable[[Any], Any]]] = {}
    _bounds: ClassVar[Mapping[str, Callable[[Any], NDArray[np.float64]]]] = {}

    def __init__(
        self,
        simulation: Simulation,
        *,
        max_episode_steps: int | None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.SAME_STEP,
        render_mode: str | None = None,
    ) -> None:
        if max_episode_steps is not None and max_episode_steps < 1:
            raise ValueError(f"max_episode_steps is {max_episode_steps}, must be at least 1")
        self.num_envs = simulation.num_users
        self.max_episode_steps = max_episode_steps
        self.render_mode = render_mode
        self.metadata = {**type(self).metadata, "autoreset_mode": AutoresetMode(autoreset_mode)}
        self.simulation = simulation
        self.episode_metrics = simulation.episode_metrics
        self.item_embeddings = simulation.item_embeddings
        self.single_observation_space = simulation.observation_space
        self.single_action_space = simulation.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._steps = np.zeros(self.num_envs, dtype=np.int64)
        self._ended = np.zeros(self.num_envs, dtype=np.bool_)

    @classmethod
    def baselines(cls) -> Mapping[str, Callable[[Any], Any]]:
        """Policies to compare with, weakest first: name -> factory taking this vector environment."""
        return cls._baselines

    @classmethod
    def bounds(cls) -> Mapping[str, Callable[[Any], NDArray[np.float64]]]:
        """What no policy exceeds: name -> function of this vector environment, just reset, whose users it may look at.

        It returns the undiscounted returns of an episode, float64[n]: one a user, of all or of a sample; or float64[]
        where the number is worked out and holds for every user.
        """
        return cls._bounds

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Meet new users, at the rows of `options["reset_mask"]` (bool[B]) or everywhere.

        Raises:
            ValueError: the mask is none.
        """
        mask = np.ones(self.num_envs, dtype=np.bool_)
        if options is not None and "reset_mask" in options:
            mask = np.asarray(options["reset_mask"])
            if mask.dtype != np.bool_ or mask.shape != (self.num_envs,):
                raise ValueError(f"reset_mask is {mask.dtype}{list(mask.shape)}, must be bool[{self.num_envs}]")
        super().reset(seed=seed)
        self.simulation.generator = self.np_random
        self._reset_rows(mask)
        return self.simulation.observe(), {}

    def step(self, actions: Any) -> Step:
        """Act once on every user.

        Raises:
            ValueError: these are no actions.
            RuntimeError: in DISABLED mode an episode has ended and was not reset.
        """
        actions = np.asarray(actions)
        check_actions(self.action_space, actions)
        mode = self.metadata["autoreset_mode"]
        if mode is AutoresetMode.DISABLED and self._ended.any():
            raise RuntimeError('an episode has ended: call reset(options={"reset_mask": mask}) first')
        fresh = self._ended.copy()
        outcome = self.simulation.step(actions)
        reward, terminated, truncated = outcome.reward, outcome.terminated, outcome.truncated
        self._steps += 1
        if fresh.any():  # only in NEXT_STEP mode: these rows ignore their action and begin anew
            self._reset_rows(fresh)
            reward, terminated, truncated = (
                np.where(fresh, np.float32(0.0), reward),
                terminated & ~fresh,
                truncated & ~fresh,
            )
        if self.max_episode_steps is not None:
            truncated = truncated | ((self._steps >= self.max_episode_steps) & ~terminated)
        infos: dict[str, Any] = {}
        for name, values in outcome.info.items():
            kept = values.copy() if name in self.episode_metrics else values  # a reset may begin to count anew in it
            infos |= {name: kept, f"_{name}": ~fresh}
        observation = self.simulation.observe()
        ended = terminated | truncated
        if ended.any():
            if mode is AutoresetMode.SAME_STEP:
                infos |= {"final_obs": observation, "_final_obs": ended}
                self._reset_rows(ended)
                observation = self.simulation.observe()
            else:
                self._ended = ended
        return observation, reward, terminated, truncated, infos

    def _reset_rows(self, mask: NDArray[np.bool_]) -> None:
        rows = np.flatnonzero(mask)
        self.simulation.reset(rows)
        self._steps[rows] = 0
        self._ended[rows] = False
