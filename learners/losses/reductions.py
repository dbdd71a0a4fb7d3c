"""From numbers of records to one number: means over a batch or over some of its records."""

from __future__ import annotations

import torch
from torch import Tensor

from learners.losses.shapes import check_shapes

_ROUNDING = 1e-6  # of a float32 mean, relative


def weighted_mean(losses: Tensor, weights: Tensor) -> Tensor:
    """Mean of losses [B] times importance weights [B]."""
    check_shapes(weights=(weights, tuple(losses.shape)))
    return torch.dot(losses, weights / len(losses))


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean float[] of values [B] over the records with 1 in `mask`, float[B]; 0 where there are none."""
    check_shapes(mask=(mask, tuple(values.shape)))
    return torch.dot(values, mask) / mask.sum().clamp(min=1.0)


def standardised(values: Tensor, mask: Tensor, epsilon: float) -> Tensor:
    """Values [B] minus mean, over deviation plus epsilon, both of those with 1 in `mask`, float[B].

    Zeros where the values are all alike: what rounding leaves of them is not blown up.
    """
    centred = values - masked_mean(values, mask)
    deviation = masked_mean(centred.square(), mask).sqrt()
    alike = deviation <= _ROUNDING * masked_mean(values.abs(), mask)
    return (centred / (deviation + epsilon)).masked_fill(alike, 0.0)
