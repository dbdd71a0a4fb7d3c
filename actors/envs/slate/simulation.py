"""The rules of the slate tasks on plain arrays, B users at once and no loop over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.envs.choice import ChoiceModel, check_choice_model, draw, make_choice_model, unrepeated
from actors.envs.simulation import Outcome, never
from actors.envs.slate.candidates import CandidateSource
from actors.envs.slate.catalogue import Catalogue, draw_catalogue
from actors.envs.slate.interests import InterestModel, UserSampler
from actors.envs.slate.model import SlateModel
from actors.envs.slate.spaces import action_space, observation_size, observation_space


class SlateSimulation:
    """B independent users, each shown a slate a step; see Simulation for what is not said here.

    Args:
        model: all constants.
        num_users: B.
        choice_model: what the user does with a slate; a short name, `package.module:Class`, or an object of one's own.
        catalogue: documents; default those of `model`.
        users: draws new users' interests; default UserSampler.
        interest_model: how watching changes an interest; default InterestModel.

    Attributes:
        model, choice, catalogue: as given.
        interests: float32[B, T], of the running sessions.
        minutes: float32[B], time left.
        candidates: int32[B, M], documents on offer.
        response: int8[B, K], 1 at the place of the last slate that was watched.
        history: int32[B, H], documents watched last, oldest first, -1 before the first; kept with pomdp alone.
    """

    episode_metrics = ("watched_share", "watched_quality")

    def __init__(
        self,
        model: SlateModel,
        num_users: int,
        *,
        choice_model: str | ChoiceModel = "mnl",
        catalogue: Catalogue | None = None,
        users: UserSampler | None = None,
        interest_model: InterestModel | None = None,
    ) -> None:
        self.model = model
        self.num_users = num_users
        self.choice = make_choice_model(choice_model)
        check_choice_model(self.choice, model.slots)
        self.catalogue = catalogue or draw_catalogue(model)
        self.item_embeddings = self.catalogue.embeddings
        self.observation_space = observation_space(model, self.item_embeddings.shape[1])
        self.action_space = action_space(model)
        self.generator = np.random.default_rng(0)
        self._users = users or UserSampler(model.topics)
        self.interest_model = interest_model or InterestModel(model.interest_step)
        self._source = CandidateSource(model.documents, model.candidates)
        self._rows = np.arange(num_users)
        self.interests = np.zeros((num_users, model.topics), dtype=np.float32)
        self.minutes = np.zeros(num_users, dtype=np.float32)
        self.candidates = np.zeros((num_users, model.candidates), dtype=np.int32)
        self.response = np.zeros((num_users, model.slots), dtype=np.int8)
        self.history = np.full((num_users, model.history_length), -1, dtype=np.int32)
        self._slates, self._watches, self._quality = np.zeros((3, num_users), dtype=np.float32)

    def reset(self, rows: NDArray[np.int64] | None = None) -> None:
        """Begin new sessions with new users at `rows` (default everywhere)."""
        rows = self._rows if rows is None else rows
        self.interests[rows] = self._users.draw(len(rows), self.generator)
        self.minutes[rows] = self.model.budget_minutes
        self.candidates[rows] = self._source.draw(len(rows), self.generator)
        self.response[rows] = 0
        self.history[rows] = -1
        self._slates[rows] = self._watches[rows] = self._quality[rows] = 0.0

    def step(self, action: NDArray[Any]) -> Outcome:
        """Show every user a slate.

        Args:
            action: integer[B, K], positions among the candidates, or float[B, M], scores of them. A repeated position
                keeps its place and is not watched there.

        Returns:
            Minutes watched; terminated where the time is spent. Of the session so far `info` has the share of slates
            that something was watched of, and the mean quality of that.
        """
        model, slate = self.model, self._slate(action)
        shown = self.candidates[self._rows[:, None], slate]
        scores = self.interests[self._rows[:, None], self.catalogue.topic[shown]]
        draws = self.generator.random((2, self.num_users), dtype=np.float32)
        place = draw(self.choice.probabilities(scores, unrepeated(slate)), draws[0])
        rows = np.flatnonzero(place < model.slots)
        place = place[rows]
        document = shown[rows, place]
        self.response.fill(0)
        self.response[rows, place] = 1
        topic, moved = self.catalogue.topic[document], self.interest_model.moved(scores[rows, place], draws[1][rows])
        self.interests[rows, topic] = moved
        if model.pomdp:
            self._remember(rows, document)
        reward = np.zeros(self.num_users, dtype=np.float32)
        reward[rows] = np.minimum(self.minutes[rows], np.float32(model.length))
        quality = self.catalogue.quality[document]
        spent = np.full(self.num_users, model.ignore_minutes, dtype=np.float32)
        spent[rows] = reward[rows] * (np.float32(1.0) - np.float32(model.quality_return) * quality)
        self.minutes -= spent
        self.candidates = self._source.draw(self.num_users, self.generator)
        return Outcome(reward, self.minutes <= 0.0, never(self.num_users), self._count(rows, quality))

    def observe(self) -> dict[str, NDArray[Any]]:
        """What the agent sees, as new arrays; see `spaces.observation_space`."""
        model = self.model
        known = np.empty((self.num_users, observation_size(model)), dtype=np.float32)
        known[:, 0] = self.response.any(axis=1)
        if not model.pomdp:
            known[:, 1 : 1 + model.topics] = self.interests
        if model.show_budget:
            np.clip(self.minutes / np.float32(model.budget_minutes), 0.0, 1.0, out=known[:, -1])
        seen = {"observation": known, "candidates": self._shown(self.candidates), "response": self.response.copy()}
        if model.pomdp:
            seen["history"] = self._shown(self.history)
        return seen

    def _slate(self, action: NDArray[Any]) -> NDArray[Any]:
        if self.model.action_mode == "slate":
            return action
        return np.argsort(-action, axis=1, kind="stable")[:, : self.model.slots]

    def _count(self, rows: NDArray[np.int64], quality: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        self._slates += 1.0
        self._watches[rows] += 1.0
        self._quality[rows] += quality
        mean_quality = self._quality / np.maximum(self._watches, np.float32(1.0))
        return {"watched_share": self._watches / self._slates, "watched_quality": mean_quality}

    def _remember(self, rows: NDArray[np.int64], document: NDArray[np.int32]) -> None:
        moved = self.history[rows]
        moved[:, :-1] = moved[:, 1:]
        moved[:, -1] = document
        self.history[rows] = moved

    def _shown(self, ids: NDArray[np.int32]) -> NDArray[Any]:
        if self.model.obs_mode == "ids":
            return ids.copy()
        embedded = np.take(self.item_embeddings, ids, axis=0)  # -1 takes the last, which is none
        if ids is self.history:
            embedded[ids < 0] = 0.0
        return embedded
