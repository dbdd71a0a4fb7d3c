"""Batch-constrained Q-learning of discrete actions (Fujimoto, Conti, Ghavamzadeh and Pineau 2019)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor, nn

from learners.acting.exploration import epsilon_greedy
from learners.algorithm import AlgorithmConfig, Fraction, Rate, seeded
from learners.gradient_learner import GradientLearner
from learners.losses.cloning import negative_log_likelihood
from learners.losses.reductions import weighted_mean
from learners.losses.value_learning import huber, q_learning_td_error
from learners.networks.behaviour import ActionLogits, BatchConstrainedValues
from learners.networks.offers import Offers
from learners.networks.torsos import make_torso
from learners.optimization.optimizers import Optimizer
from learners.optimization.targets import TargetUpdate
from learners.policies import Action, NetworkPolicy
from learners.task import Task
from learners.update_rule import Updated, UpdateRule, spread
from replay_server.specs import RecordSpec


class DiscreteBCQConfig(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of discrete BCQ."""

    type: Annotated[str, Meta(description="Short name or module:Class of the algorithm.")] = "discrete_bcq"
    learning_rate: Annotated[float, Meta(gt=0, description="Step size at the start.")] = 3e-4
    target_update_tau: Annotated[Rate, Meta(description="Soft target update rate per update.")] = 0.005
    huber_delta: Annotated[float, Meta(gt=0, description="Error where the Huber loss turns linear.")] = 1.0
    threshold: Annotated[
        float, Meta(ge=0, lt=1, description="Actions count when above this share of the likeliest one's probability.")
    ] = 0.3
    logits_penalty: Annotated[
        float, Meta(ge=0, description="Factor of the behaviour's mean squared logits in the loss.")
    ] = 0.01
    epsilon: Annotated[
        Fraction, Meta(description="Share of random allowed actions of actors that go on from the data online.")
    ] = 0.05

    def make_learner(self, task: Task, spec: RecordSpec, *, seed: int, device: str) -> GradientLearner:
        """A fresh learner on a torch device (`cpu`, `cuda`)."""
        return GradientLearner(self, DiscreteBCQRule(self, task, seed=seed, device=device), spec, device)

    def make_policy(self, task: Task, *, env_indices: Sequence[int], total_envs: int) -> DiscreteBCQPolicy:
        """Greedy among the actions the data support; its weights are zero until a snapshot is loaded."""
        return DiscreteBCQPolicy(self, self.make_network(task, torch.Generator()))

    def make_network(self, task: Task, generator: torch.Generator) -> BatchConstrainedValues:
        """Values and behaviour, each with a torso of its own."""
        actions = task.discrete("discrete_bcq").count
        values, torso = (make_torso(self, task, generator) for _ in range(2))
        behaviour = ActionLogits(torso, actions, Offers(task, actions), generator)
        return BatchConstrainedValues(values, behaviour, actions, self.threshold, generator)


class DiscreteBCQRule(UpdateRule):
    """Online and target network; Double Q-learning that only looks at actions the behaviour takes."""

    def __init__(self, config: DiscreteBCQConfig, task: Task, *, seed: int, device: str) -> None:
        super().__init__()
        self._config = config
        generator = seeded(seed)
        self.online, self.target = (config.make_network(task, generator).to(device) for _ in range(2))
        self._move_target = TargetUpdate((self.online, self.target), tau=config.target_update_tau)
        self.optimizers = {"online": Optimizer(self.online, config)}

    @property
    def acting(self) -> nn.Module:
        """The online network."""
        return self.online

    def update(self, t: Mapping[str, Tensor], weights: Tensor, *, number: int, diagnose: bool) -> Updated:
        """One step on Huber loss, negative log likelihood and squared logits; see UpdateRule.update."""
        config, seen, after = self._config, t["observation"], t["next_observation"]
        with torch.no_grad():
            q_t, allowed_t = self.target(after), self.online.allowed(after)
            q_t_selector = self.online(after).masked_fill(~allowed_t, -torch.inf)
        q_tm1, logits = self.online(seen), self.online.behaviour(seen)
        td_error = q_learning_td_error(q_tm1, t["action"], t["reward"], t["discount"], q_t, q_t_selector)
        cloning = negative_log_likelihood(self.online.behaviour.offered(logits, seen, t["action"]), t["action"])
        penalty = config.logits_penalty * logits.square().mean(dim=1)
        loss = weighted_mean(huber(td_error, config.huber_delta) + cloning + penalty, weights)
        self.optimizers["online"].minimise(loss)
        self._move_target(number)
        errors = td_error.detach().abs()
        if not diagnose:
            return Updated(errors)
        q_taken = q_tm1.gather(1, t["action"].unsqueeze(1)).squeeze(1)
        bootstrap = q_t.gather(1, q_t_selector.argmax(dim=1, keepdim=True)).squeeze(1)
        diagnostics = spread(q=q_taken, target=td_error + q_taken, bootstrap=bootstrap) | {
            "loss": loss,
            "td_error": errors.mean(),
            "cloning_loss": cloning.mean(),
            "allowed_actions": allowed_t.float().mean(),
        }
        return Updated(errors, diagnostics)


class DiscreteBCQPolicy(NetworkPolicy[BatchConstrainedValues]):
    """Greedy among allowed actions, epsilon-greedy among them when exploring."""

    def __init__(self, config: DiscreteBCQConfig, network: BatchConstrainedValues) -> None:
        super().__init__(network)
        self._epsilon = config.epsilon

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """Actions int64[B]; see Policy.act."""
        network = self._network
        with torch.inference_mode():
            seen = torch.from_numpy(observation)
            allowed = network.allowed(seen)
            greedy = network(seen).masked_fill(~allowed, -torch.inf).argmax(dim=1).numpy()
        batch, actions = allowed.shape
        if not explore:
            return Action(greedy, np.zeros(batch, dtype=np.float32))
        epsilons = np.full(batch, self._epsilon)
        action, log_prob = epsilon_greedy(greedy, epsilons, actions, allowed.numpy(), rng)
        return Action(action, log_prob.astype(np.float32))
