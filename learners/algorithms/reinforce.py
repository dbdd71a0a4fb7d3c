"""REINFORCE with a learned baseline, off-policy and top-K corrected (Williams 1992; Chen et al. 2019).

Every quantity is that of the logged action: nothing is sampled anew in an update.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor, nn

from learners.algorithm import AlgorithmConfig, Count, Positive, seeded
from learners.gradient_learner import GradientLearner
from learners.losses.policy_gradient import (
    advantage,
    importance_ratio,
    policy_gradient_loss,
    self_normalised,
    top_k_multiplier,
)
from learners.losses.shapes import weighted_mean
from learners.losses.softmax import Scored, full_softmax, sampled_softmax
from learners.losses.value_learning import squared
from learners.networks.negatives import NegativeSampler
from learners.networks.offers import Offers
from learners.networks.softmax_policy import ItemHead, SoftmaxPolicyNetwork, StateValue
from learners.networks.torsos import make_torso
from learners.optimizers import Optimizer
from learners.policies import Action, NetworkPolicy
from learners.task import Task
from learners.update_rule import Updated, UpdateRule
from replay_server.errors import ConfigError
from replay_server.specs import RecordSpec


class ReinforceConfig(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of REINFORCE."""

    type: Annotated[str, Meta(description="Short name or module:Class of the algorithm.")] = "reinforce"
    n_step: Annotated[
        Count | None, Meta(description="Steps summed into one return; null: to the end of the episode.")
    ] = None  # type: ignore[assignment]
    baseline: Annotated[bool, Meta(description="Learn state values and subtract them from returns.")] = True
    value_learning_rate: Annotated[
        float, Meta(gt=0, description="Step size of the value network at the start; it decays as learning_rate does.")
    ] = 3e-3
    value_minibatches: Annotated[int, Meta(ge=1, description="Steps of the value network per update.")] = 10
    value_minibatch_size: Annotated[
        int, Meta(ge=1, description="Records of one of these steps; the whole batch where it has no more.")
    ] = 512
    normalise_advantages: Annotated[
        bool, Meta(description="Shift and scale a batch's advantages to mean 0 and deviation 1.")
    ] = True
    entropy_cost: Annotated[float, Meta(ge=0, description="Reward for each nat of the policy's entropy.")] = 0.0
    correction: Annotated[
        Literal["none", "stored", "behaviour_head"],
        Meta(description="Divide by no behaviour probability, by the record's own, or by that of a learnt head."),
    ] = "none"
    weight_cap: Annotated[
        Positive | None, Meta(description="Largest importance weight pi / beta; e^3 in the paper; null: no bound.")
    ] = math.exp(3.0)
    self_normalise: Annotated[bool, Meta(description="Divide importance weights by their mean over the batch.")] = False
    behaviour_learning_rate: Annotated[
        float, Meta(gt=0, description="Step size of the behaviour head at the start; it decays as learning_rate does.")
    ] = 1e-3
    top_k: Annotated[
        int, Meta(ge=1, description="K of the top-K multiplier: items shown together; 1 leaves it out.")
    ] = 1
    temperature: Annotated[float, Meta(gt=0, description="Divides the logits of the policy.")] = 1.0
    softmax: Annotated[
        Literal["full", "sampled"], Meta(description="Normalise over all actions, or over the action and negatives.")
    ] = "full"
    negatives: Annotated[int, Meta(ge=1, description="Sampled actions that a batch shares, with softmax sampled.")] = (
        1024
    )
    negative_exponent: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(description="Negatives are drawn by frequency to this power; null: log-uniformly by rank of frequency."),
    ] = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.self_normalise and self.correction == "none":
            raise ValueError("self_normalise scales importance weights: set correction to stored or behaviour_head")

    def make_learner(self, task: Task, spec: RecordSpec, *, seed: int, device: str) -> GradientLearner:
        """A fresh learner on a torch device (`cpu`, `cuda`)."""
        return GradientLearner(self, ReinforceRule(self, task, seed=seed, device=device), spec, device)

    def make_policy(self, task: Task, *, env_indices: Sequence[int], total_envs: int) -> ReinforcePolicy:
        """Samples from the softmax; its weights are zero until a snapshot is loaded."""
        return ReinforcePolicy(self, task)

    def make_network(self, task: Task, generator: torch.Generator) -> SoftmaxPolicyNetwork:
        """The policy network of learner and policy."""
        offers = Offers(task, "reinforce")
        items = task.discrete("reinforce").count
        if self.softmax == "sampled" and task.part("action_mask") is not None:
            raise ConfigError(
                "algorithm.softmax: sampled knows no action_mask, which this environment has; set it to full"
            )
        if self.softmax == "sampled" and self.negatives >= items:
            raise ConfigError(
                f"algorithm.negatives is {self.negatives}, the environment has {items} actions: with as many, "
                "algorithm.softmax full is exact and cheaper"
            )
        torso = make_torso(self, task, generator)
        return SoftmaxPolicyNetwork(torso, ItemHead(torso.size, items, self.temperature, generator), offers)


class ReinforceRule(UpdateRule):
    """Policy, state values, and the behaviour head that tells how likely the logged actions were."""

    def __init__(self, config: ReinforceConfig, task: Task, *, seed: int, device: str) -> None:
        super().__init__()
        self._config = config
        generator = seeded(seed)
        self.generator = seeded(seed, device)
        self.policy = config.make_network(task, generator).to(device)
        self.optimizers = {"policy": Optimizer(self.policy, config)}
        self.value: StateValue | None = None
        self.behaviour: ItemHead | None = None
        self.sampler: NegativeSampler | None = None
        items = self.policy.head.items.out_features
        if config.baseline:
            self.value = StateValue(make_torso(config, task, generator), generator).to(device)
            self.optimizers["value"] = Optimizer(self.value, config, learning_rate=config.value_learning_rate)
        if config.correction == "behaviour_head":
            self.behaviour = ItemHead(self.policy.torso.size, items, 1.0, generator).to(device)
            self.optimizers["behaviour"] = Optimizer(
                self.behaviour, config, learning_rate=config.behaviour_learning_rate
            )
        if config.softmax == "sampled":
            self.sampler = NegativeSampler(items, config.negatives, config.negative_exponent).to(device)

    @property
    def acting(self) -> nn.Module:
        """The policy network."""
        return self.policy

    def update(self, t: Mapping[str, Tensor], weights: Tensor, *, number: int, diagnose: bool) -> Updated:
        """One step of each network; records get no priorities. See UpdateRule.update."""
        config = self._config
        negatives = self._negatives(t["action"])
        state = self.policy.torso(t["observation"])
        scored = self._score(self.policy.head, state, t, negatives)
        behaviour_log_prob, behaviour_loss = self._behaviour(state.detach(), t, weights, negatives)
        ratio = torch.ones_like(scored.log_prob)
        if behaviour_log_prob is not None:
            ratio = importance_ratio(scored.log_prob, behaviour_log_prob, config.weight_cap)
        used = self_normalised(ratio, torch.ones_like(ratio)) if config.self_normalise else ratio
        multiplier = top_k_multiplier(scored.log_prob, config.top_k)
        values, targets = self._values(t)
        gained = raw = targets - values
        if config.normalise_advantages:
            gained = (raw - raw.mean()) / (raw.std(correction=0) + 1e-8)
        losses = policy_gradient_loss(scored.log_prob, gained, used * multiplier)
        loss = weighted_mean(losses - config.entropy_cost * scored.entropy, weights)
        self.optimizers["policy"].minimise(loss)
        value_loss = self._learn_values(t["observation"], targets, weights)
        if not diagnose:
            return Updated(None)
        diagnostics = {
            "loss": loss,
            "policy_entropy": scored.entropy.mean(),
            "action_probability": scored.log_prob.exp().mean(),
            "return_mean": targets.mean(),
            "advantage_std": raw.std(correction=0),
        }
        if self.value is not None:
            unexplained = raw.var(correction=0) / targets.var(correction=0).clamp(min=1e-12)
            diagnostics |= {"value_loss": value_loss, "explained_variance": 1.0 - unexplained}
        if behaviour_log_prob is not None:
            cap = math.inf if config.weight_cap is None else config.weight_cap
            diagnostics |= {
                "importance_weight": used.mean(),
                "capped_share": (ratio >= cap * (1.0 - 1e-6)).float().mean(),
                "effective_sample_share": ratio.mean().square() / ratio.square().mean().clamp(min=1e-30),
            }
        if self.behaviour is not None:
            diagnostics["behaviour_loss"] = behaviour_loss
        if config.top_k > 1:
            diagnostics["top_k_multiplier"] = multiplier.mean()
        return Updated(None, {name: value.detach() for name, value in diagnostics.items()})

    def _negatives(self, a_tm1: Tensor) -> tuple[Tensor, Tensor] | None:
        if self.sampler is None or self.generator is None:
            return None
        self.sampler.observe(a_tm1)
        return self.sampler.draw(self.generator)

    def _score(
        self, head: ItemHead, state: Tensor, t: Mapping[str, Tensor], negatives: tuple[Tensor, Tensor] | None
    ) -> Scored:
        """What a head's softmax says of the logged actions."""
        if negatives is None:
            return full_softmax(self.policy.masked(head(state), t["observation"]), t["action"])
        items, log_expected = negatives
        return sampled_softmax(head.each(state, t["action"]), head.some(state, items), t["action"], items, log_expected)

    def _behaviour(
        self, state: Tensor, t: Mapping[str, Tensor], weights: Tensor, negatives: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor | None, Tensor]:
        """log beta of the logged actions and the head's loss, having stepped it; it never moves the state encoder."""
        if self.behaviour is None:
            stored = t["behaviour_log_prob"] if self._config.correction == "stored" else None
            return stored, weights.new_zeros(())
        log_prob = self._score(self.behaviour, state, t, negatives).log_prob
        loss = weighted_mean(-log_prob, weights)
        self.optimizers["behaviour"].minimise(loss)
        return log_prob.detach(), loss

    def _values(self, t: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Expected value of each state and what it should have been, both float[B]."""
        if self.value is None:
            return torch.zeros_like(t["reward"]), t["reward"]
        with torch.no_grad():
            v_tm1, v_t = self.value(t["observation"]), self.value(t["next_observation"])
        return v_tm1, v_tm1 + advantage(t["reward"], t["discount"], v_tm1, v_t)

    def _learn_values(self, observation: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        """Several steps of the value network over the batch, shuffled; the mean of their losses."""
        if self.value is None or self.generator is None:
            return targets.new_zeros(())
        size, config = min(self._config.value_minibatch_size, len(targets)), self._config
        total = targets.new_zeros(())
        order, at = torch.arange(len(targets), device=targets.device), 0
        for number in range(config.value_minibatches):
            if number == 0 or at + size > len(order):
                order, at = torch.randperm(len(targets), device=targets.device, generator=self.generator), 0
            rows = order[at : at + size]
            at += size
            loss = weighted_mean(squared(targets[rows] - self.value(observation[rows])), weights[rows])
            self.optimizers["value"].minimise(loss)
            total = total + loss.detach()
        return total / config.value_minibatches


class ReinforcePolicy(NetworkPolicy[SoftmaxPolicyNetwork]):
    """Samples from the softmax; the most probable action for evaluation."""

    def __init__(self, config: ReinforceConfig, task: Task) -> None:
        super().__init__(config.make_network(task, torch.Generator()))

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """One draw from each row's softmax, by its inverse distribution function; see Policy.act."""
        with torch.inference_mode():
            log_probs = self._network(torch.from_numpy(observation)).log_softmax(dim=1).numpy()
        rows = np.arange(len(log_probs))
        if not explore:
            return Action(log_probs.argmax(axis=1), np.zeros(len(rows), dtype=np.float32))
        cumulated = np.exp(log_probs, dtype=np.float64).cumsum(axis=1)
        draws = rng.random(len(rows)) * cumulated[:, -1]
        action = (cumulated <= draws[:, None]).sum(axis=1)
        return Action(action, log_probs[rows, action])
