"""The contract of an algorithm: a frozen config that builds its own learner and policies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from learners.learner import Learner
from learners.policies import Policy
from learners.task import Task
from replay_server.specs import RecordSpec


class Algorithm(Protocol):
    """What `algorithm.type` names: a msgspec.Struct, frozen, with these fields and methods."""

    @property
    def batch_size(self) -> int: ...

    @property
    def gamma(self) -> float: ...

    @property
    def n_step(self) -> int: ...

    @property
    def reward_scale(self) -> float: ...

    def make_learner(self, task: Task, spec: RecordSpec, *, seed: int, device: str) -> Learner:
        """A fresh learner.

        Raises:
            ConfigError: the algorithm's networks can't take this task.
        """

    def make_policy(self, task: Task, *, env_indices: Sequence[int], total_envs: int) -> Policy:
        """A policy for the environments at `env_indices` of the run's `total_envs`."""
