"""Networks for vector observations."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from learners.task import Task
from replay_server.errors import ConfigError

_CLIP = 10.0  # standardised observations beyond this are outliers of the running moments


def linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer initialised U(-1/sqrt(inputs), 1/sqrt(inputs)) from the given generator, never the global one."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs)  # type: ignore[no-untyped-call]
    bound = 1.0 / math.sqrt(inputs)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer


class Standardise(nn.Module):
    """Flattens observations to float32 and, when asked, standardises them with moments set from outside."""

    def __init__(self, size: int, enabled: bool) -> None:
        super().__init__()
        self.enabled = enabled
        self.mean: Tensor
        self.inverse_std: Tensor
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("inverse_std", torch.ones(size))

    def forward(self, observation: Tensor) -> Tensor:
        """[B, *shape] of any number dtype -> float32[B, size]."""
        flat = observation.flatten(1).float()
        if not self.enabled:
            return flat
        return ((flat - self.mean) * self.inverse_std).clamp(-_CLIP, _CLIP)

    def set_moments(self, mean: Tensor, std: Tensor) -> None:
        """Use a new mean and standard deviation, each [size]."""
        self.mean.copy_(mean)
        self.inverse_std.copy_(1.0 / std.clamp(min=1e-4))


class MLP(nn.Sequential):
    """Linear layers with ReLU after each: [B, inputs] -> [B, sizes[-1]]."""

    def __init__(self, inputs: int, sizes: Sequence[int], generator: torch.Generator) -> None:
        layers: list[nn.Module] = []
        for size in sizes:
            layers += [linear(inputs, size, generator), nn.ReLU()]
            inputs = size
        super().__init__(*layers)


class QNetwork(nn.Module):
    """Action values of a vector observation, optionally dueling (Wang et al. 2016): Q = V + A - mean(A)."""

    def __init__(self, task: Task, hidden_sizes: Sequence[int], dueling: bool, generator: torch.Generator) -> None:
        super().__init__()
        check_vector_observation(task)
        self.standardise = Standardise(task.observation_size, task.normalise_observations)
        self.torso = MLP(task.observation_size, hidden_sizes, generator)
        self.dueling = dueling
        self.head = linear(hidden_sizes[-1], task.num_actions + dueling, generator)
        self.reward_scale: Tensor
        self.register_buffer("reward_scale", torch.ones(()))

    def forward(self, observation: Tensor) -> Tensor:
        """[B, *observation_shape] -> float32[B, num_actions]."""
        outputs: Tensor = self.head(self.torso(self.standardise(observation)))
        if not self.dueling:
            return outputs
        value, advantage = outputs[:, :1], outputs[:, 1:]  # one layer for both: half the calls
        return value + advantage - advantage.mean(dim=1, keepdim=True)


def check_vector_observation(task: Task) -> None:
    """Refuse observations a vector network can't take.

    Raises:
        ConfigError: the observation is not one or two axes of numbers.
    """
    if len(task.observation_shape) not in (1, 2):
        raise ConfigError(
            f"environment.id: its observations have shape {list(task.observation_shape)}, the network takes vectors "
            "([n] or stacked [k, n]); flatten or encode them with environment.wrappers, for example "
            "gymnasium.wrappers.FlattenObservation"
        )
