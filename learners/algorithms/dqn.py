"""Deep Q-networks: Double, dueling, n-step, prioritized (Mnih et al. 2015; van Hasselt et al. 2016; Wang et al. 2016).

The n-step sum and the discount gamma^n x (1 - terminated) come with each record, so one loss serves every n.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor, nn

from learners.algorithm import AlgorithmConfig, Count, Rate, seeded
from learners.exploration import annealed, ape_x_epsilons
from learners.gradient_learner import GradientLearner
from learners.losses.shapes import weighted_mean
from learners.losses.value_learning import huber, q_learning_td_error, squared
from learners.networks.q_network import QNetwork
from learners.networks.torsos import make_torso
from learners.optimizers import Optimizer
from learners.policies import Action, NetworkPolicy
from learners.targets import TargetUpdate
from learners.task import Task
from learners.update_rule import Updated, UpdateRule
from replay_server.specs import RecordSpec


class DQNConfig(AlgorithmConfig, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of DQN."""

    type: Annotated[str, Meta(description="Short name or module:Class of the algorithm.")] = "dqn"
    n_step: Annotated[Count, Meta(description="Steps summed into one reward.")] = 3
    double: Annotated[bool, Meta(description="Select the successor's action with the online network.")] = True
    dueling: Annotated[bool, Meta(description="Split values into state value and advantages.")] = True
    loss: Annotated[Literal["huber", "mse"], Meta(description="Loss of the temporal-difference error.")] = "huber"
    huber_delta: Annotated[float, Meta(gt=0, description="Error where the Huber loss turns linear.")] = 1.0
    target_update_tau: Annotated[Rate | None, Meta(description="Soft target update rate per update.")] = None
    target_update_period_updates: Annotated[
        Count | None, Meta(description="Hard target update every so many learner updates.")
    ] = None
    actor_priorities: Annotated[
        bool, Meta(description="Actors compute first priorities; otherwise the table's largest is taken.")
    ] = True
    epsilon_base: Annotated[float, Meta(gt=0, le=1, description="Epsilon of the most exploring environment.")] = 0.4
    epsilon_alpha: Annotated[float, Meta(ge=0, description="Spread of epsilons over environments.")] = 7.0
    epsilon_anneal_env_steps: Annotated[
        int, Meta(ge=0, description="Transitions over which everyone's exploration falls from 1 to its own epsilon.")
    ] = 10_000

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.target_update_tau is None) == (self.target_update_period_updates is None):
            raise ValueError("set exactly one of target_update_tau (soft) and target_update_period_updates (hard)")

    def make_learner(self, task: Task, spec: RecordSpec, *, seed: int, device: str) -> GradientLearner:
        """A fresh learner on a torch device (`cpu`, `cuda`)."""
        return GradientLearner(self, DQNRule(self, task, seed=seed, device=device), spec, device)

    def make_policy(self, task: Task, *, env_indices: Sequence[int], total_envs: int) -> DQNPolicy:
        """An epsilon-greedy policy; its weights are zero until a snapshot is loaded."""
        return DQNPolicy(self, task, ape_x_epsilons(env_indices, total_envs, self.epsilon_base, self.epsilon_alpha))

    def make_network(self, task: Task, generator: torch.Generator) -> QNetwork:
        """The Q-network of learner and policy."""
        actions = task.discrete("dqn").count
        return QNetwork(make_torso(self, task, generator), actions, self.dueling, generator)


class DQNRule(UpdateRule):
    """Online and target network."""

    def __init__(self, config: DQNConfig, task: Task, *, seed: int, device: str) -> None:
        super().__init__()
        self._config = config
        generator = seeded(seed)
        self.online = config.make_network(task, generator).to(device)
        self.target = config.make_network(task, generator).to(device)
        self._move_target = TargetUpdate(
            (self.online, self.target), tau=config.target_update_tau, period=config.target_update_period_updates
        )
        self.optimizers = {"online": Optimizer(self.online, config)}

    @property
    def acting(self) -> nn.Module:
        """The online network."""
        return self.online

    def update(self, t: Mapping[str, Tensor], weights: Tensor, *, number: int, diagnose: bool) -> Updated:
        """One step on the weighted temporal-difference errors; see UpdateRule.update."""
        config = self._config
        q_tm1 = self.online(t["observation"])
        with torch.no_grad():
            q_t = self.target(t["next_observation"])
            q_t_selector = self.online(t["next_observation"]) if config.double else q_t
        td_error = q_learning_td_error(q_tm1, t["action"], t["reward"], t["discount"], q_t, q_t_selector)
        losses = huber(td_error, config.huber_delta) if config.loss == "huber" else squared(td_error)
        loss = weighted_mean(losses, weights)
        gradient_norm = self.optimizers["online"].minimise(loss)
        self._move_target(number)
        errors = td_error.detach().abs()
        if not diagnose:
            return Updated(errors)
        return Updated(
            errors, {"loss": loss, "q_mean": q_tm1.mean(), "td_error": errors.mean(), "gradient_norm": gradient_norm}
        )


class DQNPolicy(NetworkPolicy[QNetwork]):
    """Epsilon-greedy over a Q-network on the CPU."""

    def __init__(self, config: DQNConfig, task: Task, epsilons: NDArray[np.float64]) -> None:
        super().__init__(config.make_network(task, torch.Generator()))
        self._config = config
        self._num_actions = task.discrete("dqn").count
        self._epsilons = epsilons

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """Greedy actions, with each environment's own epsilon when exploring; see Policy.act."""
        with torch.inference_mode():
            greedy = self._network(torch.from_numpy(observation)).argmax(dim=1).numpy()
        batch = len(greedy)
        if not explore:
            return Action(greedy, np.zeros(batch, dtype=np.float32))
        epsilon = annealed(self._epsilons, env_steps, self._config.epsilon_anneal_env_steps)
        draws = rng.random((2, batch))
        anything = (draws[1] * self._num_actions).astype(np.int64)
        action = np.where(draws[0] < epsilon, anything, greedy)
        probability = epsilon / self._num_actions + (1.0 - epsilon) * (action == greedy)
        return Action(action, np.log(probability).astype(np.float32))

    def initial_priorities(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64] | None:
        """|error| of fresh records under the acting network (Horgan et al. 2018, section 3); float64[B]."""
        if not self._config.actor_priorities:
            return None
        with torch.inference_mode():
            q_tm1 = self._network(torch.from_numpy(np.ascontiguousarray(columns["observation"])))
            q_t = self._network(torch.from_numpy(np.ascontiguousarray(columns["next_observation"])))
            r_t = self._network.torso.normaliser.reward(torch.from_numpy(columns["reward"]))
            a_tm1 = torch.from_numpy(columns["action"])
            error = q_learning_td_error(q_tm1, a_tm1, r_t, torch.from_numpy(columns["discount"]), q_t, q_t)
        return error.abs().double().numpy() + self._config.priority_epsilon
