"""Values of slates and what can be learnt from how a user answered one (SlateQ: Ie et al. 2019).

A user is shown K of M candidates and consumes one of them or none. What happens next depends on that outcome alone, so
the value of a slate is the mean of the outcomes' values under the user's choice, and an outcome's value is learnt from
the records in which it happened. Outcomes are counted 0 to M - 1 for the candidates and M for none.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from learners.losses.shapes import check_shapes


def consumed_place(response: Tensor) -> Tensor:
    """The first place whose item was consumed, K where none was: float[B, K], 1 for consumed -> int64[B]."""
    taken = response > 0.5
    return torch.where(taken.any(dim=1), taken.int().argmax(dim=1), response.shape[1])


def possible_outcomes(slate: Tensor, candidates: int) -> Tensor:
    """The outcomes that a slate leaves open, its items and then none: int64[B, K] -> int64[B, K + 1]."""
    return functional.pad(slate, (0, 1), value=candidates)


def consumed(slate: Tensor, response: Tensor, candidates: int) -> Tensor:
    """The outcome of each slate.

    Args:
        slate: int64[B, K], positions among the candidates.
        response: float[B, K], 1 where the item was consumed; of several the first counts.
        candidates: M.

    Returns:
        int64[B], the consumed item's position among the candidates, M where none was.
    """
    check_shapes(response=(response, tuple(slate.shape)))
    return possible_outcomes(slate, candidates).gather(1, consumed_place(response).unsqueeze(1)).squeeze(1)


def slate_values(q: Tensor, scores: Tensor, slate: Tensor) -> Tensor:
    """Mean value of a slate's outcomes: sum of P(i) q_i with P(i) = v_i / (v_none + sum of the slate's v).

    Args:
        q: float[B, M + 1], value of each outcome.
        scores: float[B, M + 1], v >= 0, how much the user is drawn to each outcome; the last above 0.
        slate: int64[B, K], positions among the candidates.

    Returns:
        float[B].
    """
    batch, outcomes = q.shape
    check_shapes(scores=(scores, (batch, outcomes)), slate=(slate, (batch, slate.shape[1])))
    possible = possible_outcomes(slate, outcomes - 1)
    drawn = scores.gather(1, possible)
    return (drawn * q.gather(1, possible)).sum(dim=1) / drawn.sum(dim=1)


def slate_td_error(
    q_tm1: Tensor, outcome_tm1: Tensor, r_t: Tensor, discount_t: Tensor, q_t: Tensor, scores_t: Tensor, slate_t: Tensor
) -> Tensor:
    """Temporal-difference error of the value of what was consumed; the items that were not get no gradient.

    Args:
        q_tm1: float[B, M + 1], online values of the outcomes where the slate was shown.
        outcome_tm1: int64[B], what was consumed.
        r_t: float[B], reward.
        discount_t: float[B], gamma x (1 - terminated).
        q_t: float[B, M + 1], target network's values at the successor.
        scores_t: float[B, M + 1], the user's choice at the successor, see `slate_values`.
        slate_t: int64[B, K], the slate shown at the successor: the best one (Q-learning) or one of a policy (SARSA).

    Returns:
        float[B], target minus prediction.
    """
    batch, outcomes = q_tm1.shape
    check_shapes(
        outcome_tm1=(outcome_tm1, (batch,)),
        r_t=(r_t, (batch,)),
        discount_t=(discount_t, (batch,)),
        q_t=(q_t, (batch, outcomes)),
    )
    with torch.no_grad():
        target_tm1 = r_t + discount_t * slate_values(q_t, scores_t, slate_t)
    return target_tm1 - q_tm1.gather(1, outcome_tm1.unsqueeze(1)).squeeze(1)


def choice_losses(logits: Tensor, slate: Tensor, response: Tensor) -> Tensor:
    """Negative log likelihood of the response under a multinomial logit choice between the slate's items and none.

    Args:
        logits: float[B, M + 1], log of the scores v.
        slate: int64[B, K], positions among the candidates.
        response: float[B, K], 1 where the item was consumed.

    Returns:
        float[B].
    """
    batch, outcomes = logits.shape
    check_shapes(slate=(slate, (batch, slate.shape[1])), response=(response, tuple(slate.shape)))
    shown = logits.gather(1, possible_outcomes(slate, outcomes - 1))
    return functional.cross_entropy(shown, consumed_place(response), reduction="none")
