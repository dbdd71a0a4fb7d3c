"""MoviePick's rules on plain arrays, B users at once and no loop over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.envs.movie_pick.catalogue import draw_catalogue
from actors.envs.movie_pick.model import MoviePickModel
from actors.envs.movie_pick.spaces import action_space, observation_space
from actors.envs.movie_pick.users import UserSource
from actors.envs.simulation import Outcome, never


class MoviePick:
    """B independent users, each being shown one film a step.

    Episodes have no end of their own; see Simulation for the rest.

    Args:
        model: all constants.
        num_users: B.

    Attributes:
        model, catalogue, users: constants, films and the users of the running episodes.
        history: int16[B, history_length], watched films, oldest first; `films` stands for none yet.
        episode_metrics: films clicked and films watched to the end since the episode began.
    """

    episode_metrics = ("clicks", "completions")

    def __init__(self, model: MoviePickModel, num_users: int) -> None:
        self.model = model
        self.num_users = num_users
        self.catalogue = draw_catalogue(model)
        self.item_embeddings = self.catalogue.films
        self.observation_space = observation_space(model)
        self.action_space = action_space(model)
        self.generator = np.random.default_rng(0)
        self.history = np.full((num_users, model.history_length), model.films, dtype=np.int16)
        self._source = UserSource(model, self.catalogue)
        self.users = self._source.draw(num_users, np.random.default_rng(0))
        self._rows = np.arange(num_users)
        self._counts = {name: np.zeros(num_users, dtype=np.float32) for name in self.episode_metrics}
        none = np.zeros((1, model.film_dim), dtype=np.float32)
        self._film_table = np.concatenate([self.catalogue.films, none])
        self._rewards = np.array([model.ignore_reward, model.click_reward, model.complete_reward], dtype=np.float32)

    def reset(self, rows: NDArray[np.int64] | None = None) -> None:
        """Start new episodes with new users at `rows` (default all)."""
        rows = self._rows if rows is None else rows
        self.users.put(rows, self._source.draw(len(rows), self.generator))
        self.history[rows] = self.model.films
        for count in self._counts.values():
            count[rows] = 0.0

    def step(self, action: NDArray[Any]) -> Outcome:
        """Show film `action[b]` to user b.

        Args:
            action: integer[B] in [0, films).

        Returns:
            Nobody's episode ends; the history advances where the film was clicked.
        """
        model = self.model
        watched = (self.history == action[:, None]).sum(axis=1, dtype=np.float32)
        click_logit = self.users.click_logit[self._rows, action] - np.float32(model.click_satiation) * watched
        complete_logit = self.users.complete_logit[self._rows, action] - np.float32(model.complete_satiation) * watched
        draws = self.generator.random((2, self.num_users), dtype=np.float32)
        clicked = draws[0] < sigmoid(click_logit)
        completed = clicked & (draws[1] < sigmoid(complete_logit))
        rows = np.flatnonzero(clicked)
        moved = self.history[rows]
        moved[:, :-1] = moved[:, 1:]
        moved[:, -1] = action[rows]
        self.history[rows] = moved
        reward = np.asarray(self._rewards[clicked.astype(np.intp) + completed])
        nobody = never(self.num_users)
        self._counts["clicks"] += clicked
        self._counts["completions"] += completed
        return Outcome(reward, nobody, nobody, self._counts)

    def observe(self) -> NDArray[Any]:
        """What the agent sees, as a new array: float32[B, user_dim + history_length x film_dim] or int32[B, 1 + H]."""
        model = self.model
        if model.obs_mode == "ids":
            observation = np.empty((self.num_users, 1 + model.history_length), dtype=np.int32)
            observation[:, 0] = self.users.ids
            observation[:, 1:] = self.history
            return observation
        width = model.user_dim + model.history_length * model.film_dim
        seen = np.empty((self.num_users, width), dtype=np.float32)
        seen[:, : model.user_dim] = self.users.embedding
        films = self._film_table[self.history]
        seen[:, model.user_dim :] = films.reshape(self.num_users, -1)
        return seen

    def expected_rewards(self) -> NDArray[np.float64]:
        """Expected immediate reward of every film for every user as things stand, float64[B, films]."""
        counts = (self.history[:, :, None] == np.arange(self.model.films)).sum(axis=1)
        return self._expected(counts.astype(np.float64))

    def expected_rewards_unwatched(self) -> NDArray[np.float64]:
        """The same as if nothing had been watched yet: affinity without satiation."""
        return self._expected(np.zeros((self.num_users, self.model.films)))

    def _expected(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        model = self.model
        click = sigmoid(self.users.click_logit - model.click_satiation * counts)
        complete = sigmoid(self.users.complete_logit - model.complete_satiation * counts)
        clicked = complete * model.complete_reward + (1.0 - complete) * model.click_reward
        return np.asarray(click * clicked + (1.0 - click) * model.ignore_reward)


def sigmoid(logit: NDArray[Any]) -> NDArray[Any]:
    """1 / (1 + exp(-logit)), in the dtype given."""
    return np.asarray(1.0 / (1.0 + np.exp(-logit)))
