"""Fully connected layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from learners.networks.initialise import linear

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


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
