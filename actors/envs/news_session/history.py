"""What users have clicked: sums in windows of time, or the latest ids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.envs.news_session.articles import Pool
from actors.envs.news_session.model import WINDOWS_HOURS, NewsSessionModel

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Clicks:
    """What was clicked of one request's lists.

    Attributes:
        lists: int64[K, B], positions in the pool, the first row the top of the lists.
        clicked: bool[K, B].
        hours: float32[B], time until the next request.
    """

    lists: NDArray[np.int64]
    clicked: NDArray[np.bool_]
    hours: Floats


class WindowedClicks:
    """Clicks of the last hour, 6 hours, day, week and year, W = 5: sums that fade with these times.

    A window is no box but an exponential of the same mean: it needs no memory of single clicks.

    Args:
        model: constants; the first `user_properties` properties P of an article are summed up.
        num_users: B.
    """

    def __init__(self, model: NewsSessionModel, num_users: int) -> None:
        self._rates = (-1.0 / np.array(WINDOWS_HOURS)).astype(np.float32)
        self._properties = model.user_properties
        self._sums = np.zeros((num_users, len(WINDOWS_HOURS), self._properties), dtype=np.float32)
        self._counts = np.zeros((num_users, len(WINDOWS_HOURS)), dtype=np.float32)
        self._users = np.arange(num_users)

    def reset(self, rows: NDArray[np.int64]) -> None:
        """New users, who have clicked nothing."""
        self._sums[rows] = 0.0
        self._counts[rows] = 0.0

    def note(self, pool: Pool, clicks: Clicks) -> None:
        """Clicks of one request, and the time until the next."""
        ticked = np.zeros((len(self._users), len(pool.ids)), dtype=np.float32)
        for articles, clicked in zip(clicks.lists, clicks.clicked, strict=True):
            ticked[self._users[clicked], articles[clicked]] += 1.0
        fade = np.exp(clicks.hours[:, None] * self._rates)
        self._sums += (ticked @ pool.properties[:, : self._properties])[:, None]
        self._sums *= fade[:, :, None]
        self._counts += ticked.sum(axis=1, keepdims=True)
        self._counts *= fade

    def profile(self) -> Floats:
        """Mean properties of the clicks in each window, drawn to 0 where these are few: float32[B, W, P]."""
        return np.asarray(self._sums / (np.float32(1.0) + self._counts[:, :, None]))

    def features(self) -> Floats:
        """Profile and log number of clicks, window after window: float32[B, W x (P + 1)]."""
        counts = np.log1p(self._counts)[:, :, None]
        return np.concatenate([self.profile(), counts], axis=2).reshape(len(self._users), -1)


class LatestClicks:
    """Ids of the last H clicked articles, in rings.

    Args:
        model: constants; `history_length` is H.
        num_users: B.
    """

    def __init__(self, model: NewsSessionModel, num_users: int) -> None:
        self._ring = np.full((num_users, model.history_length), -1, dtype=np.int32)
        self._next = np.zeros(num_users, dtype=np.int64)
        self._users = np.arange(num_users)

    def reset(self, rows: NDArray[np.int64]) -> None:
        """New users, who have clicked nothing."""
        self._ring[rows] = -1

    def note(self, pool: Pool, clicks: Clicks) -> None:
        """Clicks of one request, from the top of the list to its end."""
        length = self._ring.shape[1]
        for articles, clicked in zip(clicks.lists, clicks.clicked, strict=True):
            rows = np.flatnonzero(clicked)
            place = self._next[rows]
            self._ring[rows, place] = pool.ids[articles[rows]]
            self._next[rows] = (place + 1) % length

    def ids(self) -> NDArray[np.int32]:
        """int32[B, H], oldest first, -1 for none."""
        length = self._ring.shape[1]
        order = (self._next[:, None] + np.arange(length)) % length
        return np.asarray(self._ring[self._users[:, None], order])
