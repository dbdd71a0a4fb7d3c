"""A policy over items: a softmax of inner products between the state and each item's output embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from learners.networks.initialise import linear
from learners.networks.offers import Offers
from learners.networks.torsos import Torso

_NEVER = torch.finfo(torch.float32).min / 4  # finite, so that 0 x log 0 stays 0


class ItemHead(nn.Module):
    """Logits (s . v_a + b_a) / T of N items."""

    def __init__(self, size: int, items: int, temperature: float, generator: torch.Generator) -> None:
        super().__init__()
        self.items = linear(size, items, generator)  # row a of its weight is v_a
        self._temperature = temperature

    def forward(self, state: Tensor) -> Tensor:
        """float32[B, n] -> float32[B, N]."""
        logits: Tensor = self.items(state)
        return logits / self._temperature

    def each(self, state: Tensor, a: Tensor) -> Tensor:
        """Logits float32[B] of one item a record, int64[B]."""
        return ((state * self.items.weight[a]).sum(dim=1) + self.items.bias[a]) / self._temperature

    def some(self, state: Tensor, items: Tensor) -> Tensor:
        """Logits float32[B, S] of items int64[S]."""
        return torch.addmm(self.items.bias[items], state, self.items.weight[items].T) / self._temperature


class SoftmaxPolicyNetwork(nn.Module):
    """State encoder and item head; what the observation does not allow is never chosen."""

    def __init__(self, torso: Torso, head: ItemHead, offers: Offers) -> None:
        super().__init__()
        self.torso = torso
        self.head = head
        self._offers = offers

    def forward(self, observation: Tensor) -> Tensor:
        """[B, *observation_shape] -> logits float32[B, N]."""
        return self.masked(self.head(self.torso(observation)), observation)

    def masked(self, logits: Tensor, observation: Tensor) -> Tensor:
        """Logits float32[B, N] without what is not allowed."""
        allowed = self._offers.allowed(observation)
        return logits if allowed is None else logits.masked_fill(~allowed, _NEVER)


class StateValue(nn.Module):
    """Value of an observation."""

    def __init__(self, torso: Torso, generator: torch.Generator) -> None:
        super().__init__()
        self.torso = torso
        self.head = linear(torso.size, 1, generator)

    def forward(self, observation: Tensor) -> Tensor:
        """[B, *observation_shape] -> float32[B]."""
        value: Tensor = self.head(self.torso(observation))
        return value.squeeze(1)
