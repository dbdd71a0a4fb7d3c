"""Figures of an episode beside its return, such as clicks, sessions or a click-through rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorEnv
from numpy.typing import NDArray

from replay_server.errors import EnvironmentFault


class EpisodeMetrics:
    """Reads what an environment tells about episodes that end.

    An environment takes part by an attribute `episode_metrics`, names of entries of its step's info that hold a number
    an environment: of the running episode so far, the step's own part included. NaN says that an episode has none.

    Args:
        env: vector environment; one of single environments is asked for theirs, under all wrappers.
        name: what errors call it.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], name: str) -> None:
        inner: Any = env.unwrapped
        if isinstance(inner, SyncVectorEnv):
            inner = inner.envs[0].unwrapped
        self.names: tuple[str, ...] = tuple(getattr(inner, "episode_metrics", ()))
        self._num_envs = env.num_envs
        self._env_name = name

    def read(self, info: Mapping[str, Any], ended: NDArray[np.bool_]) -> Mapping[str, NDArray[np.float64]]:
        """The metrics of one step, name -> float64[B], of use at rows that `ended`; empty where none did.

        Raises:
            EnvironmentFault: the info lacks a metric, or it is of another shape than [B].
        """
        if not self.names or not ended.any():
            return {}
        return {name: self._values(name, info, ended) for name in self.names}

    def _values(self, name: str, info: Mapping[str, Any], ended: NDArray[np.bool_]) -> NDArray[np.float64]:
        going_on, last = info.get(name), info.get("final_info", {}).get(name)
        found = going_on if last is None else last
        values = np.asarray(np.nan if found is None else found, dtype=np.float64)
        if values.shape != (self._num_envs,):
            said = "is missing from its info" if found is None else f"has shape {values.shape}, not ({self._num_envs},)"
            raise EnvironmentFault(f"environment {self._env_name}: {name} of its episode_metrics {said}")
        return np.where(ended, values, np.nan)
