"""From single steps to n-step transitions, for B environments at once."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from actors.discounts import step_discounts
from actors.first_step import FirstStep
from actors.timestep import TimeStep
from learners.policies import Action


class Accumulator(Protocol):
    """Makes records of B environments' steps; `NStepAccumulator.step` says what a record holds."""

    def first(self, observation: NDArray[Any]) -> None: ...

    def step(self, action: Action, policy_version: int, timestep: TimeStep) -> dict[str, NDArray[Any]]: ...

    def flush_truncated(self) -> dict[str, NDArray[Any]]: ...


class NStepAccumulator:
    """Sliding windows of n steps that never reach over an episode's end.

    A window opens with every transition and closes after n steps or with its episode. Its record holds what was seen,
    done and known at its first step, reward = sum of gamma^i x reward_scale x r_i over its k steps, and
    discount = gamma^k x (1 - terminated) with k its true length. An end closes every open window: after a true
    terminal state nothing is bootstrapped (discount 0; this wins where both flags are set), after a truncation value
    continues from the true final observation. Rows whose step only carried out a reset are no transitions. With
    `discount_hours` gamma^(hours passed / discount_hours) stands in place of each power of gamma.

    The loop it lives in::

        accumulator.first(observation)
        columns = accumulator.step(action, policy.version, vector_steps.step(action.action))

    Args:
        num_envs: B.
        n_step: n >= 1.
        gamma: discount of one step, in [0, 1].
        reward_scale: factor on every reward.
        first_step: what records keep of their first step alone.
        discount_hours: gamma is the discount of so many hours of the environment's time; None: of a step.
    """

    def __init__(
        self,
        num_envs: int,
        n_step: int,
        gamma: float,
        reward_scale: float = 1.0,
        first_step: FirstStep = FirstStep(),  # noqa: B008  frozen
        discount_hours: float | None = None,
    ) -> None:
        if n_step < 1:
            raise ValueError(f"n_step is {n_step}, must be at least 1")
        self._n = n_step
        self._scale = reward_scale
        self._first_step = first_step
        self._gamma, self._discount_hours = gamma, discount_hours
        self._rows = np.arange(num_envs)
        self._time = 0  # slot of a window = time of its first step modulo n
        self._length = np.zeros(num_envs, dtype=np.int64)  # open windows of each environment, the newest ones
        self._returns = np.zeros((n_step, num_envs))
        self._discounts = np.ones((n_step, num_envs))  # product of the steps' discounts since a window opened
        self._versions = np.zeros(n_step, dtype=np.int64)
        self._context: dict[str, NDArray[Any]] = {}  # [n, B, ...] rings of each window's first step
        self._current: NDArray[Any] | None = None
        self._successor: NDArray[Any] | None = None

    def first(self, observation: NDArray[Any]) -> None:
        """Begin: the observation [B, *shape] the next step acts on. Open windows are dropped."""
        self._current = observation
        self._length[:] = 0

    def step(self, action: Action, policy_version: int, timestep: TimeStep) -> dict[str, NDArray[Any]]:
        """Take in one vector step.

        Args:
            action: what was chosen for the observation of the step before.
            policy_version: version of the weights that chose it.
            timestep: what came of it.

        Returns:
            The records completed now, M >= 0, as columns [M, ...]: observation, next_observation, action,
            reward f32, discount f32, behaviour_log_prob f32, policy_version i64, and the action's extras. They share
            no memory with what later steps write.
        """
        if self._current is None:
            raise RuntimeError("call first(observation) before step")
        self._open(action, policy_version, timestep)
        ended = (timestep.terminated | timestep.truncated) & timestep.valid
        self._current, self._successor = timestep.observation, timestep.next_observation
        full = self._length == self._n
        if not ended.any() and full.all():
            columns = self._close_oldest(timestep.next_observation)
        else:
            columns = self._close(full, ended, timestep.terminated, timestep.next_observation)
        self._length[ended] = 0
        self._length[full & ~ended] = self._n - 1
        self._time += 1
        return columns

    def flush_truncated(self) -> dict[str, NDArray[Any]]:
        """Close every open window as if its episode had been truncated now; `first` must come before the next step."""
        if self._successor is None:
            raise RuntimeError("call step before flush_truncated")
        self._time -= 1  # ages count from the step taken last
        open_rows = self._length > 0
        columns = self._close(np.zeros_like(open_rows), open_rows, np.zeros_like(open_rows), self._successor)
        self._time += 1
        self._length[:] = 0
        self._current = None
        return columns

    def _open(self, action: Action, policy_version: int, timestep: TimeStep) -> None:
        slot = self._time % self._n
        assert self._current is not None
        opened: dict[str, NDArray[Any]] = {
            **action.extras,
            **self._first_step.columns(timestep, self._scale),
            "observation": self._current,
            "action": action.action,
            "behaviour_log_prob": np.asarray(action.log_prob, dtype=np.float32),
        }
        if not self._context:
            self._context = {
                name: np.zeros((self._n, *value.shape), dtype=value.dtype) for name, value in opened.items()
            }
        if opened.keys() != self._context.keys():
            raise ValueError(f"action extras changed from {sorted(self._context)} to {sorted(opened)}")
        for name, value in opened.items():
            self._context[name][slot] = value
        self._versions[slot] = policy_version
        self._returns[slot] = 0.0
        self._discounts[slot] = 1.0
        reward = timestep.reward.astype(np.float64) * self._scale
        self._returns += self._discounts * reward  # closed windows gather rubbish nobody reads
        self._discounts *= step_discounts(self._gamma, self._discount_hours, timestep)
        self._length += 1
        self._length[~timestep.valid] = 0

    def _close_oldest(self, successor: NDArray[Any]) -> dict[str, NDArray[Any]]:
        slot = (self._time + 1) % self._n
        batch = len(self._rows)
        columns = {name: ring[slot].copy() for name, ring in self._context.items()}
        columns["next_observation"] = successor.copy()
        columns["reward"] = self._returns[slot].astype(np.float32)
        columns["discount"] = self._discounts[slot].astype(np.float32)
        columns["policy_version"] = np.full(batch, self._versions[slot], dtype=np.int64)
        return columns

    def _close(
        self,
        full: NDArray[np.bool_],
        ended: NDArray[np.bool_],
        terminated: NDArray[np.bool_],
        successor: NDArray[Any],
    ) -> dict[str, NDArray[Any]]:
        """Records of the oldest window of `full` rows and of all windows of `ended` rows, oldest windows first."""
        ages = np.arange(self._n - 1, -1, -1)
        closing = (ended & (self._length > ages[:, None])) | ((ages == self._n - 1)[:, None] & full)
        order, rows = np.nonzero(closing)
        age = ages[order]
        slots = (self._time - age) % self._n
        columns = {name: ring[slots, rows] for name, ring in self._context.items()}
        columns["next_observation"] = successor[rows]
        columns["reward"] = self._returns[slots, rows].astype(np.float32)
        columns["discount"] = np.where(terminated[rows], 0.0, self._discounts[slots, rows]).astype(np.float32)
        columns["policy_version"] = self._versions[slots]
        return columns
