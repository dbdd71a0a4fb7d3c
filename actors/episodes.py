"""From single steps to whole-episode returns, for B environments at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.discounts import step_discounts
from actors.first_step import FirstStep
from actors.timestep import TimeStep
from learners.policies import Action
from replay_server.errors import EnvironmentFault

_FIRST_ROOM = 64
_LONGEST = 1 << 17


class EpisodeAccumulator:
    """Keeps every episode until it ends, then gives out one record a step with all that came after it.

    A record holds what was seen, done and known at its step, reward = sum of gamma^i x reward_scale x r_i from there to
    the end of the episode, and discount = gamma^k x (1 - terminated) with k the steps to that end: after a true
    terminal state nothing is bootstrapped (this wins where both flags are set), after a truncation a value function
    may go on from the true final observation, `next_observation`. Rows whose step only carried out a reset are no
    transitions. Used like `accumulators.NStepAccumulator`.

    Args:
        num_envs: B.
        gamma: discount of one step, in [0, 1].
        reward_scale: factor on every reward.
        first_step: what records keep of their first step alone.
        discount_hours: gamma is the discount of so many hours of the environment's time; None: of a step.
    """

    def __init__(
        self,
        num_envs: int,
        gamma: float,
        reward_scale: float = 1.0,
        first_step: FirstStep = FirstStep(),  # noqa: B008  frozen
        discount_hours: float | None = None,
    ) -> None:
        self._gamma, self._discount_hours = gamma, discount_hours
        self._scale = reward_scale
        self._first_step = first_step
        self._rows = np.arange(num_envs)
        self._length = np.zeros(num_envs, dtype=np.int64)
        self._rewards = np.zeros((_FIRST_ROOM, num_envs))
        self._discounts = np.ones((_FIRST_ROOM, num_envs))  # of each step
        self._steps: dict[str, NDArray[Any]] = {}  # [T, B, ...]: row t of a column is an episode's step t
        self._current: NDArray[Any] | None = None
        self._successor: NDArray[Any] | None = None

    def first(self, observation: NDArray[Any]) -> None:
        """Begin: the observation [B, *shape] the next step acts on. Open episodes are dropped."""
        self._current = observation
        self._length[:] = 0

    def step(self, action: Action, policy_version: int, timestep: TimeStep) -> dict[str, NDArray[Any]]:
        """Take in one vector step; see `NStepAccumulator.step`.

        Returns:
            The records of the episodes that ended now, one episode after the other, each in order of time.

        Raises:
            EnvironmentFault: an episode does not end.
        """
        if self._current is None:
            raise RuntimeError("call first(observation) before step")
        self._note(action, policy_version, timestep)
        ended = (timestep.terminated | timestep.truncated) & timestep.valid
        self._current, self._successor = timestep.observation, timestep.next_observation
        columns = self._close(np.flatnonzero(ended).tolist(), timestep.terminated, timestep.next_observation)
        self._length[ended] = 0
        return columns

    def flush_truncated(self) -> dict[str, NDArray[Any]]:
        """Close every open episode as if it had been truncated now; `first` must come before the next step."""
        if self._successor is None:
            raise RuntimeError("call step before flush_truncated")
        open_rows = np.flatnonzero(self._length).tolist()
        columns = self._close(open_rows, np.zeros(len(self._rows), np.bool_), self._successor)
        self._length[:] = 0
        self._current = None
        return columns

    def _note(self, action: Action, policy_version: int, timestep: TimeStep) -> None:
        noted: dict[str, NDArray[Any]] = {
            **action.extras,
            **self._first_step.columns(timestep, self._scale),
            "observation": self._current,  # type: ignore[dict-item]
            "action": action.action,
            "behaviour_log_prob": np.asarray(action.log_prob, dtype=np.float32),
            "policy_version": np.full(len(self._rows), policy_version, dtype=np.int64),
        }
        if not self._steps:
            room = len(self._rewards)
            self._steps = {name: np.zeros((room, *value.shape), dtype=value.dtype) for name, value in noted.items()}
        if noted.keys() != self._steps.keys():
            raise ValueError(f"action extras changed from {sorted(self._steps)} to {sorted(noted)}")
        rows = self._rows[timestep.valid]
        at = self._length[rows]
        if len(at) and at.max() >= len(self._rewards):
            self._grow()
        for name, value in noted.items():
            self._steps[name][at, rows] = value[rows]
        self._rewards[at, rows] = timestep.reward[rows].astype(np.float64) * self._scale
        self._discounts[at, rows] = step_discounts(self._gamma, self._discount_hours, timestep)[rows]
        self._length[rows] += 1

    def _grow(self) -> None:
        if 2 * len(self._rewards) > _LONGEST:
            raise EnvironmentFault(
                f"environment: an episode has not ended after {len(self._rewards):,} steps, and algorithm.n_step null "
                "waits for its end; set environment.max_episode_steps, or a number of steps"
            )
        self._rewards = np.concatenate([self._rewards, np.zeros_like(self._rewards)])
        self._discounts = np.concatenate([self._discounts, np.ones_like(self._discounts)])
        self._steps = {name: np.concatenate([kept, np.zeros_like(kept)]) for name, kept in self._steps.items()}

    def _close(
        self, rows: Sequence[int], terminated: NDArray[np.bool_], successor: NDArray[Any]
    ) -> dict[str, NDArray[Any]]:
        lengths = self._length[list(rows)].tolist()
        which = np.repeat(np.array(rows, np.int64), np.array(lengths, np.int64))
        times = np.concatenate([np.arange(length) for length in [0, *lengths]]).astype(np.int64)
        columns = {name: kept[times, which] for name, kept in self._steps.items()}
        columns["next_observation"] = successor[which]
        sums = [self._to_the_end(row, length) for row, length in zip(rows, lengths, strict=True)]
        returns, discounts = np.concatenate([np.zeros((2, 0)), *sums], axis=1)
        columns["reward"] = returns.astype(np.float32)
        columns["discount"] = np.where(terminated[which], 0.0, discounts).astype(np.float32)
        return columns

    def _to_the_end(self, row: int, length: int) -> NDArray[np.float64]:
        """From each of an episode's steps to its end: discounted sum of rewards, and product of discounts, [2, T]."""
        rewards, discounts = self._rewards[:length, row].tolist(), self._discounts[:length, row].tolist()
        total, product = 0.0, 1.0
        for t in range(length - 1, -1, -1):
            total = rewards[t] + discounts[t] * total
            product *= discounts[t]
            rewards[t], discounts[t] = total, product
        return np.array([rewards, discounts])
