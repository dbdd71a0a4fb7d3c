"""A conditional variational auto-encoder of actions, and what acts by choosing among its samples (BCQ)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from learners.networks.actor_critic import ActionBounds, Critics
from learners.networks.initialise import linear
from learners.networks.mlp import MLP
from learners.networks.torsos import Torso
from learners.task import ContinuousActions

_LOG_STD = (-4.0, 15.0)  # the bounds of Fujimoto et al. 2019


class ActionEncoder(nn.Module):
    """Where the latent of an action lies: a normal distribution of each dimension.

    Args:
        encoder: of observations.
        actions: dimensions of an action.
        sizes: units of each hidden layer.
        latent_size: dimensions of the latent.
        activation: `relu` or `tanh`.
        generator: of the first weights.
    """

    def __init__(
        self,
        encoder: Torso,
        actions: int,
        sizes: Sequence[int],
        latent_size: int,
        activation: str,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.layers = MLP(encoder.size + actions, sizes, generator, activation)
        self.head = linear(sizes[-1], 2 * latent_size, generator)

    def forward(self, observation: Tensor, unit_action: Tensor) -> tuple[Tensor, Tensor]:
        """[B, *observation_shape], float32[B, n] in [-1, 1] -> mean and log deviation, each float32[B, latent]."""
        features = self.layers(torch.cat((self.encoder(observation), unit_action), dim=1))
        mean, log_std = self.head(features).chunk(2, dim=1)
        return mean, log_std.clamp(*_LOG_STD)


class JoinedNetwork(nn.Module):
    """tanh of an MLP of an observation and further numbers; of several vectors of numbers for each observation.

    Args:
        encoder: of observations.
        inputs: the further numbers.
        outputs: in [-1, 1].
        sizes: units of each hidden layer.
        activation: `relu` or `tanh`.
        generator: of the first weights.
    """

    def __init__(
        self,
        encoder: Torso,
        inputs: int,
        outputs: int,
        sizes: Sequence[int],
        activation: str,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.layers = MLP(encoder.size + inputs, sizes, generator, activation)
        self.head = linear(sizes[-1], outputs, generator)

    def forward(self, observation: Tensor, numbers: Tensor) -> Tensor:
        """[B, *observation_shape], float32[B, N, inputs] -> float32[B, N, outputs]."""
        encoded = self.encoder(observation).unsqueeze(1).expand(-1, numbers.shape[1], -1)
        return torch.tanh(self.head(self.layers(torch.cat((encoded, numbers), dim=2))))


class CandidateActor(nn.Module):
    """Decodes actions like those in the data, perturbs them a little, and takes the one the first critic likes best.

    Args:
        actions: their bounds.
        decoder: of latents, to actions in [-1, 1].
        perturbation: of decoded actions, in [-1, 1].
        critics: the first one chooses.
        phi: largest perturbation, in half ranges.
    """

    def __init__(
        self,
        actions: ContinuousActions,
        decoder: JoinedNetwork,
        perturbation: JoinedNetwork,
        critics: Critics,
        phi: float,
    ) -> None:
        super().__init__()
        self.bounds = ActionBounds(actions)
        self.decoder = decoder
        self.perturbation = perturbation
        self.critics = critics
        self._phi = phi

    def perturbed(self, observation: Tensor, unit_action: Tensor, perturbation: nn.Module) -> Tensor:
        """Unit actions float32[B, N, n], each moved by at most phi and kept in [-1, 1]."""
        moved: Tensor = unit_action + self._phi * perturbation(observation, unit_action)
        return moved.clamp(-1.0, 1.0)

    def forward(self, observation: Tensor, latents: Tensor) -> Tensor:
        """[B, *observation_shape], float32[B, N, latent] -> the best of N actions, float32[B, n]."""
        unit = self.perturbed(observation, self.decoder(observation, latents), self.perturbation)
        actions = self.bounds.from_unit(unit)
        best = self.critics.first_of_each(self.critics.encoder(observation), actions).argmax(dim=1)
        return actions.gather(1, best[:, None, None].expand(-1, -1, actions.shape[2])).squeeze(1)
