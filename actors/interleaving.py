"""Which of two rankers do users prefer? Both fill one list, and clicks tell whose items are liked better.

Far fewer impressions are needed than when users are split between rankers (Chapelle et al. 2012).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Interleaved:
    """Lists that two rankers filled.

    Attributes:
        lists: int64[B, K], different items in each row.
        share: float64[B, K], how much of a click at this place speaks for the second ranker, 0 to 1.
    """

    lists: NDArray[np.int64]
    share: NDArray[np.float64]


def team_draft(first: NDArray[np.int64], second: NDArray[np.int64], rng: np.random.Generator) -> Interleaved:
    """Both pick in turns what they rank highest among what is left; a coin says who begins each round.

    Radlinski, Kurup and Joachims 2008. A click speaks for the ranker whose pick it was.

    Args:
        first, second: int64[B, K], lists of different items, the best first; the result has K places too.
        rng: of the coins.
    """
    batch, slots = first.shape
    lists, seconds = np.empty((batch, slots), dtype=np.int64), np.empty((batch, slots), dtype=np.bool_)
    for place in range(slots):
        if place % 2 == 0:
            seconds[:, place] = rng.random(batch) < 0.5
        else:
            seconds[:, place] = ~seconds[:, place - 1]
        ranking = np.where(seconds[:, place, None], second, first)
        shown = (ranking[:, :, None] == lists[:, None, :place]).any(axis=2)
        lists[:, place] = ranking[np.arange(batch), shown.argmin(axis=1)]
    return Interleaved(lists, seconds.astype(np.float64))


def probabilistic(
    first: NDArray[np.int64], second: NDArray[np.int64], slots: int, rng: np.random.Generator, tau: float = 3.0
) -> Interleaved:
    """Each place is drawn from a softmax over the ranks of one of the two, which a coin decides.

    Hofmann, Whiteson and de Rijke 2011. An item of rank r is drawn with probability proportional to r^-tau among those
    left. A click counts for both, each as likely as it is that the item was its own: all assignments are averaged.

    Args:
        first, second: int64[B, M], all items ranked, the best first.
        slots: K.
        rng: of coins and draws.
        tau: how closely draws follow the ranks.
    """
    rows = np.arange(len(first))
    weights = np.arange(1, first.shape[1] + 1, dtype=np.float64) ** -tau
    left = np.empty((2, *first.shape))
    for ranker, ranking in enumerate((first, second)):
        np.put_along_axis(left[ranker], ranking, np.broadcast_to(weights, ranking.shape), axis=1)
    lists, share = np.empty((len(rows), slots), dtype=np.int64), np.empty((len(rows), slots))
    for place in range(slots):
        chances = left / left.sum(axis=2, keepdims=True)
        drawn = chances[(rng.random(len(rows)) < 0.5).astype(np.int64), rows]
        items = (drawn.cumsum(axis=1) > rng.random((len(rows), 1))).argmax(axis=1)
        own = chances[:, rows, items]
        lists[:, place], share[:, place] = items, own[1] / own.sum(axis=0)
        left[:, rows, items] = 0.0
    return Interleaved(lists, share)


@dataclass(frozen=True)
class Comparison:
    """Impressions that one ranker won.

    Attributes:
        first, second: impressions whose clicks spoke more for the first, for the second.
        ties: those that spoke for neither, without a click or with as many.
        credits: clicks of each, shared out.
    """

    first: int
    second: int
    ties: int
    credits: tuple[float, float]

    @staticmethod
    def of(share: NDArray[np.float64], clicked: NDArray[np.bool_]) -> Comparison:
        """From `Interleaved.share` [n, K] and whether the item was clicked, bool[n, K], of n impressions."""
        seconds, firsts = (share * clicked).sum(axis=1), ((1.0 - share) * clicked).sum(axis=1)
        tied = np.isclose(firsts, seconds)
        won = int(((firsts > seconds) & ~tied).sum())
        return Comparison(
            won, len(share) - int(tied.sum()) - won, int(tied.sum()), (float(firsts.sum()), float(seconds.sum()))
        )

    @property
    def preference(self) -> float:
        """Share of decided impressions that the second won; 0.5 where none was decided."""
        decided = self.first + self.second
        return self.second / decided if decided else 0.5

    @property
    def p_value(self) -> float:
        """How likely a split as uneven as this is between equals: two-sided sign test, normal approximation."""
        decided = self.first + self.second
        if not decided:
            return 1.0
        distance = max(abs(self.first - self.second) - 1, 0)  # continuity
        return math.erfc(distance / math.sqrt(2.0 * decided))
