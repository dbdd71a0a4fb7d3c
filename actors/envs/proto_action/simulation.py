"""ProtoAction's rules on plain arrays, B users at once and no loop over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.envs.proto_action.catalogue import Catalogue, draw_catalogue
from actors.envs.proto_action.model import ProtoActionModel
from actors.envs.proto_action.response import NoisyRating, Response
from actors.envs.proto_action.ring import Ring
from actors.envs.proto_action.search import ExactIndex, Index
from actors.envs.proto_action.spaces import action_space, observation_space
from actors.envs.proto_action.users import ClusteredUsers, UserSampler, UserState
from actors.envs.simulation import Outcome, never


class ProtoAction:
    """B independent users, each being shown one item a step.

    Episodes have no end of their own; see Simulation for the rest. Baselines and bounds know the response that is
    the default here; with another one they are what they are for that one.

    Args:
        model: all constants.
        num_users: B.
        catalogue: the items (default: drawn from `model.catalogue_seed`).
        users: where users come from (default: around the catalogue's centres).
        response: of a user to an item.
        index: snaps proto-actions to items.

    Attributes:
        model, catalogue, users, response: as given, or the default.
        state: taste and satiation of the users of the running episodes.
        age: int64[B], items shown since the episode began.
    """

    episode_metrics: tuple[str, ...] = ()

    def __init__(
        self,
        model: ProtoActionModel,
        num_users: int,
        *,
        catalogue: Catalogue | None = None,
        users: UserSampler | None = None,
        response: Response | None = None,
        index: Index | None = None,
    ) -> None:
        self.model = model
        self.num_users = num_users
        self.catalogue = draw_catalogue(model) if catalogue is None else catalogue
        self.item_embeddings = self.catalogue.items
        self.users = ClusteredUsers(model, self.catalogue) if users is None else users
        self.response = NoisyRating(model) if response is None else response
        items, dim = self.catalogue.items.shape
        self.observation_space = observation_space(model, items, dim)
        self.action_space = action_space(model, items, dim)
        self.generator = np.random.default_rng(0)
        self.state = UserState(model, num_users, dim)
        self.age = np.zeros(num_users, dtype=np.int64)
        self._index = ExactIndex(self.catalogue.items) if index is None else index
        self._rows = np.arange(num_users)
        length = model.history_length
        if model.obs_mode == "ids":
            self._history = Ring(num_users, length, (), np.int32, -1)
            self._rewards = Ring(num_users, length, (), np.float32, 0.0)
        else:
            self._history = Ring(num_users, length, (dim + 1,), np.float32, 0.0)

    def reset(self, rows: NDArray[np.int64] | None = None) -> None:
        """Start new episodes with new users at `rows` (default all)."""
        rows = self._rows if rows is None else rows
        self.state.begin(rows, self.users.draw(len(rows), self.generator))
        self.age[rows] = 0
        self._history.clear(rows)
        if self.model.obs_mode == "ids":
            self._rewards.clear(rows)

    def step(self, action: NDArray[Any]) -> Outcome:
        """Show everybody an item.

        Args:
            action: integer[B] in [0, N), or with `actions` "proto" float32[B, d], of which only the direction matters.

        Returns:
            Nobody's episode ends; info has the items' ids, `item` int64[B].

        Raises:
            ValueError: there is no such item.
        """
        ids = self._ids(action)
        vectors = self.catalogue.items[ids]
        wish = self.response.wish(self.state.taste, self.state.satiation)
        reward = self.response.draw(np.einsum("bd,bd->b", wish, vectors), self.generator)
        self.state.consume(vectors)
        self.state.drift(self.generator)
        self.age += 1
        if self.model.obs_mode == "ids":
            self._history.advance()[:] = ids
            self._rewards.advance()[:] = reward
        else:
            frame = self._history.advance()
            frame[:, :-1], frame[:, -1] = vectors, reward
        nobody = never(self.num_users)
        return Outcome(reward, nobody, nobody, {"item": ids})

    def observe(self) -> dict[str, NDArray[Any]]:
        """What the agent sees: `history`, with ids `rewards`, and where it is shown `user`."""
        seen = {"history": self._history.ordered()}
        if self.model.obs_mode == "ids":
            seen["rewards"] = self._rewards.ordered()
        if self.model.show_user:
            seen["user"] = self.state.taste.copy()
        return seen

    def _ids(self, action: NDArray[Any]) -> NDArray[np.int64]:
        if self.model.actions == "proto":
            return self._index.search(np.asarray(action, dtype=np.float32))
        if action.min() < 0 or action.max() >= len(self.catalogue.items):
            raise ValueError(f"an action lies outside 0 .. {len(self.catalogue.items) - 1}, the items' ids")
        return action.astype(np.int64)
