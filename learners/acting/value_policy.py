"""The policy over action values: greedy, epsilon-greedy or Boltzmann."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from learners.acting.exploration import annealed, ape_x_epsilons, boltzmann, epsilon_greedy
from learners.networks.q_network import QNetwork
from learners.policies import Action, NetworkPolicy

if TYPE_CHECKING:
    from learners.value_learning import ValueConfig

VALUE_COLUMNS = ("observation", "next_observation", "action", "reward", "discount")
"""What priorities are made of."""


class ValuePolicy(NetworkPolicy[QNetwork]):
    """Acts with a Q-network on the CPU; never takes an action that is not allowed.

    Args:
        config: exploration.
        network: the learner's acting network.
        env_indices: places of its environments among all of the run.
        total_envs: environments of the whole run.
    """

    def __init__(self, config: ValueConfig, network: QNetwork, env_indices: Sequence[int], total_envs: int) -> None:
        super().__init__(network)
        self._config = config
        self._epsilons = ape_x_epsilons(env_indices, total_envs, config.epsilon_base, config.epsilon_alpha)

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """Greedy actions, or drawn as configured when exploring; see Policy.act."""
        config, network = self._config, self._network
        with torch.inference_mode():
            seen = torch.from_numpy(observation)
            q = self._values(seen)
            greedy = q.argmax(dim=1).numpy()
            allowed = network.allowed(seen)
        if config.exploration == "boltzmann" and (explore or config.evaluation_actions == "sampled"):
            action, log_prob = boltzmann(q.numpy(), config.temperature, rng)
        elif explore:
            epsilon = annealed(self._epsilons, env_steps, config.epsilon_anneal_env_steps)
            may = None if allowed is None else allowed.numpy()
            action, log_prob = epsilon_greedy(greedy, epsilon, q.shape[1], may, rng)
        else:
            action, log_prob = greedy, np.zeros(len(greedy))
        return Action(action, log_prob.astype(np.float32))

    def scores(self, observation: NDArray[Any]) -> NDArray[np.float32]:
        """The value of every action, float32[B, A]; below all others where it is not allowed."""
        with torch.inference_mode():
            return np.asarray(self._values(torch.from_numpy(observation)).numpy())

    def _values(self, seen: Tensor) -> Tensor:
        return self._network.selectable(self._network(seen), seen)

    def initial_priorities(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64] | None:
        """Errors of fresh records under the acting network (Horgan et al. 2018, section 3); float64[B]."""
        if not self._config.actor_priorities:
            return None
        network = self._network
        with torch.inference_mode():
            t = {name: torch.from_numpy(np.ascontiguousarray(columns[name])) for name in VALUE_COLUMNS}
            r_t = network.torso.normaliser.reward(t["reward"])
            outputs_t = network.outputs(t["next_observation"])
            selector = network.selectable(network.returns.expected(outputs_t), t["next_observation"])
            outputs_tm1 = network.outputs(t["observation"])
            _, errors = network.returns.loss(outputs_tm1, t["action"], r_t, t["discount"], outputs_t, selector)
        return errors.double().numpy() + self._config.priority_epsilon
