"""A policy over items: a softmax of inner products between the state and each item's output embedding."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from learners.networks.initialise import linear
from learners.networks.item_table import Items
from learners.networks.offers import Offers
from learners.networks.torsos import Torso

NEVER = torch.finfo(torch.float32).min / 4  # finite, so that 0 x log 0 stays 0


class ItemHead(nn.Module):
    """Logits (s . v_a + b_a) / T of what an observation offers; of what it does not allow, next to minus infinity.

    Embeddings v and biases b are learnt, one an action or, where the observation has candidate ids, one an id. Where
    candidates are features, the state is mapped to their size and v is what is observed.

    Args:
        size: n, numbers of a state.
        actions: A.
        offers: reads candidates and masks.
        temperature: T.
        generator: initialises the weights.
    """

    def __init__(self, size: int, actions: int, offers: Offers, temperature: float, generator: torch.Generator) -> None:
        super().__init__()
        self._offers = offers
        self._temperature = temperature
        candidates = offers.candidates
        self.query: nn.Linear | None = None
        self.bias: nn.Parameter | None = None
        if candidates is not None and len(candidates.shape) == 2:
            self.items = Items(offers, None, learnt=False, size=candidates.shape[1])
            self.query = linear(size, candidates.shape[1], generator)
            return
        self.count = actions if candidates is None else candidates.largest + 1
        layer = linear(size, self.count, generator)
        self.items = Items(offers, layer.weight.detach(), learnt=True, size=size)
        self.bias = nn.Parameter(layer.bias.detach().unsqueeze(1))

    def forward(self, state: Tensor, observation: Tensor) -> Tensor:
        """States float32[B, n] of observations [B, *shape] -> float32[B, A]."""
        query = state if self.query is None else self.query(state)
        logits = self.items.products(query.unsqueeze(1), observation, normalise=False).squeeze(2)
        if self.bias is not None:
            logits = logits + self.items.rows(self.bias, observation).squeeze(2)
        allowed = self._offers.allowed(observation)
        logits = logits / self._temperature
        return logits if allowed is None else logits.masked_fill(~allowed, NEVER)

    def each(self, state: Tensor, a: Tensor) -> Tensor:
        """Logits float32[B] of one action a record, int64[B]; only where every observation offers the same."""
        assert self.items.table is not None and self.bias is not None
        return ((state * self.items.table[a]).sum(dim=1) + self.bias[a, 0]) / self._temperature

    def some(self, state: Tensor, actions: Tensor) -> Tensor:
        """Logits float32[B, S] of actions int64[S]; only where every observation offers the same."""
        assert self.items.table is not None and self.bias is not None
        return torch.addmm(self.bias[actions, 0], state, self.items.table[actions].T) / self._temperature


class SoftmaxPolicyNetwork(nn.Module):
    """State encoder and item head."""

    def __init__(self, torso: Torso, head: ItemHead) -> None:
        super().__init__()
        self.torso = torso
        self.head = head

    def forward(self, observation: Tensor) -> Tensor:
        """[B, *observation_shape] -> logits float32[B, A]."""
        logits: Tensor = self.head(self.torso(observation), observation)
        return logits


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
