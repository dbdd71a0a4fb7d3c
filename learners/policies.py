"""What an actor runs: the contract of a policy, and what those with one network have alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from learners.weights import WeightSnapshot

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class Action:
    """What a policy chose for B environments.

    Attributes:
        action: [B, ...] in the environment's action space.
        log_prob: float32[B], log probability (density) of each choice under the policy that made it.
        extras: further columns to store with the transition, each [B, ...].
    """

    action: NDArray[Any]
    log_prob: NDArray[np.float32]
    extras: Mapping[str, NDArray[Any]] = field(default_factory=dict)


class Policy(Protocol):
    """Chooses actions on a CPU, with weights loaded from snapshots.

    The loop it lives in::

        if (snapshot := weights.latest(policy.version)) is not None:
            policy.load(snapshot)
        action = policy.act(observation, rng, explore=True, env_steps=env_steps)
    """

    @property
    def version(self) -> int:
        """Version of the weights in use; 0 before the first load."""

    def act(self, observation: NDArray[Any], rng: np.random.Generator, *, explore: bool, env_steps: int) -> Action:
        """Choose an action for each observation [B, ...].

        Args:
            observation: [B, *observation_shape].
            rng: the only source of randomness.
            explore: False gives the greedy policy, for evaluation.
            env_steps: environment transitions of the whole run so far; exploration schedules run on it.
        """

    def initial_priorities(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64] | None:
        """Priorities [B] for fresh records, or None to take the table's largest."""

    def load(self, snapshot: WeightSnapshot) -> None: ...


class NetworkPolicy(Generic[Network]):
    """The parts of a policy that acts with one network, whose weights are zero until a snapshot is loaded.

    Args:
        network: the learner's acting network.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        network.requires_grad_(False)
        self._version = 0

    @property
    def version(self) -> int:
        """Version of the weights in use; 0 before the first load."""
        return self._version

    def initial_priorities(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.float64] | None:
        """None: fresh records take the table's largest priority."""
        return None

    def load(self, snapshot: WeightSnapshot) -> None:
        """Copy a snapshot's weights in."""
        state = {name: torch.from_numpy(array.copy()) for name, array in snapshot.arrays().items()}
        self._network.load_state_dict(state)
        self._version = snapshot.version
