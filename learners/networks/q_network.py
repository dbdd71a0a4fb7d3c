"""Action values of an observation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from learners.networks.initialise import linear
from learners.networks.torsos import Torso


class QNetwork(nn.Module):
    """Action values, optionally dueling (Wang et al. 2016): Q = V + A - mean(A)."""

    def __init__(self, torso: Torso, num_actions: int, dueling: bool, generator: torch.Generator) -> None:
        super().__init__()
        self.torso = torso
        self.dueling = dueling
        self.head = linear(torso.size, num_actions + dueling, generator)

    def forward(self, observation: Tensor) -> Tensor:
        """[B, *observation_shape] -> float32[B, num_actions]."""
        outputs: Tensor = self.head(self.torso(observation))
        if not self.dueling:
            return outputs
        value, advantage = outputs[:, :1], outputs[:, 1:]  # one layer for both: half the calls
        return value + advantage - advantage.mean(dim=1, keepdim=True)
