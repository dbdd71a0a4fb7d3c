"""Refuses tensors of other shapes than a loss is defined for."""

from __future__ import annotations

from torch import Tensor


def check_shapes(**tensors_and_shapes: tuple[Tensor, tuple[int, ...]]) -> None:
    """Refuse any tensor whose shape is not the one named, before broadcasting can hide it.

    Raises:
        ValueError: naming the tensor, its shape and the shape expected.
    """
    for name, (tensor, shape) in tensors_and_shapes.items():
        if tensor.shape != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {shape}")
