"""What of a log is fitted on and what is held out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.envs.log_users.rating_log import RatingLog
from actors.envs.log_users.settings import FitSettings
from replay_server.errors import ConfigError


@dataclass(frozen=True)
class SplitLog:
    """A log of users and items with enough ratings, taken apart.

    Attributes:
        log: what is left of it.
        liked: bool[n].
        later: bool[n], the latest ratings of each user: never fitted on, only predicted.
        held_out: bool[U], users of whom item factors and click model see nothing.
    """

    log: RatingLog
    liked: NDArray[np.bool_]
    later: NDArray[np.bool_]
    held_out: NDArray[np.bool_]


def split_log(log: RatingLog, settings: FitSettings) -> SplitLog:
    """Leave rare users and items out and hold the rest apart, by time within each user.

    An item's ratings are counted where factors see them: in the earlier part of users who are not held out.

    Raises:
        ConfigError: too little is left, or all of it is liked or disliked.
    """
    counts = np.bincount(log.user, minlength=len(log.user_names))
    log = _only(log, counts >= settings.least_ratings, np.ones(len(log.item_names), dtype=np.bool_))
    users = len(log.user_names)
    if users < 2:
        raise ConfigError(
            f"the log has {users} user(s) with {settings.least_ratings} ratings or more, at least 2 are needed; "
            "lower least_ratings or give a larger log"
        )
    held_out = held_out_users(users, settings.held_out_users, np.random.default_rng(settings.seed))
    later = later_ratings(log.user, settings.held_out_ratings)
    seen = np.bincount(log.item[~later & ~held_out[log.user]], minlength=len(log.item_names))
    frequent = seen >= settings.least_ratings
    kept = frequent[log.item]
    everyone = np.ones(users, dtype=np.bool_)
    split = SplitLog(_only(log, everyone, frequent), (log.rating >= settings.liked_from)[kept], later[kept], held_out)
    _check(split, settings)
    return split


def later_ratings(user: NDArray[np.int64], share: float) -> NDArray[np.bool_]:
    """Marks the last `share` of each user's rows, at least one; `user` int64[n] is sorted, rows in order of time."""
    counts = np.bincount(user)
    place = np.arange(len(user)) - (np.cumsum(counts) - counts)[user]
    held = np.maximum(np.rint(share * counts), 1.0)
    return np.asarray(place >= (counts - held)[user])


def held_out_users(count: int, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Marks `share` of `count` users, at least one and never all."""
    held = np.zeros(count, dtype=np.bool_)
    held[rng.permutation(count)[: min(max(round(share * count), 1), count - 1)]] = True
    return held


def _only(log: RatingLog, users: NDArray[np.bool_], items: NDArray[np.bool_]) -> RatingLog:
    """The ratings of marked users and items, with new places."""
    kept = users[log.user] & items[log.item]
    return RatingLog(
        user=(np.cumsum(users) - 1)[log.user[kept]],
        item=(np.cumsum(items) - 1)[log.item[kept]],
        rating=log.rating[kept],
        user_names=log.user_names[users],
        item_names=log.item_names[items],
    )


def _check(split: SplitLog, settings: FitSettings) -> None:
    items = len(split.log.item_names)
    if items < 2:
        raise ConfigError(
            f"the log has {items} item(s) with {settings.least_ratings} ratings or more in the part that is fitted on, "
            "at least 2 are needed; lower least_ratings or give a larger log"
        )
    low, high = float(split.log.rating.min()), float(split.log.rating.max())
    parts = (~split.later & ~split.held_out[split.log.user], split.later & ~split.held_out[split.log.user])
    if any(len(np.unique(split.liked[part])) < 2 for part in parts):
        raise ConfigError(
            f"liked_from is {settings.liked_from:g}, ratings go from {low:g} to {high:g}: a click model needs likes "
            "and dislikes, early and late; set liked_from between them or give a larger log"
        )
