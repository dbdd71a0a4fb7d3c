"""Log probabilities under a softmax over many items: over all of them, or over a few sampled ones."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from learners.losses.shapes import check_shapes


class Scored(NamedTuple):
    """What a softmax says of B records.

    Attributes:
        log_prob: float[B], log probability of each record's action.
        entropy: float[B], nats.
    """

    log_prob: Tensor
    entropy: Tensor


def full_softmax(logits: Tensor, a_tm1: Tensor) -> Scored:
    """Exact, over all items.

    Args:
        logits: float[B, N].
        a_tm1: int64[B], the logged actions.
    """
    batch, _ = logits.shape
    check_shapes(a_tm1=(a_tm1, (batch,)))
    log_probs = logits.log_softmax(dim=1)
    return Scored(log_probs.gather(1, a_tm1.unsqueeze(1)).squeeze(1), -(log_probs.exp() * log_probs).sum(dim=1))


def sampled_softmax(
    action_logit: Tensor, negative_logits: Tensor, a_tm1: Tensor, negatives: Tensor, log_expected: Tensor
) -> Scored:
    """Estimated from the logged action and sampled negatives (Bengio & Senecal 2008; Jean et al. 2015).

    The normaliser is exp(l_a) plus, over the negatives, exp(l_j) divided by how often j was expected among them (the
    log-q correction): its mean over the sampling is the true one. A negative that is the logged action itself counts
    nothing. With every item once and an expected number of 1 this is `full_softmax`.

    Args:
        action_logit: float[B], logits of the logged actions.
        negative_logits: float[B, S], logits of the negatives, which all records share.
        a_tm1: int64[B], the logged actions.
        negatives: int64[S], the sampled items, repetitions allowed.
        log_expected: float[S], log of how often each of them was expected in the sample.
    """
    batch, size = negative_logits.shape
    check_shapes(
        action_logit=(action_logit, (batch,)),
        a_tm1=(a_tm1, (batch,)),
        negatives=(negatives, (size,)),
        log_expected=(log_expected, (size,)),
    )
    hits = a_tm1.unsqueeze(1) == negatives
    corrected = (negative_logits - log_expected).masked_fill(hits, -torch.inf)
    log_normaliser = torch.logsumexp(torch.cat([action_logit.unsqueeze(1), corrected], dim=1), dim=1, keepdim=True)
    log_prob = action_logit - log_normaliser.squeeze(1)
    others = (corrected - log_normaliser).exp() * (negative_logits - log_normaliser)
    return Scored(log_prob, -(log_prob.exp() * log_prob) - others.sum(dim=1))
