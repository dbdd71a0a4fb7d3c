"""MoviePick's rules on plain arrays, B users at once and no loop over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.envs.movie_pick.catalogue import Catalogue, draw_catalogue
from actors.envs.movie_pick.history import WatchHistory
from actors.envs.movie_pick.model import MoviePickModel
from actors.envs.movie_pick.response import Response, SatiatedResponse
from actors.envs.movie_pick.rewards import Rewards
from actors.envs.movie_pick.spaces import action_space, observation_space
from actors.envs.movie_pick.users import UserSampler, UserSource
from actors.envs.simulation import Outcome, never


class MoviePick:
    """B independent users, each being shown one film a step.

    Episodes have no end of their own; see Simulation for the rest. Every part can be replaced by one of the same form.

    Args:
        model: all constants.
        num_users: B.
        catalogue: the films; default those of `model.catalogue_seed`.
        sampler: where users come from; default as the model says.
        response: what users do; default satiation as the model says.
        rewards: what that is worth; default as the model says.

    Attributes:
        model, catalogue, response, rewards: constants, films and parts.
        users: the users of the running episodes.
        history: what they remember.
        episode_metrics: films clicked and films watched to the end since the episode began.
    """

    episode_metrics = ("clicks", "completions")

    def __init__(
        self,
        model: MoviePickModel,
        num_users: int,
        *,
        catalogue: Catalogue | None = None,
        sampler: UserSampler | None = None,
        response: Response | None = None,
        rewards: Rewards | None = None,
    ) -> None:
        self.model = model
        self.num_users = num_users
        self.catalogue = catalogue or draw_catalogue(model)
        self.response = response or SatiatedResponse(model.click_satiation, model.complete_satiation)
        self.rewards = rewards or Rewards(model.ignore_reward, model.click_reward, model.complete_reward)
        self.item_embeddings = self.catalogue.films
        self.observation_space = observation_space(model)
        self.action_space = action_space(model)
        self.generator = np.random.default_rng(0)
        self.history = WatchHistory(num_users, model.history_length, none=model.films)
        self._sampler = sampler or UserSource(model, self.catalogue)
        self.users = self._sampler.draw(num_users, np.random.default_rng(0))
        self._rows = np.arange(num_users)
        none = np.zeros((1, model.film_dim), dtype=np.float32)
        self._film_table = np.concatenate([self.catalogue.films, none])
        self._counts = {name: np.zeros(num_users, dtype=np.float32) for name in self.episode_metrics}

    def reset(self, rows: NDArray[np.int64] | None = None) -> None:
        """Start new episodes with new users at `rows` (default all)."""
        rows = self._rows if rows is None else rows
        self.users.put(rows, self._sampler.draw(len(rows), self.generator))
        self.history.forget(rows)
        for count in self._counts.values():
            count[rows] = 0.0

    def step(self, action: NDArray[Any]) -> Outcome:
        """Show film `action[b]` to user b.

        Args:
            action: integer[B] in [0, films).

        Returns:
            Nobody's episode ends; the history advances where the film was clicked.
        """
        click, complete = self.response.probabilities(
            self.users.click_logit[self._rows, action],
            self.users.complete_logit[self._rows, action],
            self.history.count(action),
        )
        draws = self.generator.random((2, self.num_users), dtype=np.float32)
        clicked = draws[0] < click
        completed = clicked & (draws[1] < complete)
        rows = np.flatnonzero(clicked)
        self.history.add(rows, action[rows])
        self._counts["clicks"] += clicked
        self._counts["completions"] += completed
        nobody = never(self.num_users)
        return Outcome(self.rewards.of(clicked, completed), nobody, nobody, self._counts)

    def observe(self) -> NDArray[Any]:
        """What the agent sees, as a new array: float32[B, user_dim + history_length x film_dim] or int32[B, 1 + H]."""
        model = self.model
        if model.obs_mode == "ids":
            observation = np.empty((self.num_users, 1 + model.history_length), dtype=np.int32)
            observation[:, 0] = self.users.ids
            observation[:, 1:] = self.history.films
            return observation
        width = model.user_dim + model.history_length * model.film_dim
        seen = np.empty((self.num_users, width), dtype=np.float32)
        seen[:, : model.user_dim] = self.users.embedding
        films = self._film_table[self.history.films]
        seen[:, model.user_dim :] = films.reshape(self.num_users, -1)
        return seen

    def expected_rewards(self) -> NDArray[np.float64]:
        """Expected immediate reward of every film for every user as things stand, float64[B, films]."""
        return self._expected(self.history.counts())

    def expected_rewards_unwatched(self) -> NDArray[np.float64]:
        """The same as if nothing had been watched yet: affinity without satiation."""
        return self._expected(np.zeros((self.num_users, self.model.films), dtype=np.float32))

    def _expected(self, watched: NDArray[np.float32]) -> NDArray[np.float64]:
        click, complete = self.response.probabilities(self.users.click_logit, self.users.complete_logit, watched)
        return self.rewards.expected(click.astype(np.float64), complete.astype(np.float64))
