"""TD3: twin critics, target smoothing, delayed actor (Fujimoto, van Hoof and Meger 2018)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from learners.acting.deterministic_policy import DeterministicPolicy
from learners.actor_critic import ActorCriticConfig, ActorCriticRule
from learners.algorithm import Count
from learners.gradient_learner import GradientLearner
from learners.policies import Policy
from learners.task import Task
from replay_server.specs import RecordSpec


class TD3Config(ActorCriticConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of TD3."""

    type: Annotated[str, Meta(description="Short name or module:Class of the algorithm.")] = "td3"
    actor_period_updates: Annotated[
        Count, Meta(description="Updates of the critics for one of the actor and of all targets.")
    ] = 2
    smoothing_sigma: Annotated[
        float, Meta(ge=0, description="Noise on target actions, in half ranges of the action.")
    ] = 0.2
    smoothing_clip: Annotated[
        float, Meta(ge=0, description="Largest noise on target actions, in half ranges of the action.")
    ] = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.smoothing_sigma == 0.0:
            self.refuse_idle("with smoothing_sigma 0", "smoothing_clip")

    def make_learner(self, task: Task, spec: RecordSpec, *, seed: int, device: str) -> GradientLearner:
        """A fresh learner on a torch device (`cpu`, `cuda`)."""
        return GradientLearner(self, TD3Rule(self, task, seed=seed, device=device), spec, device)

    def make_policy(self, task: Task, *, env_indices: Sequence[int], total_envs: int) -> Policy:
        """The actor with noise; its weights are zero until a snapshot is loaded."""
        actor = self.make_actor(task, task.continuous("td3"), torch.Generator())
        return DeterministicPolicy(actor, self.make_noise(env_indices, total_envs), self.random_env_steps)


class TD3Rule(ActorCriticRule):
    """Two critics; the target is the lesser of their values of a smoothed target action."""

    def __init__(self, config: TD3Config, task: Task, *, seed: int, device: str) -> None:
        actions = task.continuous("td3")
        period = config.actor_period_updates
        super().__init__(config, task, actions, seed=seed, device=device, critics=2, actor_period=period)
        self._sigma, self._clip = config.smoothing_sigma, config.smoothing_clip

    def next_unit(self, t: Mapping[str, Tensor]) -> Tensor:
        """The target actor's action with noise, within the bounds of each dimension."""
        return self.smoothed_unit(t, self._sigma, self._clip)
