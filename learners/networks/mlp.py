"""Fully connected layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from learners.networks.initialise import linear

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}
IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu_, "tanh": torch.tanh_}


class MLP(nn.Sequential):
    """Linear layers, each followed by an activation: [B, inputs] -> [B, sizes[-1]].

    Args:
        inputs: numbers in.
        sizes: units of each layer.
        generator: initialises the weights.
        activation: `relu` or `tanh`.
    """

    def __init__(self, inputs: int, sizes: Sequence[int], generator: torch.Generator, activation: str = "relu") -> None:
        layers: list[nn.Module] = []
        for size in sizes:
            layers += [linear(inputs, size, generator), ACTIVATIONS[activation]()]
            inputs = size
        super().__init__(*layers)
        self._activate = IN_PLACE[activation]

    def forward(self, inputs: Tensor) -> Tensor:
        """See the class. An activation overwrites what its layer gave, which nothing else needs."""
        numbers = inputs
        for layer in self:
            if isinstance(layer, nn.Linear):
                numbers = self._activate(functional.linear(numbers, layer.weight, layer.bias))
        return numbers
