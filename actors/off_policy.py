"""What a policy would earn, estimated from records of another one whose propensities are known (bandit feedback)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from replay_server.errors import InvalidRecord

Values = NDArray[np.floating]


@dataclass(frozen=True)
class OffPolicyEstimate:
    """An estimate of the mean reward of a decision.

    Attributes:
        value: the estimate.
        sem: its standard error.
        effective_records: (sum of weights)^2 / sum of squared weights; below 100 the standard error says little.
        largest_weight: of any record.
    """

    value: float
    sem: float
    effective_records: float
    largest_weight: float


def ips(
    reward: Values, log_prob: Values, behaviour_log_prob: Values, largest_weight: float | None = None
) -> OffPolicyEstimate:
    """Inverse propensity scores: mean(w r) with w = pi(a) / beta(a) (Horvitz and Thompson 1952).

    Unbiased without a largest weight; with one, weights are cut to it, for less variance and some bias.

    Args:
        reward: float[n], of what was shown.
        log_prob: float[n], log pi of what was shown, under the policy in question.
        behaviour_log_prob: float[n], log beta of it, under the policy that showed it.
        largest_weight: what weights are cut to; None for no bound.

    Raises:
        InvalidRecord: no records, other lengths, or values that are not finite.
    """
    r, w = _weighted(reward, log_prob, behaviour_log_prob)
    if largest_weight is not None:
        w = np.minimum(w, largest_weight)
    return _estimate(float((w * r).mean()), float((w * r).std() / np.sqrt(len(r))), w)


def snips(reward: Values, log_prob: Values, behaviour_log_prob: Values) -> OffPolicyEstimate:
    """Self-normalised: sum(w r) / sum(w), with less variance and a bias of order 1/n (Swaminathan and Joachims 2015).

    The standard error is the delta method's. See `ips`.
    """
    r, w = _weighted(reward, log_prob, behaviour_log_prob)
    value = float((w * r).sum() / w.sum())
    return _estimate(value, float(np.sqrt((np.square(w * (r - value))).sum()) / w.sum()), w)


def _weighted(
    reward: Values, log_prob: Values, behaviour_log_prob: Values
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r, pi, beta = (np.asarray(column, dtype=np.float64) for column in (reward, log_prob, behaviour_log_prob))
    if not (r.ndim == 1 and len(r) and r.shape == pi.shape == beta.shape):
        raise InvalidRecord(
            f"off-policy estimate: reward {r.shape}, log_prob {pi.shape} and behaviour_log_prob {beta.shape} must be "
            "of one length, 1 or more"
        )
    if not (np.isfinite(r).all() and np.isfinite(beta).all()) or np.isnan(pi).any():
        raise InvalidRecord(
            "off-policy estimate: a reward or a propensity is not finite; an action with propensity 0 can't be logged"
        )
    return r, np.exp(pi - beta)


def _estimate(value: float, sem: float, w: NDArray[np.float64]) -> OffPolicyEstimate:
    squares = float(np.square(w).sum())
    return OffPolicyEstimate(value, sem, float(w.sum()) ** 2 / squares if squares else 0.0, float(w.max()))
