"""Losses of cloning logged actions, and which actions a clone says are like them."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from learners.losses.shapes import check_shapes


def negative_log_likelihood(logits_tm1: Tensor, a_tm1: Tensor) -> Tensor:
    """-log of the softmax probability of the action taken: float[B, A], int64[B] -> float[B]."""
    check_shapes(a_tm1=(a_tm1, (logits_tm1.shape[0],)))
    log_probs = torch.log_softmax(logits_tm1, dim=1)
    return -log_probs.gather(1, a_tm1.unsqueeze(1)).squeeze(1)


def squared_distances(prediction: Tensor, action: Tensor) -> Tensor:
    """Squared difference of two float[B, n], mean over the dimensions: float[B]."""
    batch, size = action.shape
    check_shapes(prediction=(prediction, (batch, size)))
    return (prediction - action).square().mean(dim=1)


def gaussian_kl(mean: Tensor, log_std: Tensor) -> Tensor:
    """Divergence of N(mean, std) from N(0, 1), mean over the dimensions: float[B, n] twice -> float[B]."""
    check_shapes(log_std=(log_std, tuple(mean.shape)))
    return 0.5 * (mean.square() + (2.0 * log_std).exp() - 1.0 - 2.0 * log_std).mean(dim=1)


def likely_actions(logits: Tensor, threshold: float) -> Tensor:
    """Actions more than `threshold` times as likely as the likeliest one (Fujimoto et al. 2019, discrete BCQ).

    Args:
        logits: float[B, A], of the cloned behaviour; -inf where an action is not offered.
        threshold: in [0, 1); 0 allows all that are offered.

    Returns:
        bool[B, A], with at least the likeliest action in every row.
    """
    least = math.log(threshold) if threshold > 0.0 else -math.inf
    return logits - logits.amax(dim=1, keepdim=True) > least
