"""Layers initialised from a given generator, never the global one."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)


def linear(inputs: int, outputs: int, generator: torch.Generator, *, bias: bool = True) -> nn.Linear:
    """A linear layer initialised U(-1/sqrt(inputs), 1/sqrt(inputs))."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=bias)  # type: ignore[no-untyped-call]
    return uniform(layer, 1.0 / math.sqrt(inputs), generator)


def convolution(inputs: int, outputs: int, kernel: int, stride: int, generator: torch.Generator) -> nn.Conv2d:
    """A square convolution without padding, initialised U(-b, b) with b = 1 / sqrt(numbers that one output sees)."""
    layer: nn.Conv2d = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Conv2d, inputs, outputs, kernel, stride=stride
    )
    return uniform(layer, 1.0 / math.sqrt(inputs * kernel * kernel), generator)


def gru(inputs: int, outputs: int, generator: torch.Generator) -> nn.GRU:
    """A gated recurrent layer over [B, time, inputs], initialised U(-1/sqrt(outputs), 1/sqrt(outputs))."""
    layer = nn.GRU(inputs, outputs, batch_first=True, device="meta").to_empty(device="cpu")  # draws nothing itself
    return uniform(layer, 1.0 / math.sqrt(outputs), generator)


def uniform(layer: Layer, bound: float, generator: torch.Generator) -> Layer:
    """The layer with all its parameters drawn from U(-bound, bound)."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.uniform_(-bound, bound, generator=generator)
    return layer
