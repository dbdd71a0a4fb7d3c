"""Munchausen DQN (Vieillard, Pietquin and Geist 2020): `cd examples && headrace train munchausen_dqn.yaml`.

The target adds the acting policy's own log-probability to the reward and bootstraps softly, instead of by a maximum.
"""

from typing import Annotated

import torch
from msgspec import Meta

from learners.algorithm import seeded
from learners.algorithms.dqn import DQNConfig
from learners.gradient_learner import GradientLearner
from learners.losses.reductions import weighted_mean
from learners.losses.shapes import check_shapes
from learners.losses.value_learning import huber
from learners.optimization.optimizers import Optimizer
from learners.optimization.targets import TargetUpdate
from learners.update_rule import Updated, UpdateRule


class MunchausenConfig(DQNConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Network, exploration and policy are DQN's; the update is our own."""

    entropy: Annotated[float, Meta(gt=0, description="Temperature of the soft policy, in scaled reward.")] = 0.03
    log_policy_share: Annotated[float, Meta(ge=0, le=1, description="Share of log-policy in the reward.")] = 0.9

    def make_learner(self, task, spec, *, seed, device):
        return GradientLearner(self, MunchausenRule(self, task, seed, device), spec, device)


class MunchausenRule(UpdateRule):
    def __init__(self, config, task, seed, device):
        super().__init__()
        self.config, generator = config, seeded(seed)
        self.online, self.target = (config.make_network(task, generator).to(device) for _ in range(2))
        self.optimizers = {"online": Optimizer(self.online, config)}
        self.move_target = TargetUpdate((self.online, self.target), tau=config.target_update_tau)

    @property
    def acting(self):
        return self.online

    def update(self, t, weights, *, number, diagnose):
        entropy, a_tm1, r_t = self.config.entropy, t["action"].unsqueeze(1), t["reward"]
        with torch.no_grad():
            log_policy = entropy * (self.target(t["observation"]) / entropy).log_softmax(1).gather(1, a_tm1)
            bonus = self.config.log_policy_share * log_policy.clamp(min=-1.0).squeeze(1)
            v_t = entropy * (self.target(t["next_observation"]) / entropy).logsumexp(1)
            check_shapes(bonus=(bonus, r_t.shape), v_t=(v_t, r_t.shape))
            target_tm1 = r_t + bonus + t["discount"] * v_t
        error = target_tm1 - self.online(t["observation"]).gather(1, a_tm1).squeeze(1)
        self.optimizers["online"].minimise(weighted_mean(huber(error, self.config.huber_delta), weights))
        self.move_target(number)
        return Updated(error.detach().abs(), {"target_mean": target_tm1.mean()} if diagnose else {})
