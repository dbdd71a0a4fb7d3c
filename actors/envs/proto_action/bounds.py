"""What no policy can earn from ProtoAction's users."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.envs.proto_action.model import ProtoActionModel
from actors.envs.proto_action.planning import influence
from actors.envs.proto_action.search import ExactIndex

_ROUNDS = 200
_USERS = 256  # of whom the bound is worked out


def upper_bound(
    model: ProtoActionModel,
    items: NDArray[np.float32],
    taste: NDArray[np.float32],
    steps: int,
    rounds: int = _ROUNDS,
) -> NDArray[np.float64]:
    """At least the largest total of expected rewards, before they are cut, over all sequences of items.

    The total is made concave by a multiple of sum |v|^2 - 1, which is zero for items, and maximised over the convex
    hull of the items instead of over the items (Frank and Wolfe 1956, with exact steps). Every round's duality gap
    says how far above the hull's maximum, and so the items', nothing can lie: the least of these bounds is returned,
    and more rounds can only lower it.

    Args:
        model: constants.
        items: float32[N, d], unit vectors.
        taste: float32[B, d], which does not change.
        steps: T.
        rounds: of the maximisation.

    Returns:
        float64[B].
    """
    pull = influence(model, steps)
    slack = -float(np.linalg.eigvalsh(pull.astype(np.float64))[0])
    curved = (model.lam * (pull + slack * np.eye(steps))).astype(np.float32)  # positive semi-definite
    constant = 0.5 * model.lam * slack * steps
    index = ExactIndex(items)
    x = np.repeat(items[index.search(taste)][:, None], steps, axis=1)  # [B, T, d]
    bound = np.full(len(taste), np.inf)
    for _ in range(rounds):
        bent = np.einsum("st,bsd->btd", curved, x)
        slope = taste[:, None] - bent
        vertex = items[index.search(slope.reshape(-1, slope.shape[2]))].reshape(x.shape)
        way = vertex - x
        gap = np.einsum("btd,btd->b", slope, way, dtype=np.float64)
        value = np.einsum("bd,btd->b", taste, x) - 0.5 * np.einsum("btd,btd->b", bent, x) + constant
        bound = np.minimum(bound, value + gap)
        bend = np.einsum("btd,btd->b", np.einsum("st,bsd->btd", curved, way), way)
        x += np.clip(gap / np.maximum(bend, 1e-12), 0.0, 1.0).astype(np.float32)[:, None, None] * way
    return np.asarray(model.reward_scale * bound)


def _bound(env: Any) -> NDArray[np.float64]:
    simulation, steps = env.simulation, env.max_episode_steps
    model = simulation.model
    if model.drift:  # only the cut holds for tastes nobody knows yet
        return np.array(steps * model.reward_bound)
    return upper_bound(model, simulation.catalogue.items, simulation.state.taste[:_USERS], steps)


BOUNDS: Mapping[str, Callable[[Any], NDArray[np.float64]]] = {"concave relaxation": _bound}
