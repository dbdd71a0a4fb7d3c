"""NewsSession's rules on plain arrays, B users at once and no loop over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from actors.envs.choice import unrepeated
from actors.envs.news_session.activeness import Activeness
from actors.envs.news_session.articles import draw_library, draw_pool
from actors.envs.news_session.clicks import ClickModel, PositionDiscountedClicks
from actors.envs.news_session.history import Clicks
from actors.envs.news_session.model import NewsSessionModel
from actors.envs.news_session.observations import Visit, make_view
from actors.envs.news_session.returns import gap_hours, stays
from actors.envs.news_session.satisfaction import Satisfaction
from actors.envs.news_session.users import UserSource
from actors.envs.simulation import Outcome

Floats = NDArray[np.float32]

_HOURS = 24.0  # in a day


class NewsSession:
    """B independent users, each with a clock of his own; a step is one request for news of each.

    All users of a call are offered the same articles, drawn anew at every step. See Simulation for the rest.

    Args:
        model: all constants.
        num_users: B.
        clicks: which articles of a list are clicked; None: `PositionDiscountedClicks`.

    Attributes:
        model, library, pool, users: constants, articles, those on offer now, and the users of the running episodes.
        satisfaction, activeness: of the users.
        clock: float32[B], hours since an episode began.
        response: int8[B, K], 1 where the list before was clicked.
    """

    def __init__(self, model: NewsSessionModel, num_users: int, clicks: ClickModel | None = None) -> None:
        self.model = model
        self.num_users = num_users
        self.generator = np.random.default_rng(0)
        self.library = draw_library(model)
        self.pool = draw_pool(model, self.library, np.random.default_rng(0))
        self._source = UserSource(model, self.library)
        self.users = self._source.draw(num_users, np.random.default_rng(0))
        self.satisfaction = Satisfaction(model, num_users)
        self.activeness = Activeness(model, num_users)
        self.clock = np.zeros(num_users, dtype=np.float32)
        self._since = np.zeros(num_users, dtype=np.float32)
        self._counts = np.zeros((3, num_users), dtype=np.float32)  # clicks, sessions, requests of the episode
        self._request = np.zeros(num_users, dtype=np.int32)
        self.response = np.zeros((num_users, model.slots), dtype=np.int8)
        self._clicks = PositionDiscountedClicks() if clicks is None else clicks
        self._view = make_view(model, num_users)
        self._rows = np.arange(num_users)
        self._offsets = self._rows * model.pool
        self.item_embeddings = self.library.properties if model.obs_mode == "ids" else None
        self.observation_space: spaces.Space[Any] = self._view.space
        self.episode_metrics = ("clicks", "sessions", "click_through_rate")
        self.action_space: spaces.Space[Any] = spaces.MultiDiscrete([model.pool] * model.slots)

    def reset(self, rows: NDArray[np.int64] | None = None) -> None:
        """Start new episodes with new users at `rows` (default all); a reset of all brings new articles as well."""
        rows = self._rows if rows is None else rows
        if len(rows) == self.num_users:
            self.pool = draw_pool(self.model, self.library, self.generator)
        self.users.put(rows, self._source.draw(len(rows), self.generator))
        self.satisfaction.reset(rows)
        self.activeness.reset(rows)
        self._view.reset(rows)
        for values in (self.clock, self._since, self._request, self.response):
            values[rows] = 0
        self._counts[:, rows] = np.array([[0.0], [1.0], [0.0]], dtype=np.float32)

    def step(self, action: NDArray[Any]) -> Outcome:
        """Show lists, and go on to every user's next request.

        Args:
            action: integer[B, K], positions in the pool, the first at the top of the list. One that is shown again
                keeps its place and is never clicked there.

        Returns:
            reward = r_click + beta x r_active. Truncated when the episode's days are over, terminated when the user
            has gone for good (`churn`). Info: r_click float32[B], clicks on the list; r_active float32[B], activeness
            at the next request; dt_hours float32[B], time until it; of the episode so far clicks, sessions and
            click_through_rate, clicks of articles shown.
        """
        model = self.model
        lists = np.ascontiguousarray(action.T, dtype=np.int64)
        draws = self.generator.random((model.slots + 2, self.num_users), dtype=np.float32)
        clicked = draws[: model.slots] < self._clicks.probabilities(self._logits(lists))
        clicked &= unrepeated(lists.T).T
        clicks = clicked.sum(axis=0, dtype=np.float32)
        self.satisfaction.take_in(clicks, (self.pool.worth[lists] * clicked).sum(axis=0))
        goes_on = stays(model, clicks > 0, draws[-2])
        gap = gap_hours(model, self.satisfaction.values, draws[-1])
        hours = np.where(goes_on, np.float32(model.session_step), gap)
        self._view.note(self.pool, Clicks(lists, clicked, hours))
        self._pass(hours, goes_on, clicked)
        gone = hours > model.churn_days * _HOURS if model.churn else np.zeros(self.num_users, dtype=np.bool_)
        self.pool = draw_pool(model, self.library, self.generator)
        over = (self.clock >= model.days * _HOURS) & ~gone
        active = self.activeness.values.copy()
        info = {
            "r_click": clicks,
            "r_active": active,
            "dt_hours": hours,
            **self._count(clicks, ~(goes_on | gone | over)),
        }
        return Outcome(clicks + np.float32(model.beta) * active, gone, over, info)

    def observe(self) -> dict[str, NDArray[Any]]:
        """What the agent sees, as new arrays; see `observations`."""
        visit = Visit(self.clock, self._since, self._request, self.activeness.values, self.response)
        return self._view.observe(self.users, self.pool, visit)

    def click_probabilities(self) -> Floats:
        """How likely each article on offer is clicked at the top of a list: float32[B, M]."""
        logits = self.users.taste @ self.pool.pull.T + self.pool.appeal
        return self._clicks.probabilities(logits.reshape(1, -1)).reshape(logits.shape)

    def _count(self, clicks: Floats, begins: NDArray[np.bool_]) -> dict[str, Floats]:
        """Figures of the episode after a request with float32[B] clicks; bool[B] whether a session follows."""
        self._counts += np.stack([clicks, begins.astype(np.float32), np.ones_like(clicks)])
        clicked, sessions, requests = self._counts.copy()
        rate = clicked / (requests * np.float32(self.model.slots))
        return {"clicks": clicked, "sessions": sessions, "click_through_rate": rate}

    def _logits(self, lists: NDArray[np.int64]) -> Floats:
        """Click logits of what is shown, float32[K, B]."""
        pull = self.users.taste @ self.pool.pull.T
        logits = np.take(pull, lists + self._offsets)
        logits += self.pool.appeal[lists]
        return logits

    def _pass(self, hours: Floats, goes_on: NDArray[np.bool_], clicked: NDArray[np.bool_]) -> None:
        """To the next request."""
        self.clock += hours
        self._since = hours.copy()
        self._request = np.where(goes_on, self._request + np.int32(1), np.int32(0))
        self.activeness.come_back(hours)
        self.response = np.ascontiguousarray(clicked.T).view(np.int8)
