"""NextItem's rules on plain arrays, B users at once and no loop over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from actors.envs.next_item.catalogue import draw_catalogue
from actors.envs.next_item.model import NextItemModel
from actors.envs.next_item.response import MatchResponse, Response
from actors.envs.next_item.topics import draw_topics
from actors.envs.simulation import Outcome, never


class NextItem:
    """B independent users, each consuming one item a step by himself and being shown another.

    What is shown changes nothing of what follows. Episodes have no end of their own; see Simulation for the rest.

    Args:
        model: all constants.
        num_users: B.
        response: what users do with a shown item; default MatchResponse.

    Attributes:
        model, catalogue, chain, response: constants, items, topics' Markov chain, response to what is shown.
        topic: int64[B], topic of the newest consumed item.
    """

    episode_metrics = ()
    item_embeddings = None

    def __init__(self, model: NextItemModel, num_users: int, response: Response | None = None) -> None:
        self.model = model
        self.num_users = num_users
        self.catalogue = draw_catalogue(model)
        self.chain = draw_topics(model)
        self.response = MatchResponse(self.catalogue) if response is None else response
        history = spaces.Box(-1, model.items - 1, (model.history_length,), np.int32)
        self.observation_space = spaces.Dict({"history": history})
        self.action_space = spaces.Discrete(model.items)
        self.generator = np.random.default_rng(0)
        self.topic = np.zeros(num_users, dtype=np.int64)
        self._consumed = np.full((model.history_length, num_users), -1, dtype=np.int32)  # a ring of steps
        self._newest = 0
        self._rows = np.arange(num_users)

    def reset(self, rows: NDArray[np.int64] | None = None) -> None:
        """Meet new users at `rows` (default everywhere), each with one item consumed."""
        rows = self._rows if rows is None else rows
        draws = self.generator.random((2, len(rows)), dtype=np.float32)
        topic = self.chain.begin(draws[0])
        self.topic[rows] = topic
        self._consumed[:, rows] = -1
        self._consumed[self._newest, rows] = self.catalogue.draw(topic, draws[1])

    def step(self, action: NDArray[Any]) -> Outcome:
        """Show item `action[b]` to user b, who moves on to his next topic and consumes an item of it.

        Args:
            action: integer[B] in [0, items).

        Returns:
            Reward 1 where the shown item was clicked, else 0; nobody's episode ends. `info["next_item"]` int32[B] is
            what was consumed: recommended or not, it is the same.
        """
        draws = self.generator.random((3, self.num_users), dtype=np.float32)
        self.topic = self.chain.follow(self.topic, draws[0])
        item = self.catalogue.draw(self.topic, draws[1])
        clicked = draws[2] < self.response.probability(action, self.topic)
        self._newest = (self._newest + 1) % self.model.history_length
        self._consumed[self._newest] = item
        nobody = never(self.num_users)
        return Outcome(clicked.astype(np.float32), nobody, nobody, {"next_item": item})

    def observe(self) -> dict[str, NDArray[Any]]:
        """`history` int32[B, history_length] as a new array: items consumed, oldest first, -1 for none yet."""
        seen = np.empty((self.num_users, self.model.history_length), dtype=np.int32)
        older = self.model.history_length - 1 - self._newest
        seen[:, :older] = self._consumed[self._newest + 1 :].T
        seen[:, older:] = self._consumed[: self._newest + 1].T
        return {"history": seen}

    def click_probabilities(self) -> NDArray[np.float64]:
        """Chance that what is shown next is clicked, knowing the topic of the newest item: float64[topics, items]."""
        topic = np.arange(self.model.topics)[:, None]
        given_topic = self.response.probability(np.arange(self.model.items), topic)
        return np.asarray(self.chain.matrix @ given_topic.astype(np.float64))

    def next_item_probabilities(self) -> NDArray[np.float64]:
        """Chance that an item is consumed next, knowing the topic of the newest item: float64[topics, items]."""
        catalogue = self.catalogue
        return np.asarray(self.chain.matrix[:, catalogue.topic_of] * catalogue.taste[catalogue.rank_of])
