"""The best that any policy of MoviePick can do for a user, by exact dynamic programming."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from actors.envs.movie_pick.simulation import MoviePick
from replay_server.errors import ConfigError

_MOST_STATES = 4_000_000
_FEWEST_FILMS = 2
_EXACT = 1e-9  # of returns in the hundreds: rounding of a hundred additions


def optimal_returns(simulation: MoviePick, horizon: int) -> NDArray[np.float64]:
    """Expected return of the best policy, knowing a user's true taste, for each user with nothing watched yet.

    The state is the ordered history. Films that the best policy never shows are left out: a problem of the K best films
    alone bounds the optimum from below, one in which every other film is always as good as the best of them ever is
    bounds it from above. K grows until both agree, or no film is left out.

    Args:
        simulation: the users.
        horizon: steps of an episode.

    Returns:
        float64[B], undiscounted.

    Raises:
        ConfigError: there are too many histories to go through.
    """
    click, gain = _tables(simulation)
    counts: dict[int, NDArray[np.int8]] = {}
    returns = np.empty(simulation.num_users)
    for user in range(simulation.num_users):
        best_first = np.argsort(-gain[user, :, 0], kind="stable")
        returns[user] = _optimum(click[user, best_first], gain[user, best_first], horizon, counts)
    return returns


def _tables(simulation: MoviePick) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """P(click) and mean reward of each film, remembered 0 to H times: float64[B, films, H + 1] each."""
    users = simulation.users
    watched = np.arange(simulation.model.history_length + 1.0)
    logits = (users.click_logit, users.complete_logit)
    every = np.broadcast_arrays(*(logit[:, :, None].astype(np.float64) for logit in logits), watched)
    click, complete = simulation.response.probabilities(*every)
    return click, simulation.rewards.expected(click, complete)


def _optimum(
    click: NDArray[np.float64], gain: NDArray[np.float64], horizon: int, counts: dict[int, NDArray[np.int8]]
) -> float:
    """One user's; click and gain float64[films, H + 1], best films first; `counts` keeps tables for the next user."""
    films, length = len(click), click.shape[1] - 1
    for kept in range(min(_FEWEST_FILMS, films), films + 1):
        if (kept + 1) ** length > _MOST_STATES:
            raise ConfigError(
                f"the exact optimum of MoviePick needs {(kept + 1) ** length:,} histories of {kept} films; "
                "set history_length or films lower, or leave the bound out"
            )
        if kept not in counts:
            counts[kept] = _count_table(kept + 1, length)
        shown = click[:kept], gain[:kept], counts[kept], horizon
        least = float(_value(*shown, np.array([-np.inf, 0.0, 0.0])))
        if kept == films:
            return least
        others = np.array([gain[kept:].max(), click[kept:].min(), click[kept:].max()])
        if float(_value(*shown, others)) - least < _EXACT * max(1.0, abs(least)):
            return least
    raise AssertionError("unreachable: with all films kept the optimum is returned")


def _count_table(symbols: int, length: int) -> NDArray[np.int8]:
    """How often each symbol is in each history, int8[symbols^length, symbols]; the newest is the lowest digit."""
    codes = np.arange(symbols**length)
    counts = np.zeros((len(codes), symbols), dtype=np.int8)
    for place in range(length):
        counts[codes, codes // symbols**place % symbols] += 1
    return counts


@njit(cache=True, nogil=True)
def _value(
    click: NDArray[np.float64],
    gain: NDArray[np.float64],
    counts: NDArray[np.int8],
    horizon: int,
    others: NDArray[np.float64],
) -> Any:
    """Value of a history of nothing but the last symbol, which stands for every other film and for none.

    Whatever film the last symbol is, its mean reward is at most others[0] and its P(click) from others[1] to others[2].
    """
    states, symbols = counts.shape
    films = symbols - 1
    value, longer = np.zeros(states), np.zeros(states)
    for _ in range(horizon):
        for state in range(states):
            clicked = state % (states // symbols) * symbols  # the oldest falls out; the film's own number is added
            here = value[state]
            change = value[clicked + films] - here
            best = others[0] + (others[2] if change > 0.0 else others[1]) * change
            for film in range(films):
                times = counts[state, film]
                best = max(best, gain[film, times] + click[film, times] * (value[clicked + film] - here))
            longer[state] = here + best
        value, longer = longer, value
    return value[states - 1]
