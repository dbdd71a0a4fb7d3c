"""Which environment explores how much."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def ape_x_epsilons(indices: Sequence[int] | NDArray[Any], total: int, base: float, alpha: float) -> NDArray[np.float64]:
    """Epsilon of environments `indices` out of `total`: base^(1 + alpha x i / (total - 1)) (Horgan et al. 2018).

    Args:
        indices: places of the environments among all environments of the run.
        total: environments of the whole run.
        base: epsilon of the most exploring one, in (0, 1].
        alpha: how far the least exploring one falls below it.

    Returns:
        float64[len(indices)].
    """
    places = np.asarray(indices, dtype=np.float64)
    return np.asarray(base ** (1.0 + alpha * places / max(total - 1, 1)))


def annealed(epsilons: NDArray[np.float64], env_steps: int, anneal_env_steps: int) -> NDArray[np.float64]:
    """Epsilons floored by a line falling from 1 to 0 over the run's first `anneal_env_steps` transitions."""
    if env_steps >= anneal_env_steps:
        return epsilons
    return np.maximum(epsilons, 1.0 - env_steps / anneal_env_steps)


def epsilon_greedy(
    greedy: NDArray[np.int64],
    epsilon: NDArray[np.float64],
    actions: int,
    allowed: NDArray[np.bool_] | None,
    rng: np.random.Generator,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """With probability `epsilon` any allowed action, all alike, else the greedy one.

    Args:
        greedy: int64[B], allowed ones.
        epsilon: [B], each in [0, 1].
        actions: A.
        allowed: bool[B, A], at least one a row; None: all.
        rng: two numbers a row are drawn.

    Returns:
        Actions int64[B] and the log probability of each, float64[B].
    """
    draws = rng.random((2, len(greedy)))
    if allowed is None:
        count: Any = actions
        anything = (draws[1] * actions).astype(np.int64)
    else:
        count = allowed.sum(axis=1)
        place = (draws[1] * count).astype(np.int64)
        anything = (allowed.cumsum(axis=1) > place[:, None]).argmax(axis=1)
    action = np.where(draws[0] < epsilon, anything, greedy)
    return action, np.log(epsilon / count + (1.0 - epsilon) * (action == greedy))


def boltzmann(
    q: NDArray[Any], temperature: float, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Draw from softmax(Q / temperature).

    Args:
        q: [B, A], -inf where an action is not allowed.
        temperature: > 0; the smaller, the greedier.
        rng: A numbers a row are drawn.

    Returns:
        Actions int64[B] and the log probability of each, float64[B].
    """
    logits = q.astype(np.float64) / temperature
    logits -= logits.max(axis=1, keepdims=True)
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    action = (log_probs + rng.gumbel(size=q.shape)).argmax(axis=1)
    return action, np.take_along_axis(log_probs, action[:, None], axis=1)[:, 0]


def geometric_sigmas(indices: Sequence[int] | NDArray[Any], total: int, low: float, high: float) -> NDArray[np.float64]:
    """Noise of environments `indices` out of `total`: from `low` to `high` in equal ratios; a single one gets `low`.

    Returns:
        float64[len(indices)].
    """
    places = np.asarray(indices, dtype=np.float64)
    return np.asarray(low * (high / low) ** (places / max(total - 1, 1)))
