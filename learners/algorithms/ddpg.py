"""DDPG: a deterministic actor up the gradient of its critic (Lillicrap et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from msgspec import Meta
from torch import Tensor

from learners.acting.deterministic_policy import DeterministicPolicy
from learners.actor_critic import ActorCriticConfig, ActorCriticRule
from learners.algorithm import Positive
from learners.gradient_learner import GradientLearner
from learners.task import Task
from replay_server.specs import RecordSpec


class DDPGConfig(ActorCriticConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of DDPG."""

    type: Annotated[str, Meta(description="Short name or module:Class of the algorithm.")] = "ddpg"
    final_layer_bound: Annotated[
        Positive | None, Meta(description="Last layers start in U(-x, x); null: like the other layers.")
    ] = 3e-3
    critic_weight_decay: Annotated[
        float, Meta(ge=0, description="Factor of half the critic's squared weights and biases in its loss.")
    ] = 0.0

    def make_learner(self, task: Task, spec: RecordSpec, *, seed: int, device: str) -> GradientLearner:
        """A fresh learner on a torch device (`cpu`, `cuda`)."""
        return GradientLearner(self, DDPGRule(self, task, seed=seed, device=device), spec, device)

    def make_policy(self, task: Task, *, env_indices: Sequence[int], total_envs: int) -> DeterministicPolicy:
        """The actor with noise; its weights are zero until a snapshot is loaded."""
        actor = self.make_actor(task, task.continuous("ddpg"), torch.Generator())
        return DeterministicPolicy(actor, self.make_noise(env_indices, total_envs), self.random_env_steps)


class DDPGRule(ActorCriticRule):
    """One critic; actor and targets move with every update."""

    def __init__(self, config: DDPGConfig, task: Task, *, seed: int, device: str) -> None:
        actions = task.continuous("ddpg")
        super().__init__(config, task, actions, seed=seed, device=device, critics=1, actor_period=1)
        self._weight_decay = config.critic_weight_decay

    def penalty(self) -> Tensor | None:
        """Half the squared parameters of the critic times the weight decay."""
        if not self._weight_decay:
            return None
        squares = [parameter.square().sum() for parameter in self.critics.parameters()]
        return 0.5 * self._weight_decay * torch.stack(squares).sum()
