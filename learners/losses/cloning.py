"""Losses and targets of learning from logged actions: cloning them, and values of actions like them."""

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


def soft_clipped_values(q_t: Tensor, minimum_weight: float) -> Tensor:
    """The best candidate's lambda x min + (1 - lambda) x max over critics (Fujimoto et al. 2019); no gradient.

    With lambda = 1 it is clipped double Q-learning over candidates.

    Args:
        q_t: float[C, B, N], target critics' values of the successor and each of N candidate actions.
        minimum_weight: lambda.

    Returns:
        float[B].
    """
    value_t = minimum_weight * q_t.amin(dim=0) + (1.0 - minimum_weight) * q_t.amax(dim=0)
    return value_t.amax(dim=1).detach()


def bootstrapped(r_t: Tensor, discount_t: Tensor, value_t: Tensor) -> Tensor:
    """r + discount x the successor's value, float[B] each: float[B]; no gradient flows through it."""
    check_shapes(r_t=(r_t, tuple(value_t.shape)), discount_t=(discount_t, tuple(value_t.shape)))
    return (r_t + discount_t * value_t).detach()


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


def kept_mean(losses: Tensor, weights: Tensor, kept: Tensor) -> Tensor:
    """Sum of losses [B] times importance weights [B] of the records kept, bool[B], over their number; 0 of none."""
    check_shapes(weights=(weights, tuple(losses.shape)), kept=(kept, tuple(losses.shape)))
    return torch.dot(losses * kept, weights) / kept.sum().clamp(min=1)
