"""Networks of continuous actions: a deterministic actor, and critics of an observation and an action."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from learners.algorithm import AlgorithmConfig
from learners.networks.initialise import linear, uniform
from learners.networks.mlp import IN_PLACE
from learners.networks.torsos import Torso
from learners.task import ContinuousActions
from replay_server.errors import ConfigError


class ActionBounds(nn.Module):
    """A box of actions, each dimension with its own bounds: between the task's units and [-1, 1].

    Raises:
        ConfigError: a dimension has no room.
    """

    def __init__(self, actions: ContinuousActions) -> None:
        super().__init__()
        low, high = (torch.tensor(side, dtype=torch.float32) for side in (actions.low, actions.high))
        if bool((low >= high).any()):
            raise ConfigError(
                f"environment.id: the action bounds {list(actions.low)} to {list(actions.high)} leave a dimension "
                "without room; drop it with a wrapper in environment.wrappers"
            )
        self.low: Tensor
        self.high: Tensor
        self.middle: Tensor
        self.half_range: Tensor
        self._offset: Tensor
        self._scale: Tensor
        middle, half_range = (low + high) / 2, (high - low) / 2
        for name, value in (
            ("low", low),
            ("high", high),
            ("middle", middle),
            ("half_range", half_range),
            ("_offset", -middle / half_range),
            ("_scale", 1.0 / half_range),
        ):
            self.register_buffer(name, value, persistent=False)  # made of the task, so not part of the weights

    def from_unit(self, unit: Tensor) -> Tensor:
        """[B, n] in [-1, 1] -> actions [B, n] within the bounds, rounding included."""
        return self.clip(torch.addcmul(self.middle, self.half_range, unit))

    def to_unit(self, action: Tensor) -> Tensor:
        """Actions [B, n] -> [B, n] in [-1, 1]."""
        return torch.addcmul(self._offset, action, self._scale)

    def clip(self, action: Tensor) -> Tensor:
        """Actions [B, n] cut to the bounds of their dimension."""
        return torch.clamp(action, self.low, self.high)


class Actor(nn.Module):
    """One action of an observation: tanh, scaled to the bounds of each dimension (Lillicrap et al. 2016).

    Args:
        torso: features of an observation.
        actions: the bounds.
        generator: of the first weights.
        final_bound: weights of the last layer start in U(-bound, bound); None: as those of the other layers.
    """

    def __init__(
        self, torso: Torso, actions: ContinuousActions, generator: torch.Generator, final_bound: float | None = None
    ) -> None:
        super().__init__()
        self.torso = torso
        self.head = linear(torso.size, actions.size, generator)
        if final_bound is not None:
            uniform(self.head, final_bound, generator)
        self.bounds = ActionBounds(actions)

    def forward(self, observation: Tensor) -> Tensor:
        """[B, *observation_shape] -> float32[B, n]."""
        return self.bounds.from_unit(self.unit(observation))

    def unit(self, observation: Tensor) -> Tensor:
        """The action before it is scaled to the bounds: [B, *observation_shape] -> float32[B, n] in [-1, 1]."""
        return torch.tanh(self.head.forward(self.torso.forward(observation)))


class StackedLinear(nn.Module):
    """`count` linear layers of the same shape as one batched product."""

    def __init__(self, count: int, inputs: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs))
        self.bias = nn.Parameter(torch.empty(count, 1, outputs))
        uniform(self, 1.0 / math.sqrt(inputs), generator)

    def each(self, inputs: Tensor) -> Tensor:
        """float32[count, B, inputs] -> float32[count, B, outputs]."""
        return torch.baddbmm(self.bias, inputs, self.weight)

    def first(self, inputs: Tensor) -> Tensor:
        """The first layer alone: float32[B, inputs] -> float32[B, outputs]; it does not learn from this."""
        return torch.addmm(self.bias.detach()[0], inputs, self.weight.detach()[0])


class Critics(nn.Module):
    """One or several action values of an observation and an action, computed together.

    The action joins the encoded observation before the first hidden layer, as in TD3 (Fujimoto et al. 2018), scaled to
    [-1, 1] so that a task's units do not decide how much of it that layer sees. The critics share the encoder.

    Args:
        encoder: of observations.
        actions: their bounds.
        config: hidden layers.
        count: critics, each with hidden layers of its own.
        generator: of the first weights.
        final_bound: weights of the last layers start in U(-bound, bound); None: as those of the other layers.
        products: each critic adds the inner product of the action and a linear function of the encoded observation,
            which layers that see the two beside each other learn slowly.
    """

    def __init__(
        self,
        encoder: Torso,
        actions: ContinuousActions,
        config: AlgorithmConfig,
        *,
        count: int,
        generator: torch.Generator,
        final_bound: float | None = None,
        products: bool = False,
    ) -> None:
        super().__init__()
        self.count = count
        self.encoder = encoder
        self.bounds = ActionBounds(actions)
        self._activate = IN_PLACE[config.activation]
        widths = [encoder.size + actions.size, *config.hidden_sizes, 1]
        self._stack = [StackedLinear(count, a, b, generator) for a, b in pairwise(widths)]
        self.layers = nn.ModuleList(self._stack)
        if final_bound is not None:
            uniform(self.layers[-1], final_bound, generator)
        self.slope = StackedLinear(count, encoder.size, actions.size, generator) if products else None
        if self.slope is not None and final_bound is not None:
            uniform(self.slope, final_bound, generator)

    def forward(self, observation: Tensor, action: Tensor) -> Tensor:
        """[B, *observation_shape], float32[B, n] -> float32[count, B]."""
        return self.of_unit(observation, self.bounds.to_unit(action))

    def of_unit(self, observation: Tensor, unit: Tensor) -> Tensor:
        """The same of actions that are scaled to [-1, 1] already."""
        encoded = self.encoder.forward(observation)
        numbers = torch.cat((encoded, unit), dim=1).expand(self.count, -1, -1)
        *hidden, last = self._stack
        for layer in hidden:
            numbers = self._activate(layer.each(numbers))
        values = last.each(numbers).squeeze(2)
        if self.slope is None:
            return values
        return values + (self.slope.each(encoded.expand(self.count, -1, -1)) * unit).sum(dim=2)

    def first(self, observation: Tensor, action: Tensor) -> Tensor:
        """The first critic alone: [B, *observation_shape], float32[B, n] -> float32[B]."""
        return self.first_of_unit(observation, self.bounds.to_unit(action))

    def first_of_unit(self, observation: Tensor, unit: Tensor) -> Tensor:
        """The first critic alone, of actions that are scaled to [-1, 1] already: as `first`."""
        first, *others = self._stack
        encoded = self.encoder.forward(observation)
        numbers = first.first(torch.cat((encoded, unit), dim=1))
        for layer in others:
            numbers = layer.first(self._activate(numbers))
        values = numbers.squeeze(1)
        return values if self.slope is None else values + (self.slope.first(encoded) * unit).sum(dim=1)

    def first_of_each(self, encoded: Tensor, actions: Tensor) -> Tensor:
        """The first critic of K actions for each encoded observation: float32[B, m], float32[B, K, n] -> [B, K]."""
        first, *others = self._stack
        of_state, of_action = first.weight[0].tensor_split([encoded.shape[1]])
        state = torch.addmm(first.bias[0], encoded, of_state)  # once for all its actions
        unit = self.bounds.to_unit(actions)
        numbers = (state.unsqueeze(1) + unit @ of_action).flatten(0, 1)
        for layer in others:
            numbers = layer.first(self._activate(numbers))
        values = numbers.reshape(actions.shape[:2])
        return values if self.slope is None else values + (unit @ self.slope.first(encoded).unsqueeze(2)).squeeze(2)
