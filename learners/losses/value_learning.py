"""Temporal-difference errors of action values and what is made of an error."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from learners.losses.shapes import check_shapes


def q_learning_td_error(
    q_tm1: Tensor, a_tm1: Tensor, r_t: Tensor, discount_t: Tensor, q_t: Tensor, q_t_selector: Tensor
) -> Tensor:
    """Temporal-difference error of (Double) Q-learning (van Hasselt et al. 2016).

    With `q_t_selector` = `q_t` it is plain Q-learning; with the online network's values it is Double Q-learning. No
    gradient flows through the target.

    Args:
        q_tm1: float[B, A], online values where the action was taken.
        a_tm1: int64[B], the action taken.
        r_t: float[B], (n-step) reward.
        discount_t: float[B], gamma^n x (1 - terminated).
        q_t: float[B, A], target network's values at the successor.
        q_t_selector: float[B, A], values whose argmax picks the successor's action.

    Returns:
        float[B], target minus prediction.
    """
    batch, actions = q_tm1.shape
    check_shapes(
        a_tm1=(a_tm1, (batch,)),
        r_t=(r_t, (batch,)),
        discount_t=(discount_t, (batch,)),
        q_t=(q_t, (batch, actions)),
        q_t_selector=(q_t_selector, (batch, actions)),
    )
    with torch.no_grad():
        a_t = q_t_selector.argmax(dim=1, keepdim=True)
        target_tm1 = r_t + discount_t * q_t.gather(1, a_t).squeeze(1)
    return target_tm1 - q_tm1.gather(1, a_tm1.unsqueeze(1)).squeeze(1)


def huber(error: Tensor, delta: float) -> Tensor:
    """Huber loss of an error, elementwise: quadratic up to `delta`, linear beyond."""
    return functional.huber_loss(error, torch.zeros_like(error), reduction="none", delta=delta)


def squared(error: Tensor) -> Tensor:
    """Half the squared error, elementwise; its gradient matches `huber`'s near zero."""
    return 0.5 * error.square()
