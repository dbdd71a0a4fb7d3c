"""Which items to show in turn to a user whose taste is known: beam search, then coordinate ascent."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from actors.envs.proto_action.model import ProtoActionModel
from actors.envs.proto_action.search import ExactIndex, best_ids

_USERS = 64  # planned for at a time, so that the arrays of a search stay small
_SWEEPS = 50  # over all steps; most users need about five
_GAIN = 1e-6  # smaller ones are rounding


def influence(model: ProtoActionModel, steps: int) -> NDArray[np.float32]:
    """float32[T, T]: how much of the item of step s is in the satiation of step t, at [s, t] and [t, s]; 0 at [t, t].

    The sum of expected rewards of items V is reward_scale (sum_t u.v_t - lam / 2 sum_st influence_st v_s.v_t).
    """
    apart = np.abs(np.arange(steps)[:, None] - np.arange(steps))
    kept = (1.0 - model.decay) * np.power(model.decay, np.maximum(apart - 1.0, 0.0))
    return np.where(apart == 0, 0.0, kept).astype(np.float32)


def plan_value(
    model: ProtoActionModel, taste: NDArray[np.float32], vectors: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Sum of expected rewards, before they are cut, of items float32[B, T, d] for tastes float32[B, d]: float64[B]."""
    pull = influence(model, vectors.shape[1])
    liked = np.einsum("bd,btd->b", taste, vectors)
    alike = np.einsum("btd,btd->b", np.einsum("st,bsd->btd", pull, vectors), vectors)
    return np.asarray(model.reward_scale * (liked - 0.5 * model.lam * alike), dtype=np.float64)


def plan(
    model: ProtoActionModel,
    items: NDArray[np.float32],
    taste: NDArray[np.float32],
    steps: int,
    *,
    width: int,
    pool: int,
) -> NDArray[np.int64]:
    """Items of large total expected reward: the best sequence of a beam search, improved one item at a time.

    What is found can be shown, so its value is a lower bound on that of the best sequence, not an upper one.

    Args:
        model: constants.
        items: float32[N, d].
        taste: float32[B, d], which does not change.
        steps: T.
        width: sequences kept after each step of the beam search.
        pool: the beam search chooses among so many items, those of largest inner product with the taste; the
            improvement chooses among all.

    Returns:
        int64[B, T], ids.
    """
    blocks = [taste[start : start + _USERS] for start in range(0, len(taste), _USERS)]
    found = [improve(model, items, block, beam_search(model, items, block, steps, width, pool)) for block in blocks]
    return np.concatenate(found)


def beam_search(
    model: ProtoActionModel,
    items: NDArray[np.float32],
    taste: NDArray[np.float32],
    steps: int,
    width: int,
    pool: int,
) -> NDArray[np.int64]:
    """Keep the `width` best beginnings after every step; arguments and result as for `plan`.

    Beginnings are compared by their rewards less what their satiation will cost if the user is shown the best of the
    pool from then on: without it beginnings that only live on credit would win.
    """
    ids = best_ids(taste, items, pool)
    vectors = items[ids]  # [B, P, d]
    liked = np.einsum("bd,bpd->bp", taste, vectors)
    alike = vectors @ vectors.swapaxes(1, 2)  # [B, P, P]
    users, rows = len(taste), np.arange(len(taste))[:, None]
    best = liked.argmax(axis=1)
    keep, lam = np.float32(model.decay), np.float32(model.lam)
    total = np.zeros((users, 1), dtype=np.float32)
    sated = np.zeros((users, 1, ids.shape[1]), dtype=np.float32)  # satiation's inner product with each item
    shown = np.zeros((users, 1, 0), dtype=np.int64)
    for step in range(steps):
        left = steps - step - 1
        reward = liked[:, None] - lam * sated
        after = keep * sated[rows[:, 0], :, best][:, :, None] + (1 - keep) * alike[rows[:, 0], best][:, None]
        credit = lam * after * np.float32((1.0 - model.decay**left) / (1.0 - model.decay))
        value = (total[:, :, None] + reward - credit).reshape(users, -1)
        chosen = np.argpartition(value, -min(width, value.shape[1]), axis=1)[:, -min(width, value.shape[1]) :]
        beam, item = np.divmod(chosen, ids.shape[1])
        total = total[rows, beam] + reward[rows, beam, item]
        sated = keep * sated[rows, beam] + (1 - keep) * alike[rows, item]
        shown = np.concatenate([shown[rows, beam], item[:, :, None]], axis=2)
    return np.take_along_axis(ids, shown[rows[:, 0], total.argmax(axis=1)], axis=1)


def improve(
    model: ProtoActionModel, items: NDArray[np.float32], taste: NDArray[np.float32], shown: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Replace one item at a time by the best of the catalogue, given all others, until none can be improved.

    Items of unit length are alike to themselves whatever they are, so the best one is that of largest inner product
    with what the others leave wanted.

    Args:
        model: constants.
        items: float32[N, d], unit vectors.
        taste: float32[B, d].
        shown: int64[B, T].

    Returns:
        int64[B, T], of no smaller value.
    """
    pull, index = np.float32(model.lam) * influence(model, shown.shape[1]), ExactIndex(items)
    shown, vectors = shown.copy(), items[shown]
    for _ in range(_SWEEPS):
        changed = False
        for t in range(shown.shape[1]):
            wanted = taste - np.einsum("s,bsd->bd", pull[t], vectors)
            ids = index.search(wanted)
            gain = np.einsum("bd,bd->b", wanted, items[ids] - vectors[:, t])
            rows = np.flatnonzero(gain > _GAIN)
            shown[rows, t] = ids[rows]
            vectors[rows, t] = items[ids[rows]]
            changed |= len(rows) > 0
        if not changed:
            break
    return shown


def two_steps(
    model: ProtoActionModel,
    items: NDArray[np.float32],
    taste: NDArray[np.float32],
    satiation: NDArray[np.float32],
    looked_at: int,
) -> NDArray[np.int64]:
    """The item with which this and the next expected reward are largest together.

    Args:
        model: constants.
        items: float32[N, d].
        taste, satiation: float32[B, d].
        looked_at: how many of the items best now are compared; after each the best of the whole catalogue follows.

    Returns:
        int64[B], ids.
    """
    keep, lam = np.float32(model.decay), np.float32(model.lam)
    wanted = taste - lam * satiation
    ids = best_ids(wanted, items, looked_at)
    vectors = items[ids]
    sated = keep * satiation[:, None] + np.float32(1.0 - model.decay) * vectors
    after = np.asarray(taste[:, None] - lam * sated, dtype=np.float32)
    second = items[ExactIndex(items).search(after.reshape(-1, after.shape[2]))].reshape(after.shape)
    total = np.einsum("bd,bkd->bk", wanted, vectors) + np.einsum("bkd,bkd->bk", after, second)
    return np.asarray(ids[np.arange(len(ids)), total.argmax(axis=1)])
