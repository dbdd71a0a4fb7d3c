"""Users of a real log on plain arrays, B at once and no loop over them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.envs.log_users.clicks import CalibratedClicks, ClickModel
from actors.envs.log_users.fitted_users import FittedUsers
from actors.envs.log_users.memory import Memory
from actors.envs.log_users.model import LogUsersModel
from actors.envs.log_users.offers import draw_candidates
from actors.envs.log_users.spaces import action_space, observation_space
from actors.envs.log_users.users import UserSampler
from actors.envs.simulation import Outcome, never
from replay_server.errors import ConfigError


class LogUsers:
    """B independent users of a fitted population, each being shown one item a step.

    A click is worth 1. An item that the user was shown before in the episode is never clicked. Episodes have no end of
    their own; see Simulation for the rest.

    Args:
        model: all constants.
        fitted: population and catalogue; `model.catalogue` has been taken of it.
        num_users: B.
        clicks: how likely clicks are; None for the model fitted on the log.

    Attributes:
        model, fitted, clicks: as given.
        users: int64[B], places in the population.
        memory: what they were shown in the running episodes.
        candidates: int32[B, M] on offer now, or None where everything is.
    """

    episode_metrics = ("repeats",)

    def __init__(
        self, model: LogUsersModel, fitted: FittedUsers, num_users: int, clicks: ClickModel | None = None
    ) -> None:
        if model.candidates is not None and model.candidates > len(fitted.item_names):
            raise ConfigError(
                f"environment.kwargs.candidates is {model.candidates}, there are {len(fitted.item_names)} items; "
                "ask for fewer"
            )
        self.model = model
        self.fitted = fitted
        self.num_users = num_users
        self.clicks = CalibratedClicks(fitted) if clicks is None else clicks
        self.item_embeddings = _embeddings(fitted)
        self.observation_space = observation_space(model, fitted)
        self.action_space = action_space(model, fitted)
        self.generator = np.random.default_rng(0)
        self.users = np.zeros(num_users, dtype=np.int64)
        self.memory = Memory(num_users, len(fitted.item_names), model.history_length)
        self.candidates = None if model.candidates is None else np.zeros((num_users, model.candidates), dtype=np.int32)
        self._source = UserSampler(fitted, model.users)
        self._profiles = np.column_stack([fitted.user_factors, fitted.generosity])
        self._rows = np.arange(num_users)
        self._repeats = np.zeros(num_users, dtype=np.int32)

    def reset(self, rows: NDArray[np.int64] | None = None) -> None:
        """Start new episodes with users drawn from the population at `rows` (default all)."""
        rows = self._rows if rows is None else rows
        self.users[rows] = self._source.draw(len(rows), self.generator)
        self.memory.forget(rows)
        self._repeats[rows] = 0
        self._offer(rows)

    def step(self, action: NDArray[Any]) -> Outcome:
        """Show user b the item, or the candidate, `action[b]`.

        Args:
            action: integer[B].

        Returns:
            Reward 1 for a click; nobody's episode ends. `info["repeats"]` int32[B] counts the items of the episode that
            had been shown before.
        """
        items = np.asarray(action if self.candidates is None else self.candidates[self._rows, action], dtype=np.int64)
        repeated = self.memory.knows(items)
        draws = self.generator.random(self.num_users, dtype=np.float32)
        clicked = (draws < self.clicks.of_pairs(self.users, items)) & ~repeated
        self._repeats += repeated
        self.memory.add(items, clicked)
        self._offer(self._rows)
        nobody = never(self.num_users)
        return Outcome(clicked.astype(np.float32), nobody, nobody, {"repeats": self._repeats})

    def observe(self) -> dict[str, NDArray[Any]]:
        """What the agent sees, as new arrays; see docs/environments/log_users.md."""
        model = self.model
        seen: dict[str, NDArray[Any]] = {}
        if model.show_user and model.obs_mode == "factors":
            seen["observation"] = self._profiles[self.users]
        elif model.show_user:
            seen["user"] = self.users.astype(np.int32)[:, None]
        seen["history"] = self.memory.history.copy()
        seen["clicked"] = self.memory.clicked.copy()
        if self.candidates is not None:
            seen["candidates"] = self.candidates.copy()
        if model.show_mask:
            mask = self.unseen()
            mask[~mask.any(axis=1)] = True  # something has to be chosen even when all of it is known
            seen["action_mask"] = mask.view(np.int8)
        return seen

    def unseen(self) -> NDArray[np.bool_]:
        """bool[B, actions], what is on offer and was not shown yet."""
        if self.candidates is None:
            return self.memory.unseen()
        return ~self.memory.knows(self.candidates.astype(np.int64))

    def expected_rewards(self) -> NDArray[np.float32]:
        """Expected immediate reward of every action as things stand, float32[B, actions]."""
        return np.where(self.unseen(), self.offered(self.clicks.of_all(self.users)), np.float32(0.0))

    def offered(self, of_items: NDArray[Any]) -> NDArray[Any]:
        """Values of all items [N] or [B, N] as values of the actions [B, actions]."""
        values = np.broadcast_to(of_items, (self.num_users, len(self.fitted.item_names)))
        return values if self.candidates is None else np.take_along_axis(values, self.candidates, axis=1)

    def _offer(self, rows: NDArray[np.int64]) -> None:
        if self.candidates is not None:
            items, count = len(self.fitted.item_names), self.candidates.shape[1]
            self.candidates[rows] = draw_candidates(len(rows), items, count, self.generator)


def _embeddings(fitted: FittedUsers) -> NDArray[np.float32]:
    """float32[N, d + 1]: factors and quality, each of root mean square 1, so that networks can start from them."""
    table = np.column_stack([fitted.item_factors, fitted.quality])
    factors = np.sqrt(np.mean(np.square(table[:, :-1])))
    quality = np.sqrt(np.mean(np.square(table[:, -1])))
    table[:, :-1] /= max(float(factors), 1e-12)
    table[:, -1] /= max(float(quality), 1e-12)
    return table
