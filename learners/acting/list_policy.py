"""The policy over values of items: shows the best K, or explores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from learners.acting.best_slates import random_slates, slate_counts, top_places
from learners.acting.exploration import annealed, ape_x_epsilons
from learners.acting.sampled_slates import draw_without_replacement, sequence_log_probs
from learners.acting.value_policy import VALUE_COLUMNS
from learners.losses.lists import list_losses
from learners.networks.q_network import QNetwork
from learners.policies import Action, NetworkPolicy
from learners.task import SlateActions

if TYPE_CHECKING:
    from learners.value_learning import ValueConfig

_LEAST = 1e-30  # probability that is drawn with where a softmax says 0


class ListPolicy(NetworkPolicy[QNetwork]):
    """Acts with a Q-network on the CPU; never shows an item twice, nor one that is not allowed while others are left.

    Exploring, the whole list is a random one with probability epsilon; or (boltzmann) items are drawn one after the
    other from softmax(Q / temperature) without replacement.

    Args:
        config: exploration.
        network: the learner's acting network.
        actions: candidates and slots.
        env_indices: places of its environments among all of the run.
        total_envs: environments of the whole run.
    """

    def __init__(
        self,
        config: ValueConfig,
        network: QNetwork,
        actions: SlateActions,
        env_indices: Sequence[int],
        total_envs: int,
    ) -> None:
        super().__init__(network)
        self._config = config
        self._actions = actions
        self._epsilons = ape_x_epsilons(env_indices, total_envs, config.epsilon_base, config.epsilon_alpha)

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """Lists int64[B, K], the best item first; `log_prob` is that of the items in their order; see Policy.act."""
        config, network, slots = self._config, self._network, self._actions.slots
        with torch.inference_mode():
            seen = torch.from_numpy(observation)
            q, allowed = network(seen), network.allowed(seen)
            if allowed is None:
                allowed = torch.ones_like(q, dtype=torch.bool)
            greedy = top_places(q, allowed, slots).numpy()
            if config.exploration == "boltzmann" and (explore or config.evaluation_actions == "sampled"):
                logits = network.selectable(q, seen).double() / config.temperature
                p = np.maximum(torch.softmax(logits, dim=1).numpy(), _LEAST)
                lists = draw_without_replacement(p, slots, rng)
                return Action(lists, sequence_log_probs(p, lists).astype(np.float32))
            if not explore:
                return Action(greedy, np.zeros(len(greedy), dtype=np.float32))
            anything = random_slates(allowed, slots, torch.from_numpy(rng.random(allowed.shape))).numpy()
        epsilon = annealed(self._epsilons, env_steps, config.epsilon_anneal_env_steps)
        lists = np.where((rng.random(len(greedy)) < epsilon)[:, None], anything, greedy)
        same = (lists == greedy).all(axis=1)
        probability = epsilon * np.exp(-slate_counts(allowed.numpy(), slots)) + (1.0 - epsilon) * same
        return Action(lists, np.log(probability).astype(np.float32))

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
            _, errors = list_losses(network.returns, outputs_tm1, t["action"], r_t, t["discount"], outputs_t, selector)
        return errors.double().numpy() + self._config.priority_epsilon
