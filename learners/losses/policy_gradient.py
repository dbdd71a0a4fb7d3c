"""REINFORCE with the top-K off-policy correction (Williams 1992; Chen et al. 2019)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from learners.losses.reductions import masked_mean
from learners.losses.shapes import check_shapes


def advantage(r_t: Tensor, discount_t: Tensor, v_tm1: Tensor, v_t: Tensor) -> Tensor:
    """How much more came of an action than was expected, float[B]; no gradient flows into it.

    Args:
        r_t: float[B], (n-step or whole-episode) return.
        discount_t: float[B], of what follows it; 0 after a terminal state.
        v_tm1: float[B], value expected where the action was taken.
        v_t: float[B], value expected where the return ends.
    """
    batch = r_t.shape
    check_shapes(r_t=(r_t, (len(r_t),)), discount_t=(discount_t, batch), v_tm1=(v_tm1, batch), v_t=(v_t, batch))
    return (r_t + discount_t * v_t - v_tm1).detach()


def importance_ratio(log_prob_tm1: Tensor, behaviour_log_prob_tm1: Tensor, cap: float | None) -> Tensor:
    """min(pi(a) / beta(a), cap) of the logged actions, float[B] without gradient (Chen et al. 2019, section 4.2).

    The cap bounds the weight of a record's gradient and never the gradient's way to log pi.

    Args:
        log_prob_tm1: float[B], log pi of the logged actions.
        behaviour_log_prob_tm1: float[B], log probability of them under the policy that chose them.
        cap: largest weight; None for none.
    """
    check_shapes(
        log_prob_tm1=(log_prob_tm1, (len(log_prob_tm1),)),
        behaviour_log_prob_tm1=(behaviour_log_prob_tm1, tuple(log_prob_tm1.shape)),
    )
    difference = (log_prob_tm1 - behaviour_log_prob_tm1).detach()
    return difference.exp() if cap is None else difference.clamp(max=math.log(cap)).exp()


def self_normalised(ratios: Tensor, counted: Tensor) -> Tensor:
    """Ratios [B] divided by their mean over the records that count (normalised importance sampling).

    Args:
        ratios: float[B].
        counted: float[B], 1 for records that count, else 0.
    """
    return ratios / masked_mean(ratios, counted).clamp(min=torch.finfo(ratios.dtype).tiny)


def top_k_multiplier(log_prob_tm1: Tensor, k: int) -> Tensor:
    """lambda_K = K (1 - pi(a))^(K - 1), float[B] without gradient (Chen et al. 2019, equation 6).

    It is the slope of 1 - (1 - pi)^K, the chance that K independent draws hold the action: K where it is rare, 0 where
    it is sure to be there.
    """
    return k * (1.0 - log_prob_tm1.detach().exp()).clamp(min=0.0) ** (k - 1)


def policy_gradient_loss(log_prob_tm1: Tensor, advantage_tm1: Tensor, weight_tm1: Tensor) -> Tensor:
    """-weight x advantage x log pi(a), float[B]: gradient flows through log pi only.

    Args:
        log_prob_tm1: float[B], log pi of the logged actions.
        advantage_tm1: float[B], return or advantage.
        weight_tm1: float[B], importance ratio times top-K multiplier.
    """
    batch = (len(log_prob_tm1),)
    check_shapes(
        log_prob_tm1=(log_prob_tm1, batch), advantage_tm1=(advantage_tm1, batch), weight_tm1=(weight_tm1, batch)
    )
    return -(weight_tm1 * advantage_tm1).detach() * log_prob_tm1
