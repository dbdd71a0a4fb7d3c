"""The best slate where everything about the user is known, and what his time is worth."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.envs.choice import CascadeModel, ChoiceModel, ShareModel
from actors.envs.slate.model import SlateModel

_ROUNDS = 6  # of the search for the best ratio, whose steps shrink quadratically

Numbers = NDArray[np.float32]


def minutes_taken(model: SlateModel, quality: Numbers) -> Numbers:
    """Net minutes of the user's time that watching a whole document takes, by its quality float32[...]."""
    return np.float32(model.length) * (np.float32(1.0) - np.float32(model.quality_return) * quality)


def odds(choice: ChoiceModel, scores: Numbers) -> Numbers:
    """P(watched) / P(not) of items that stand alone on a slate, by their scores float32[...]."""
    alone = scores.reshape(-1, 1)
    outcomes = choice.probabilities(alone, np.ones(alone.shape, dtype=np.bool_))
    return np.asarray((outcomes[:, 0] / outcomes[:, 1]).reshape(scores.shape))


def is_exact(choice: ChoiceModel) -> bool:
    """Whether `best_slates` finds the best one for this model."""
    return isinstance(choice, ShareModel | CascadeModel)


def best_slates(
    choice: ChoiceModel, scores: Numbers, gain: Numbers, none: Numbers, slots: int, *, fill: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The slates of largest expected gain: exactly, for models of shares and cascades.

    Others are taken for a model of shares in which an item's mass is what it has when it stands alone.

    Args:
        choice: what the user does with a slate.
        scores: float32[B, M] of the candidates.
        gain: float32[B, M], what watching each is worth.
        none: float32[B], what watching nothing is worth.
        slots: K.
        fill: every place shows something; else places that would lower the gain stay empty.

    Returns:
        int64[B, K], positions among the candidates, and bool[B, K], which places are filled.
    """
    if isinstance(choice, CascadeModel):
        return _best_cascade(choice.taken(scores), gain, none, slots, fill=fill)
    if isinstance(choice, ShareModel):
        masses, of_none = choice.masses(scores)
        return _best_shares(masses / np.float32(of_none), gain, none, slots, fill=fill)
    return _best_shares(odds(choice, scores), gain, none, slots, fill=fill)


def _best_shares(
    masses: Numbers, gain: Numbers, none: Numbers, slots: int, *, fill: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The K largest mass x (gain - z) with z the value of that slate (Dinkelbach 1967); nothing has mass 1."""
    value = none[:, None]
    for _ in range(_ROUNDS):
        extra = masses * (gain - value)
        slate = np.argpartition(-extra, slots - 1, axis=1)[:, :slots]
        shown = (np.take_along_axis(extra, slate, 1) > 0.0) | fill
        mass = np.take_along_axis(masses, slate, 1) * shown
        total = (mass * np.take_along_axis(gain, slate, 1)).sum(axis=1, keepdims=True) + none[:, None]
        value = total / (mass.sum(axis=1, keepdims=True) + 1.0)
    return slate, shown


def _best_cascade(
    taken: Numbers, gain: Numbers, none: Numbers, slots: int, *, fill: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Whatever is shown stands in falling order of gain; which, by dynamic programming from the least gain up."""
    order = np.argsort(-gain, axis=1, kind="stable")
    gain, taken = np.take_along_axis(gain, order, 1), np.take_along_axis(taken, order, 1)
    batch, candidates = gain.shape
    value = np.full((slots + 1, batch), -np.inf if fill else none, dtype=np.float32)  # of k places below the present
    value[0] = none
    pick = np.zeros((candidates, slots + 1, batch), dtype=np.bool_)
    for place in reversed(range(candidates)):
        with_it = taken[:, place] * gain[:, place] + (1.0 - taken[:, place]) * value[:-1]
        pick[place, 1:] = with_it > value[1:]
        value[1:] = np.maximum(value[1:], with_it)
    slate, shown = np.zeros((batch, slots), dtype=np.int64), np.zeros((batch, slots), dtype=np.bool_)
    filled, rows = np.zeros(batch, dtype=np.int64), np.arange(batch)
    for place in range(candidates):
        chosen = np.flatnonzero(pick[place, slots - filled, rows])
        slate[chosen, filled[chosen]] = order[chosen, place]
        shown[chosen, filled[chosen]] = True
        filled[chosen] += 1
    return slate, shown


def watch_rates(
    model: SlateModel, choice: ChoiceModel, scores: Numbers, minutes: Numbers, start: Numbers, *, fill: bool
) -> Numbers:
    """Minutes watched for each minute of the user's time, with the best slates, if his interests stayed as they are.

    It is the rate r at which the best slates' mean of (minutes watched - r x minutes taken) over candidates is 0.

    Args:
        model: constants.
        choice: what the user does with a slate.
        scores: float32[U, S, M] of S samples of candidates.
        minutes: float32[S, M], what watching each takes.
        start: float32[U], first guess.
        fill: see `best_slates`.

    Returns:
        float32[U], one step (Dinkelbach 1967) closer than `start`; at most the rate itself.
    """
    users, samples, candidates = scores.shape
    flat = scores.reshape(-1, candidates)
    taken = np.broadcast_to(minutes, scores.shape).reshape(-1, candidates)
    rate = np.repeat(start, samples)
    gain = np.float32(model.length) - rate[:, None] * taken
    none = -rate * np.float32(model.ignore_minutes)
    slate, shown = best_slates(choice, flat, gain, none, model.slots, fill=fill)
    outcomes = choice.probabilities(np.take_along_axis(flat, slate, 1), shown)
    watched = model.length * (1.0 - outcomes[:, -1])
    spent = (outcomes[:, :-1] * np.take_along_axis(taken, slate, 1)).sum(axis=1)
    spent += np.float32(model.ignore_minutes) * outcomes[:, -1]
    sums: tuple[Any, Any] = watched.reshape(users, -1).sum(axis=1), spent.reshape(users, -1).sum(axis=1)
    return np.asarray(sums[0] / sums[1], dtype=np.float32)
