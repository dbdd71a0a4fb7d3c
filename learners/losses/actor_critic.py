"""Targets, errors and losses of critics and deterministic actors."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from learners.losses.shapes import check_shapes


def bootstrapped(r_t: Tensor, discount_t: Tensor, value_t: Tensor) -> Tensor:
    """r + discount x the successor's value, float[B] each: float[B]; no gradient flows through it."""
    check_shapes(r_t=(r_t, tuple(value_t.shape)), discount_t=(discount_t, tuple(value_t.shape)))
    return torch.addcmul(r_t, discount_t, value_t).detach()


def pessimistic_target(r_t: Tensor, discount_t: Tensor, q_t: Tensor) -> Tensor:
    """r + discount x the least of several critics' values: clipped double Q-learning (Fujimoto et al. 2018).

    With one critic it is the target of DDPG (Lillicrap et al. 2016). No gradient flows through it.

    Args:
        r_t: float[B], (n-step) reward.
        discount_t: float[B], gamma^n x (1 - terminated).
        q_t: float[C, B], target critics' values of the successor and its action.

    Returns:
        float[B].
    """
    return bootstrapped(r_t, discount_t, q_t.amin(dim=0))


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


def critic_td_errors(q_tm1: Tensor, target_tm1: Tensor) -> Tensor:
    """Target minus prediction of each critic.

    Args:
        q_tm1: float[C, B], critics' values of what was seen and done.
        target_tm1: float[B], the same for all.

    Returns:
        float[C, B], without gradient.
    """
    check_shapes(target_tm1=(target_tm1, (q_tm1.shape[1],)))
    return target_tm1.detach() - q_tm1.detach()


def critic_losses(q_tm1: Tensor, target_tm1: Tensor) -> Tensor:
    """Half the squared errors of `critic_td_errors`, summed over the critics: float[C, B], float[B] -> float[B]."""
    check_shapes(target_tm1=(target_tm1, (q_tm1.shape[1],)))
    targets = target_tm1.detach().expand_as(q_tm1)
    halves = functional.huber_loss(q_tm1, targets, reduction="none", delta=math.inf)  # quadratic all the way
    return halves.sum(dim=0)


def deterministic_policy_losses(q_tm1: Tensor) -> Tensor:
    """What the deterministic policy gradient descends (Silver et al. 2014): -Q(s, mu(s)), float[B] -> float[B]."""
    check_shapes(q_tm1=(q_tm1, (q_tm1.numel(),)))
    return -q_tm1


def smoothed(unit: Tensor, normal: Tensor, sigma: float, clip: float) -> Tensor:
    """Target actions with noise N(0, sigma) cut to +-clip, within the bounds (Fujimoto et al. 2018).

    Args:
        unit: float[B, n], actions scaled to [-1, 1].
        normal: float[B, n], standard normal draws; overwritten.
        sigma: standard deviation, share of the half range.
        clip: largest size, share of the half range.

    Returns:
        float[B, n] in [-1, 1].
    """
    check_shapes(normal=(normal, tuple(unit.shape)))
    return normal.mul_(sigma).clamp_(-clip, clip).add_(unit).clamp_(-1.0, 1.0)
