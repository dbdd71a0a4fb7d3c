"""Filtered behaviour cloning: do what was done in the records with a good reward, and nothing else.

It looks at the `reward` of a record alone: the scaled sum over its `n_step` steps, or with `n_step: null` the return
from there to the end of the episode. What came after is not seen, so with few steps a filter prefers quick rewards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor, nn

from learners.acting.deterministic_policy import DeterministicPolicy
from learners.acting.exploration import boltzmann
from learners.acting.noise import GaussianNoise
from learners.algorithm import AlgorithmConfig, Count, Positive, seeded
from learners.gradient_learner import GradientLearner
from learners.losses.cloning import negative_log_likelihood, squared_distances
from learners.networks.actor_critic import Actor
from learners.networks.behaviour import ActionLogits
from learners.networks.offers import Offers
from learners.networks.torsos import make_torso
from learners.optimization.optimizers import Optimizer
from learners.policies import Action, NetworkPolicy, Policy
from learners.task import ContinuousActions, Task
from learners.update_rule import Updated, UpdateRule
from replay_server.specs import RecordSpec


class BehaviourCloningConfig(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of filtered behaviour cloning."""

    type: Annotated[str, Meta(description="Short name or module:Class of the algorithm.")] = "behaviour_cloning"
    n_step: Annotated[
        Count | None, Meta(description="Steps summed into one reward; null: all to the end of the episode.")
    ] = 1  # type: ignore[assignment]
    least_reward: Annotated[
        float | None, Meta(description="Only records of at least this (scaled) reward are cloned; null: no such limit.")
    ] = None
    reward_quantile: Annotated[
        Annotated[float, Meta(ge=0, lt=1)] | None,
        Meta(description="Only records at or above this quantile of their batch's rewards are cloned; null: all."),
    ] = None
    sigma: Annotated[
        Positive, Meta(description="Noise of actors that go on online, in half ranges (continuous actions).")
    ] = 0.1
    temperature: Annotated[
        Positive, Meta(description="Actors that go on online draw from softmax(logits / this) (discrete actions).")
    ] = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.least_reward is not None and self.reward_quantile is not None:
            raise ValueError("least_reward and reward_quantile are two filters: set one of them")

    def make_learner(self, task: Task, spec: RecordSpec, *, seed: int, device: str) -> GradientLearner:
        """A fresh learner on a torch device (`cpu`, `cuda`)."""
        return GradientLearner(self, CloningRule(self, task, seed=seed, device=device), spec, device)

    def make_policy(self, task: Task, *, env_indices: Sequence[int], total_envs: int) -> Policy:
        """Does what the records did; its weights are zero until a snapshot is loaded."""
        network = self.make_network(task, torch.Generator())
        if isinstance(network, Actor):
            return DeterministicPolicy(network, GaussianNoise(np.full(len(env_indices), self.sigma)), 0)
        return LogitsPolicy(network, self.temperature)

    def make_network(self, task: Task, generator: torch.Generator) -> Actor | ActionLogits:
        """An actor of continuous actions, or logits of discrete ones."""
        torso = make_torso(self, task, generator)
        if isinstance(task.actions, ContinuousActions):
            return Actor(torso, task.actions, generator)
        actions = task.discrete("behaviour_cloning").count
        return ActionLogits(torso, actions, Offers(task, actions), generator)


class CloningRule(UpdateRule):
    """One network, one loss: distance from the action taken, or minus its log probability."""

    def __init__(self, config: BehaviourCloningConfig, task: Task, *, seed: int, device: str) -> None:
        super().__init__()
        self._config = config
        self.network = config.make_network(task, seeded(seed)).to(device)
        self.optimizers = {"network": Optimizer(self.network, config)}

    @property
    def acting(self) -> nn.Module:
        """The network."""
        return self.network

    def update(self, t: Mapping[str, Tensor], weights: Tensor, *, number: int, diagnose: bool) -> Updated:
        """One step on the records that pass the filter; they have no errors. See UpdateRule.update."""
        kept = self.kept(t["reward"])
        losses = self._losses(t["observation"], t["action"])
        share = self.replicas.gather(kept).sum().clamp(min=1.0) / self.replicas.count
        loss = torch.dot(losses * weights, kept) / share
        self.optimizers["network"].minimise(loss)
        if not diagnose:
            return Updated(None)
        diagnostics = {
            "loss": loss,
            "cloning_loss": losses.mean(),
            "kept_records": kept.mean(),
        }
        return Updated(None, diagnostics)

    def kept(self, r_t: Tensor) -> Tensor:
        """Which records pass the filter: rewards float[B] -> float[B], 1 or 0."""
        if self._config.least_reward is not None:
            return (r_t >= self._config.least_reward).float()
        if self._config.reward_quantile is not None:
            return (r_t >= torch.quantile(self.replicas.gather(r_t), self._config.reward_quantile)).float()
        return torch.ones_like(r_t)

    def _losses(self, observation: Tensor, action: Tensor) -> Tensor:
        if isinstance(self.network, Actor):
            bounds = self.network.bounds
            return squared_distances(bounds.to_unit(self.network(observation)), bounds.to_unit(action))
        return negative_log_likelihood(self.network.offered(self.network(observation), observation, action), action)


class LogitsPolicy(NetworkPolicy[ActionLogits]):
    """The likeliest action, or one drawn by its probability when exploring."""

    def __init__(self, network: ActionLogits, temperature: float) -> None:
        super().__init__(network)
        self._temperature = temperature

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """Actions int64[B]; see Policy.act."""
        logits = self.scores(observation)
        if not explore:
            return Action(logits.argmax(axis=1), np.zeros(len(logits), dtype=np.float32))
        action, log_prob = boltzmann(logits, self._temperature, rng)
        return Action(action, log_prob.astype(np.float32))

    def scores(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        """The logit of every action, float32[B, A]: the likeliest has the largest."""
        with torch.inference_mode():
            seen = torch.from_numpy(observation)
            return np.asarray(self._network.offered(self._network(seen), seen).numpy())
