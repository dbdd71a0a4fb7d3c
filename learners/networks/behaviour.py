"""Probabilities of actions, cloned from data, alone or beside action values."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from learners.losses.cloning import likely_actions
from learners.networks.initialise import linear
from learners.networks.offers import Offers
from learners.networks.torsos import Torso
from replay_server.errors import ConfigError


class ActionLogits(nn.Module):
    """Logits of discrete actions.

    Raises:
        ConfigError: actions are places among candidates, which are other items each time.
    """

    def __init__(self, torso: Torso, actions: int, offers: Offers, generator: torch.Generator) -> None:
        super().__init__()
        if offers.candidates is not None:
            raise ConfigError(
                "algorithm.type: this one would clone places among the candidates whatever item is there; take "
                "reinforce with correction stored, or dqn with action_values embedding_mlp or embedding_dot"
            )
        self.torso = torso
        self.head = linear(torso.size, actions, generator)
        self._offers = offers

    def forward(self, observation: Tensor) -> Tensor:
        """[B, *observation_shape] -> float32[B, A], of actions that are not offered too."""
        logits: Tensor = self.head(self.torso(observation))
        return logits

    def offered(self, logits: Tensor, observation: Tensor, taken: Tensor | None = None) -> Tensor:
        """Logits float[B, A] with -inf where an action is not offered; one that was `taken`, int64[B], always is."""
        allowed = self._offers.allowed(observation)
        if allowed is None:
            return logits
        if taken is not None:  # a log may hold actions that its own mask forbids: they are possible all the same
            allowed = allowed.scatter(1, taken.unsqueeze(1), True)
        return logits.masked_fill(~allowed, -math.inf)


class BatchConstrainedValues(nn.Module):
    """Action values and the behaviour that says which of them rest on data (discrete BCQ).

    Args:
        values: torso of the values.
        behaviour: logits of the behaviour.
        actions: A.
        threshold: an action counts when it is more than so many times as likely as the likeliest.
        generator: of the first weights.
    """

    def __init__(
        self, values: Torso, behaviour: ActionLogits, actions: int, threshold: float, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.torso = values
        self.head = linear(values.size, actions, generator)
        self.behaviour = behaviour
        self._threshold = threshold

    def forward(self, observation: Tensor) -> Tensor:
        """Values of all actions: [B, *observation_shape] -> float32[B, A]."""
        values: Tensor = self.head(self.torso(observation))
        return values

    def allowed(self, observation: Tensor) -> Tensor:
        """bool[B, A], at least one a row."""
        logits = self.behaviour.offered(self.behaviour(observation), observation)
        return likely_actions(logits, self._threshold)
