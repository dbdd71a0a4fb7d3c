"""REINFORCE with a learned baseline, off-policy and top-K corrected (Williams 1992; Chen et al. 2019).

Every quantity is that of the logged action, on a slate the item that was consumed: nothing is sampled anew in an
update.
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

from learners.acting.sampled_slates import draw_slates
from learners.algorithm import AlgorithmConfig, Count, Positive, seeded
from learners.gradient_learner import GradientLearner
from learners.logged_choices import Logged, check_response, one_choice
from learners.losses.policy_gradient import (
    advantage,
    importance_ratio,
    policy_gradient_loss,
    self_normalised,
    top_k_multiplier,
)
from learners.losses.reductions import masked_mean, standardised, weighted_mean
from learners.losses.softmax import Scored, full_softmax, sampled_softmax
from learners.losses.value_learning import squared
from learners.networks.negatives import NegativeSampler
from learners.networks.offers import Offers
from learners.networks.softmax_policy import ItemHead, SoftmaxPolicyNetwork, StateValue
from learners.networks.torsos import make_torso
from learners.optimization.optimizers import Optimizer
from learners.policies import Action, NetworkPolicy
from learners.replicas import Replicas
from learners.task import SlateActions, Task
from learners.update_rule import Updated, UpdateRule
from replay_server.errors import ConfigError
from replay_server.specs import Field, RecordSpec


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
    advantage_epsilon: Annotated[
        float, Meta(gt=0, description="Added to that deviation before dividing, in units of the scaled reward.")
    ] = 1e-8
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
    rewarded_only: Annotated[
        bool, Meta(description="The policy learns from records whose own step was rewarded; the other heads from all.")
    ] = False
    serving_candidates: Annotated[
        Count | None, Meta(description="Choices are made among so many actions of highest logit; null: among all.")
    ] = None
    certain_slots: Annotated[
        int, Meta(ge=0, description="Places of a slate for the most probable items; those of the others are drawn.")
    ] = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.baseline:
            idle = ("value_learning_rate", "value_minibatches", "value_minibatch_size")
            self.refuse_idle("without baseline", *idle)
        if not self.normalise_advantages:
            self.refuse_idle("without normalise_advantages", "advantage_epsilon")
        if self.correction == "none":
            self.refuse_idle("with correction none", "weight_cap")
        if self.correction != "behaviour_head":
            self.refuse_idle(f"with correction {self.correction}", "behaviour_learning_rate")
        if self.softmax == "full":
            self.refuse_idle("with softmax full", "negatives", "negative_exponent")
        if self.self_normalise and self.correction == "none":
            raise ValueError("self_normalise scales importance weights: set correction to stored or behaviour_head")

    @property
    def needs_queue(self) -> str | None:
        """Without a correction, records of older policies and of others pull towards what was often done."""
        if self.correction != "none":
            return None
        return "algorithm.correction none takes records for the policy's own; set it to stored or behaviour_head"

    def record_fields(self, task: Task) -> tuple[Field, ...]:
        """Each item's chance to be on its slate, what the user did with it, and the reward of that step alone."""
        fields = []
        if isinstance(task.actions, SlateActions):
            slots = (task.actions.slots,)
            fields = [Field("propensity", "float32", slots), Field("first_response", "float32", slots)]
        if self.rewarded_only:
            fields.append(Field("first_reward", "float32"))
        return tuple(fields)

    def make_learner(self, task: Task, spec: RecordSpec, *, seed: int, device: str) -> GradientLearner:
        """A fresh learner on a torch device (`cpu`, `cuda`)."""
        return GradientLearner(self, ReinforceRule(self, task, seed=seed, device=device), spec, device)

    def make_policy(self, task: Task, *, env_indices: Sequence[int], total_envs: int) -> ReinforcePolicy:
        """Draws from the softmax; its weights are zero until a snapshot is loaded."""
        return ReinforcePolicy(self, task)

    def make_network(self, task: Task, generator: torch.Generator) -> SoftmaxPolicyNetwork:
        """The policy network of learner and policy."""
        torso = make_torso(self, task, generator)
        return SoftmaxPolicyNetwork(torso, self.make_head(task, torso.size, self.temperature, generator))

    def make_head(self, task: Task, size: int, temperature: float, generator: torch.Generator) -> ItemHead:
        """A softmax over items for states of so many numbers."""
        choices = one_choice(task)
        items = choices.discrete("reinforce").count
        return ItemHead(size, items, Offers(choices, items), temperature, generator)

    def check_task(self, task: Task) -> None:
        """Raises ConfigError where this task and these settings contradict each other."""
        actions, slots = one_choice(task).discrete("reinforce").count, 1
        if isinstance(task.actions, SlateActions):
            slots = task.actions.slots
            check_response(task, self.type)
        changing = task.part("action_mask") or task.part("candidates")
        if self.softmax == "sampled" and changing is not None:
            raise ConfigError(
                f"algorithm.softmax: sampled takes every action for possible, this environment has {changing.name}; "
                "set it to full"
            )
        if self.softmax == "sampled" and self.negatives >= actions:
            raise ConfigError(
                f"algorithm.negatives is {self.negatives}, the environment has {actions} actions: with as many, "
                "algorithm.softmax full is exact and cheaper"
            )
        if self.certain_slots > slots or (slots == 1 and self.certain_slots):
            raise ConfigError(
                f"algorithm.certain_slots is {self.certain_slots}, the environment shows {slots} item(s) at a time"
            )
        if self.serving_candidates is not None and not slots <= self.serving_candidates <= actions:
            raise ConfigError(
                f"algorithm.serving_candidates is {self.serving_candidates}, must lie between the {slots} item(s) "
                f"shown at a time and the environment's {actions} actions"
            )


class ReinforceRule(UpdateRule):
    """Policy, state values, and the behaviour head that tells how likely the logged actions were."""

    def __init__(self, config: ReinforceConfig, task: Task, *, seed: int, device: str) -> None:
        super().__init__()
        config.check_task(task)
        self._config = config
        self._slates = isinstance(task.actions, SlateActions)
        generator = seeded(seed)
        self.generator = seeded(seed, device)
        self.policy = config.make_network(task, generator).to(device)
        self.optimizers = {"policy": Optimizer(self.policy, config)}
        self.value: StateValue | None = None
        self.behaviour: ItemHead | None = None
        self.sampler: NegativeSampler | None = None
        if config.baseline:
            self.value = StateValue(make_torso(config, task, generator), generator).to(device)
            self.optimizers["value"] = Optimizer(self.value, config, learning_rate=config.value_learning_rate)
        if config.correction == "behaviour_head":
            self.behaviour = config.make_head(task, self.policy.torso.size, 1.0, generator).to(device)
            self.optimizers["behaviour"] = Optimizer(
                self.behaviour, config, learning_rate=config.behaviour_learning_rate
            )
        if config.softmax == "sampled":
            self.sampler = NegativeSampler(self.policy.head.count, config.negatives, config.negative_exponent).to(
                device
            )

    def join(self, replicas: Replicas) -> None:
        """See UpdateRule.join; every step of the value network takes as many records from each of them."""
        size = self._config.value_minibatch_size
        if self.value is not None and size % replicas.count:
            raise ConfigError(
                f"algorithm.value_minibatch_size ({size}) must be a multiple of learner.processes ({replicas.count})"
            )
        super().join(replicas)

    @property
    def acting(self) -> nn.Module:
        """The policy network."""
        return self.policy

    def update(self, t: Mapping[str, Tensor], weights: Tensor, *, number: int, diagnose: bool) -> Updated:
        """One step of each network, several of the value network; records get no priorities. See UpdateRule.update."""
        config, logged = self._config, Logged.of(t, self._slates, self._config.rewarded_only)
        negatives = self._negatives()
        state = self.policy.torso(t["observation"])
        scored = self._score(self.policy.head, state, t["observation"], logged.a, negatives)
        behaviour_log_prob, behaviour_loss = self._behaviour(
            state.detach(), t["observation"], logged, weights, negatives
        )
        ratio = torch.ones_like(scored.log_prob)
        if behaviour_log_prob is not None:
            ratio = importance_ratio(scored.log_prob, behaviour_log_prob, config.weight_cap)
        used, rewarded = ratio, self.replicas.gather(logged.rewarded)
        if config.self_normalise:
            used = self.replicas.mine(self_normalised(self.replicas.gather(ratio), rewarded))
        multiplier = top_k_multiplier(scored.log_prob, config.top_k)
        values, targets = self._values(t)
        raw = targets - values
        gained = raw
        if config.normalise_advantages:
            whole = standardised(self.replicas.gather(raw), rewarded, config.advantage_epsilon)
            gained = self.replicas.mine(whole)
        losses = policy_gradient_loss(scored.log_prob, gained, used * multiplier * logged.rewarded)
        loss = weighted_mean(losses - config.entropy_cost * scored.entropy, weights)
        self.optimizers["policy"].minimise(loss)
        if self.sampler is not None:
            self.sampler.observe(
                self.replicas.gather(logged.a)
            )  # after the step: an update that is refused there is not counted
        value_loss = self._learn_values(t["observation"], targets, weights)
        if not diagnose:
            return Updated(None)
        diagnostics = {
            "loss": loss,
            "policy_entropy": scored.entropy.mean(),
            "action_probability": masked_mean(scored.log_prob.exp(), logged.rewarded),
            "return_mean": targets.mean(),
            "advantage_std": raw.std(correction=0),
            "learnt_share": logged.rewarded.mean(),
        }
        if self.value is not None:
            unexplained = raw.var(correction=0) / targets.var(correction=0).clamp(min=1e-12)
            diagnostics |= {"value_loss": value_loss, "explained_variance": 1.0 - unexplained}
        if behaviour_log_prob is not None:
            cap = math.inf if config.weight_cap is None else config.weight_cap
            squares = masked_mean(ratio.square(), logged.rewarded).clamp(min=1e-30)
            diagnostics |= {
                "importance_weight": masked_mean(used, logged.rewarded),
                "capped_share": masked_mean((ratio >= cap * (1.0 - 1e-6)).float(), logged.rewarded),
                "effective_sample_share": masked_mean(ratio, logged.rewarded).square() / squares,
            }
        if self.behaviour is not None:
            diagnostics["behaviour_loss"] = behaviour_loss
        if config.top_k > 1:
            diagnostics["top_k_multiplier"] = masked_mean(multiplier, logged.rewarded)
        return Updated(None, {name: value.detach() for name, value in diagnostics.items()})

    def _negatives(self) -> tuple[Tensor, Tensor] | None:
        if self.sampler is None or self.generator is None:
            return None
        return self.sampler.draw(self.generator)

    def _score(
        self, head: ItemHead, state: Tensor, observation: Tensor, a_tm1: Tensor, negatives: tuple[Tensor, Tensor] | None
    ) -> Scored:
        """What a head's softmax says of the logged actions."""
        if negatives is None:
            return full_softmax(head(state, observation), a_tm1)
        items, log_expected = negatives
        return sampled_softmax(head.each(state, a_tm1), head.some(state, items), a_tm1, items, log_expected)

    def _behaviour(
        self,
        state: Tensor,
        observation: Tensor,
        logged: Logged,
        weights: Tensor,
        negatives: tuple[Tensor, Tensor] | None,
    ) -> tuple[Tensor | None, Tensor]:
        """log beta of the logged actions and the head's loss, having stepped it; it never moves the state encoder."""
        if self.behaviour is None:
            stored = logged.behaviour_log_prob if self._config.correction == "stored" else None
            return stored, weights.new_zeros(())
        log_prob = self._score(self.behaviour, state, observation, logged.a, negatives).log_prob
        loss = weighted_mean(-log_prob * logged.counted, weights)
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
        """Several steps of the value network over the batch, shuffled; the mean of their losses.

        Each replica shuffles its own rows and gives as many of them to every step.
        """
        if self.value is None or self.generator is None:
            return targets.new_zeros(())
        config = self._config
        size = min(config.value_minibatch_size // self.replicas.count, len(targets))
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
    """Draws from the softmax over the likeliest actions; the most probable ones for evaluation."""

    def __init__(self, config: ReinforceConfig, task: Task) -> None:
        config.check_task(task)
        super().__init__(config.make_network(task, torch.Generator()))
        self._slots = task.actions.slots if isinstance(task.actions, SlateActions) else None
        self._candidates = config.serving_candidates or one_choice(task).discrete("reinforce").count
        self._certain = config.certain_slots

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """One action, or a slate of different ones with each item's chance to be on it; see Policy.act."""
        logits = self._logits(observation)
        slots = self._slots or 1
        certain = self._certain if explore else slots
        slates = draw_slates(logits, slots, certain, self._candidates if explore else slots, rng)
        log_probs = slates.log_probs.astype(np.float32)
        if self._slots is None:
            return Action(slates.items[:, 0], log_probs)
        return Action(slates.items, log_probs, {"propensity": slates.propensities.astype(np.float32)})

    def scores(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        """The logit of every action, float32[B, A]: what is shown first has the largest."""
        return np.asarray(self._logits(observation).numpy())

    def _logits(self, observation: NDArray[Any]) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = self._network(torch.from_numpy(observation))
        return logits
