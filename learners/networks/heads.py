"""Heads: Z numbers for each action, from one output an action or from embeddings of the items that actions choose."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from learners.networks.initialise import linear
from learners.networks.item_table import Items
from learners.networks.q_network import Head

_FEW_ACTIONS = 64  # up to here it is cheaper to centre the weights of advantages than the advantages themselves


class ActionHead(Head):
    """One output an action, optionally dueling (Wang et al. 2016): V + A - mean of A over the actions allowed.

    Dueling is linear: where all actions are allowed it is done to the layer's weights, which are fewer than outputs.

    Args:
        features: inputs.
        actions: A.
        size: Z, numbers an action.
        dueling: whether there is a V.
        generator: initialises the weights.
    """

    def __init__(self, features: int, actions: int, size: int, dueling: bool, generator: torch.Generator) -> None:
        super().__init__()
        self._actions, self._size, self._dueling = actions, size, dueling
        self.linear = linear(features, (actions + dueling) * size, generator)  # V first
        self._duel: Tensor | None
        few = dueling and actions <= _FEW_ACTIONS
        self.register_buffer("_duel", _duelling(actions) if few else None, persistent=False)

    def forward(self, features: Tensor, observation: Tensor, allowed: Tensor | None) -> Tensor:
        """See Head.forward."""
        if not self._dueling:
            outputs: Tensor = self.linear(features)
        elif self._duel is None or allowed is not None:
            pieces: Tensor = self.linear(features).unflatten(1, (self._actions + 1, self._size))
            return duel(pieces[:, :1], pieces[:, 1:], allowed)
        else:
            rows = self._actions * self._size
            weight = (self._duel @ self.linear.weight.view(self._actions + 1, -1)).view(rows, -1)
            bias = (self._duel @ self.linear.bias.view(self._actions + 1, -1)).view(rows)
            outputs = functional.linear(features, weight, bias)
        return outputs.view(-1, self._actions, self._size)


def _duelling(actions: int) -> Tensor:
    """float32[A, 1 + A] that makes V + A - mean(A) of V and A."""
    eye = torch.eye(actions + 1)
    return duel(eye[None, :1], eye[None, 1:], None)[0]


class EmbeddingMLPHead(Head):
    """MLP([features, item]) with one hidden layer, optionally dueling.

    The hidden layer's product is made apart for features [B] and items, and added up: [B, A, hidden] is never
    multiplied by a matrix of inputs.

    Args:
        features: inputs.
        items: embeddings of the items on offer.
        size: Z, numbers an item.
        hidden: units of the hidden layer.
        dueling: whether there is a V, of the features alone.
        generator: initialises the weights.
    """

    def __init__(
        self, features: int, items: Items, size: int, hidden: int, dueling: bool, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.items = items
        self.of_state = linear(features, hidden, generator)
        self.of_item = linear(items.size, hidden, generator)
        self.last = linear(hidden, size, generator)
        self.value = linear(features, size, generator) if dueling else None

    def forward(self, features: Tensor, observation: Tensor, allowed: Tensor | None) -> Tensor:
        """See Head.forward."""
        hidden = self.of_state(features).unsqueeze(1) + self.items.mapped(observation, self.of_item)
        outputs: Tensor = self.last(functional.relu(hidden))
        return outputs if self.value is None else duel(self.value(features).unsqueeze(1), outputs, allowed)


class EmbeddingDotHead(Head):
    """Dot products of a query made of the features with the items, plus a bias if asked for, optionally dueling.

    Normalised, both sides have length 1 and their cosine is multiplied by a learnt scale. With a fixed set of items
    the products are one matrix product, and the best item of a query is its nearest by inner product.

    Args:
        features: inputs.
        items: embeddings of the items on offer.
        size: Z, numbers (and queries) an item.
        normalise: use cosines.
        dueling: whether there is a V, of the features alone.
        generator: initialises the weights.
        biased: whether each item of a table has a bias of its own.
    """

    def __init__(
        self,
        features: int,
        items: Items,
        size: int,
        normalise: bool,
        dueling: bool,
        generator: torch.Generator,
        biased: bool = True,
    ) -> None:
        super().__init__()
        self.items = items
        self._normalise = normalise
        self.query = linear(features, size * items.size, generator)
        self._shape = (size, items.size)
        self.bias = nn.Parameter(torch.zeros(items.count or 1, size)) if biased else None
        self.scale = nn.Parameter(torch.ones(())) if normalise else None
        self.value = linear(features, size, generator) if dueling else None

    def forward(self, features: Tensor, observation: Tensor, allowed: Tensor | None) -> Tensor:
        """See Head.forward."""
        query = self.query(features).unflatten(1, self._shape)  # [B, Z, d]
        if self.scale is not None:
            query = functional.normalize(query, dim=2) * self.scale
        products = self.items.products(query, observation, normalise=self._normalise)  # [B, A, Z]
        outputs = products if self.bias is None else products + self.items.rows(self.bias, observation)
        return outputs if self.value is None else duel(self.value(features).unsqueeze(1), outputs, allowed)


def duel(value: Tensor, advantage: Tensor, allowed: Tensor | None) -> Tensor:
    """V [B, 1, Z] + A [B, A, Z] - mean of A over the actions allowed, bool[B, A] (None: over all)."""
    if allowed is None:
        return advantage + (value - advantage.mean(dim=1, keepdim=True))
    share = allowed.unsqueeze(2).to(advantage.dtype)
    mean = (advantage * share).sum(dim=1, keepdim=True) / share.sum(dim=1, keepdim=True)
    return advantage + (value - mean)
