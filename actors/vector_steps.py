"""Drives a Gymnasium vector environment so that every autoreset mode looks the same."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from actors.discounts import read_hours
from actors.episode_metrics import EpisodeMetrics
from actors.packing import Packer
from actors.ranking import read_next_item
from actors.timestep import TimeStep
from replay_server.errors import ConfigError, EnvironmentFault


class VectorSteps:
    """Steps B environments; every TimeStep is one of the present episode, whatever the autoreset mode.

    Observations are new arrays in the layout of `layouts.observation_layout`; they are shared between `observation` and
    `next_observation` where nothing ended, so treat them as read-only.

    Args:
        env: vector environment whose `metadata["autoreset_mode"]` is an AutoresetMode.
        name: what errors call it (default its Gymnasium id or class).

    Raises:
        ConfigError: the autoreset mode is not declared, or the observation space can't be stored.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], name: str | None = None) -> None:
        self.env = env
        self.num_envs = env.num_envs
        spec = getattr(env, "spec", None)
        self.name = name or (spec.id if spec is not None else type(env.unwrapped).__name__)
        self._mode = _autoreset_mode(env, self.name)
        self._packer = Packer(env.single_observation_space, self.name)
        self._metrics = EpisodeMetrics(env, self.name)
        self._ended = np.zeros(self.num_envs, dtype=np.bool_)

    def reset(self, seed: int) -> NDArray[Any]:
        """Begin new episodes everywhere; returns the first observations [B, *shape]."""
        self._ended[:] = False
        observation, _ = self._call("reset", seed=seed)
        return self._packer.batch(observation, self.num_envs, "reset")

    def step(self, action: NDArray[Any]) -> TimeStep:
        """Act once in every environment.

        Args:
            action: [B, ...] of the action space.

        Raises:
            EnvironmentFault: the environment raised, or returned NaN, Inf, a wrong shape, no final observation, not
                its metrics, a next item that is no whole number, or time that runs backwards.
        """
        action = np.asarray(action, dtype=self.env.action_space.dtype)
        raw_observation, raw_reward, raw_terminated, raw_truncated, info = self._call("step", action)
        seen = self._packer.batch(raw_observation, self.num_envs, "step")
        reward = self._reward(raw_reward)
        terminated, truncated = self._flags(raw_terminated, "terminated"), self._flags(raw_truncated, "truncated")
        ended = terminated | truncated
        next_item = read_next_item(info, self.num_envs, self.name)
        hours = read_hours(info, ended, self.name)
        if self._mode is AutoresetMode.NEXT_STEP:
            after = self._after_next_step(seen, reward, terminated, truncated)
            metrics = self._metrics.read(info, after.terminated | after.truncated)
            return replace(after, metrics=metrics, next_item=next_item, hours=hours)
        observation = successor = seen
        if ended.any():
            if self._mode is AutoresetMode.SAME_STEP:
                successor = self._packer.final(info.get("final_obs"), ended, seen)
            else:
                fresh, _ = self._call("reset", options={"reset_mask": ended.copy()})
                fresh = self._packer.batch(fresh, self.num_envs, "reset")
                observation = np.where(_rows_of(ended, seen), fresh, seen)
        valid, metrics = np.ones_like(ended), self._metrics.read(info, ended)
        return TimeStep(observation, successor, reward, terminated, truncated, valid, metrics, next_item, hours)

    def close(self) -> None:
        """Close the environment."""
        self.env.close()

    def _after_next_step(
        self,
        seen: NDArray[Any],
        reward: NDArray[np.float32],
        terminated: NDArray[np.bool_],
        truncated: NDArray[np.bool_],
    ) -> TimeStep:
        """Rows that ended one step ago only carried out their reset now."""
        valid = ~self._ended
        self._ended = (terminated | truncated) & valid
        reward = np.where(valid, reward, np.float32(0.0))
        return TimeStep(seen, seen, reward, terminated & valid, truncated & valid, valid)

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return getattr(self.env, method)(*args, **kwargs)
        except Exception as error:
            text = " ".join(str(error).split())
            raise EnvironmentFault(
                f"environment {self.name}: {method} raised {type(error).__name__}: {text}"
            ) from error

    def _reward(self, raw: Any) -> NDArray[np.float32]:
        reward = np.array(raw, dtype=np.float32)
        if reward.shape != (self.num_envs,):
            raise EnvironmentFault(f"environment {self.name}: reward has shape {reward.shape}, not ({self.num_envs},)")
        if not np.isfinite(reward).all():
            bad = np.flatnonzero(~np.isfinite(reward))[0]
            raise EnvironmentFault(f"environment {self.name}, index {bad}: reward is NaN or infinite")
        return reward

    def _flags(self, raw: Any, what: str) -> NDArray[np.bool_]:
        flags = np.array(raw, dtype=np.bool_)
        if flags.shape != (self.num_envs,):
            raise EnvironmentFault(f"environment {self.name}: {what} has shape {flags.shape}, not ({self.num_envs},)")
        return flags


def _rows_of(mask: NDArray[np.bool_], like: NDArray[Any]) -> NDArray[np.bool_]:
    return mask.reshape(mask.shape + (1,) * (like.ndim - 1))


def _autoreset_mode(env: VectorEnv[Any, Any, Any], name: str) -> AutoresetMode:
    metadata = getattr(env, "metadata", None) or {}
    mode = metadata.get("autoreset_mode")
    if isinstance(mode, AutoresetMode):
        return mode
    said = f"is {mode!r}" if "autoreset_mode" in metadata else f"is missing (metadata has {sorted(metadata)})"
    raise ConfigError(
        f"environment.id {name}: metadata['autoreset_mode'] {said}; set it to a gymnasium.vector.AutoresetMode"
    )
