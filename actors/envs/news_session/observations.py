"""What an agent sees of NewsSession: blocks of features as in DRN (Zheng et al. 2018, section 4.2), or ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from actors.envs.news_session.articles import Pool, article_features
from actors.envs.news_session.history import Clicks, LatestClicks, WindowedClicks
from actors.envs.news_session.model import LEAST_CONTEXT, WINDOWS_HOURS, NewsSessionModel
from actors.envs.news_session.users import Users

Floats = NDArray[np.float32]
Parts = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Visit:
    """The requests that B users make now.

    Attributes:
        clock: float32[B], hours since the episode began.
        since: float32[B], hours since the request before, 0 at the first.
        request: int32[B], place in the session, from 0.
        activeness: float32[B].
        response: int8[B, K], 1 where the list before was clicked.
    """

    clock: Floats
    since: Floats
    request: NDArray[np.int32]
    activeness: Floats
    response: NDArray[np.int8]


class View(Protocol):
    """Makes observations, and remembers what they need of the past."""

    @property
    def space(self) -> spaces.Dict:
        """Of one user."""

    def reset(self, rows: NDArray[np.int64]) -> None:
        """New users at these rows."""

    def note(self, pool: Pool, clicks: Clicks) -> None:
        """What was clicked."""

    def observe(self, users: Users, pool: Pool, visit: Visit) -> Parts:
        """Observations of B users, new arrays."""


def make_view(model: NewsSessionModel, num_users: int) -> View:
    """What `obs_mode` says."""
    return IdView(model, num_users) if model.obs_mode == "ids" else FeatureView(model, num_users)


def _responses(model: NewsSessionModel) -> spaces.Box:
    return spaces.Box(0, 1, (model.slots,), np.int8)


class IdView:
    """User id, the last clicked ids, ids on offer, and the clicks on the last list."""

    def __init__(self, model: NewsSessionModel, num_users: int) -> None:
        self._history = LatestClicks(model, num_users)
        self._shape = (num_users, model.pool)
        self.reset, self.note = self._history.reset, self._history.note
        self.space = spaces.Dict(
            {
                "user": spaces.Discrete(model.population or 1),
                "history": spaces.Box(-1, model.articles - 1, (model.history_length,), np.int32),
                "candidates": spaces.Box(0, model.articles - 1, (model.pool,), np.int32),
                "response": _responses(model),
            }
        )

    def observe(self, users: Users, pool: Pool, visit: Visit) -> Parts:
        """See View.observe."""
        candidates = np.empty(self._shape, dtype=np.int32)
        candidates[:] = pool.ids
        return {
            "user": users.ids.astype(np.int64),
            "history": self._history.ids(),
            "candidates": candidates,
            "response": visit.response.copy(),
        }


class FeatureView:
    """Blocks of DRN: context and user; for each article on offer its own, user-news ones, and its age."""

    def __init__(self, model: NewsSessionModel, num_users: int) -> None:
        self._model = model
        self._history = WindowedClicks(model, num_users)
        self.reset, self.note = self._history.reset, self._history.note
        self._groups = _groups(model)
        parts: dict[str, spaces.Space[Any]] = {"observation": _numbers(model.user_size + model.context_size)}
        if model.show_user:
            parts["user"] = _numbers(model.user_dim)
        self._width = model.article_size + model.user_news_size + model.show_user + 1
        parts["candidates"] = _numbers(model.pool, self._width)
        parts["response"] = _responses(model)
        self.space = spaces.Dict(parts)

    def observe(self, users: Users, pool: Pool, visit: Visit) -> Parts:
        """See View.observe."""
        clicked = self._history.features()
        parts: Parts = {"observation": np.concatenate([clicked, context(self._model, visit)], axis=1)}
        if self._model.show_user:
            parts["user"] = users.embedding.copy()
        parts["candidates"] = self._candidates(users, pool)
        parts["response"] = visit.response.copy()
        return parts

    def _candidates(self, users: Users, pool: Pool) -> Floats:
        model = self._model
        seen = np.empty((len(users.ids), model.pool, self._width), dtype=np.float32)
        seen[:, :, : model.article_size] = article_features(model, pool)
        profile = self._history.profile()
        for place, (window, properties) in enumerate(self._groups, start=model.article_size):
            seen[:, :, place] = profile[:, window, properties] @ pool.properties[:, properties].T
        if model.show_user:
            seen[:, :, -2] = users.interests @ pool.pull.T
        seen[:, :, -1] = 0.1 * pool.age
        return seen


def context(model: NewsSessionModel, visit: Visit) -> Floats:
    """Time and session: float32[B, context_size].

    Hour and weekday as sines and cosines, log hours since the last request, requests of this session (tenths, up to
    10), activeness, share of the last list clicked; then one-hot parts of the day.
    """
    seen = np.zeros((len(visit.clock), model.context_size), dtype=np.float32)
    for place, hours in ((0, 24.0), (2, 168.0)):
        angle = visit.clock * np.float32(2.0 * np.pi / hours)
        seen[:, place], seen[:, place + 1] = np.sin(angle), np.cos(angle)
    seen[:, 4] = 0.2 * np.log1p(visit.since)
    seen[:, 5] = 0.1 * np.minimum(visit.request, 10)
    seen[:, 6] = visit.activeness
    seen[:, 7] = visit.response.mean(axis=1)
    if parts := model.context_size - LEAST_CONTEXT:
        part = (visit.clock % np.float32(24.0) * np.float32(parts / 24.0)).astype(np.int64)
        seen[np.arange(len(seen)), LEAST_CONTEXT + np.minimum(part, parts - 1)] = 1.0
    return seen


def _numbers(*shape: int) -> spaces.Box:
    return spaces.Box(-np.inf, np.inf, shape, np.float32)


def _groups(model: NewsSessionModel) -> list[tuple[int, slice]]:
    """Window and properties that each user-news number compares: the longest window first, all windows of a group."""
    windows = len(WINDOWS_HOURS)
    groups = -(-model.user_news_size // windows)
    edges = np.linspace(0, model.user_properties, groups + 1).astype(int).tolist()
    return [
        (windows - 1 - number % windows, slice(edges[number // windows], edges[number // windows + 1]))
        for number in range(model.user_news_size)
    ]
