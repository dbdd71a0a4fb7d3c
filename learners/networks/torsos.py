"""From an observation to features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from learners.networks.initialise import linear
from learners.networks.normaliser import Normaliser
from learners.task import Task
from replay_server.errors import ConfigError


class TorsoSettings(Protocol):
    """The fields of an algorithm's config that decide its torso."""

    @property
    def hidden_sizes(self) -> tuple[int, ...]: ...


class Torso(nn.Module):
    """Features of an observation.

    Attributes:
        normaliser: standardises observations and scales rewards.
        size: features.
    """

    def __init__(self, normaliser: Normaliser, layers: nn.Module, size: int) -> None:
        super().__init__()
        self.normaliser = normaliser
        self.layers = layers
        self.size = size

    def forward(self, observation: Tensor) -> Tensor:
        """[B, *observation_shape] -> float32[B, size]."""
        features: Tensor = self.layers(self.normaliser(observation))
        return features


class MLP(nn.Sequential):
    """Linear layers with ReLU after each: [B, inputs] -> [B, sizes[-1]]."""

    def __init__(self, inputs: int, sizes: Sequence[int], generator: torch.Generator) -> None:
        layers: list[nn.Module] = []
        for size in sizes:
            layers += [linear(inputs, size, generator), nn.ReLU()]
            inputs = size
        super().__init__(*layers)


def make_torso(settings: TorsoSettings, task: Task, generator: torch.Generator) -> Torso:
    """The torso that fits the observation.

    Raises:
        ConfigError: no torso takes this observation.
    """
    if len(task.observation_shape) not in (1, 2):
        raise ConfigError(
            f"environment.id: its observations have shape {list(task.observation_shape)}, the network takes vectors "
            "([n] or stacked [k, n]); flatten or encode them with environment.wrappers, for example "
            "gymnasium.wrappers.FlattenObservation"
        )
    layers = MLP(task.observation_size, settings.hidden_sizes, generator)
    return Torso(Normaliser(task), layers, settings.hidden_sizes[-1])
