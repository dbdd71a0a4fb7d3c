"""n-step windows: a table of hand-written cases, and a slow implementation that keeps one list an environment."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors import episodes
from actors.accumulators import Accumulator, NStepAccumulator
from actors.episodes import EpisodeAccumulator
from actors.timestep import TimeStep
from learners.policies import Action
from replay_server.errors import EnvironmentFault

GAMMA = 0.5


def encode(env: int, episode: int, t: int) -> float:
    return float(env * 10_000 + episode * 100 + t)


def timestep(
    observation: list[float],
    successor: list[float],
    reward: list[float],
    terminated: list[int],
    truncated: list[int],
    valid: list[int] | None = None,
    hours: list[float] | None = None,
) -> TimeStep:
    return TimeStep(
        np.array(observation, dtype=np.float32)[:, None],
        np.array(successor, dtype=np.float32)[:, None],
        np.array(reward, dtype=np.float32),
        np.array(terminated, dtype=bool),
        np.array(truncated, dtype=bool),
        np.ones(len(reward), dtype=bool) if valid is None else np.array(valid, dtype=bool),
        hours=None if hours is None else np.array(hours, dtype=np.float32),
    )


def action(values: list[int]) -> Action:
    return Action(np.array(values, dtype=np.int64), -np.array(values, dtype=np.float32) / 8)


def rows(columns: dict[str, np.ndarray]) -> list[tuple[float, float, float, float]]:
    """(observation, next_observation, reward, discount) of every record, sorted by observation."""
    names = ("observation", "next_observation", "reward", "discount")
    return sorted(zip(*(columns[name].reshape(-1).tolist() for name in names), strict=True))


@dataclass(frozen=True)
class Case:
    """One environment, one episode that starts at observation 0; the next begins at 100. gamma = 1/2."""

    n: int
    rewards: list[float]
    end: str  # "terminated", "truncated", "both", "open"
    expected: list[tuple[float, float, float, float]]


CASES = {
    "one step, going on": Case(1, [1, 2], "open", [(0, 1, 1, 0.5), (1, 2, 2, 0.5)]),
    "one step, terminated": Case(1, [1, 2], "terminated", [(0, 1, 1, 0.5), (1, 2, 2, 0)]),
    "one step, truncated": Case(1, [1, 2], "truncated", [(0, 1, 1, 0.5), (1, 2, 2, 0.5)]),
    "two steps, going on": Case(2, [4, 8, 16], "open", [(0, 2, 8, 0.25), (1, 3, 16, 0.25)]),
    "two steps, terminated": Case(2, [4, 8, 16], "terminated", [(0, 2, 8, 0.25), (1, 3, 16, 0), (2, 3, 16, 0)]),
    "two steps, truncated": Case(2, [4, 8, 16], "truncated", [(0, 2, 8, 0.25), (1, 3, 16, 0.25), (2, 3, 16, 0.5)]),
    "three steps, ended exactly when full, terminated": Case(
        3, [4, 8, 16], "terminated", [(0, 3, 12, 0), (1, 3, 16, 0), (2, 3, 16, 0)]
    ),
    "three steps, ended exactly when full, truncated": Case(
        3, [4, 8, 16], "truncated", [(0, 3, 12, 0.125), (1, 3, 16, 0.25), (2, 3, 16, 0.5)]
    ),
    "three steps, longer, terminated": Case(
        3, [8, 8, 8, 8], "terminated", [(0, 3, 14, 0.125), (1, 4, 14, 0), (2, 4, 12, 0), (3, 4, 8, 0)]
    ),
    "three steps, longer, truncated": Case(
        3, [8, 8, 8, 8], "truncated", [(0, 3, 14, 0.125), (1, 4, 14, 0.125), (2, 4, 12, 0.25), (3, 4, 8, 0.5)]
    ),
    "episode shorter than n, terminated": Case(5, [4, 8], "terminated", [(0, 2, 8, 0), (1, 2, 8, 0)]),
    "episode shorter than n, truncated": Case(5, [4, 8], "truncated", [(0, 2, 8, 0.25), (1, 2, 8, 0.5)]),
    "episode of one step, terminated": Case(5, [4], "terminated", [(0, 1, 4, 0)]),
    "episode of one step, truncated": Case(5, [4], "truncated", [(0, 1, 4, 0.5)]),
    "both flags mean terminated": Case(3, [4, 8], "both", [(0, 2, 8, 0), (1, 2, 8, 0)]),
    "five steps, going on": Case(5, [16, 16, 16, 16, 16], "open", [(0, 5, 31, 0.03125)]),
    "not full yet": Case(5, [16, 16, 16, 16], "open", []),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_termination_and_truncation_table(case: Case) -> None:
    assert records_of(NStepAccumulator(1, case.n, GAMMA), case) == case.expected


def records_of(accumulator: Accumulator, case: Case) -> list[tuple[float, float, float, float]]:
    accumulator.first(np.array([[0.0]], dtype=np.float32))
    got = []
    for t, reward in enumerate(case.rewards):
        last = t == len(case.rewards) - 1
        terminated = last and case.end in ("terminated", "both")
        truncated = last and case.end in ("truncated", "both")
        following = 100.0 if terminated or truncated else t + 1.0
        got += rows(
            accumulator.step(action([t]), t, timestep([following], [t + 1.0], [reward], [terminated], [truncated]))
        )
    return sorted(got)


def test_ends_of_some_environments_leave_the_others_alone() -> None:
    accumulator = NStepAccumulator(3, 2, GAMMA)
    accumulator.first(np.array([[0.0], [1000.0], [2000.0]], dtype=np.float32))
    first = accumulator.step(
        action([1, 2, 3]), 7, timestep([100, 1001, 2100], [1, 1001, 2001], [4, 4, 4], [1, 0, 0], [0, 0, 1])
    )
    assert rows(first) == [(0, 1, 4, 0), (2000, 2001, 4, 0.5)]
    second = accumulator.step(
        action([4, 5, 6]), 8, timestep([101, 1002, 2101], [101, 1002, 2101], [8, 8, 8], [0, 0, 0], [0, 0, 0])
    )
    assert rows(second) == [(1000, 1002, 8, 0.25)]
    assert second["action"].tolist() == [2]
    assert second["behaviour_log_prob"].tolist() == [-0.25]
    assert second["policy_version"].tolist() == [7]


def test_reset_rows_are_no_transitions() -> None:
    accumulator = NStepAccumulator(2, 2, GAMMA)
    accumulator.first(np.array([[0.0], [1000.0]], dtype=np.float32))
    ended = accumulator.step(action([0, 0]), 1, timestep([1, 1001], [1, 1001], [4, 4], [0, 0], [1, 0]))
    assert rows(ended) == [(0, 1, 4, 0.5)]
    reset = accumulator.step(action([1, 1]), 1, timestep([100, 1002], [100, 1002], [9, 8], [0, 0], [0, 0], [0, 1]))
    assert rows(reset) == [(1000, 1002, 8, 0.25)]
    accumulator.step(action([2, 2]), 1, timestep([101, 1003], [101, 1003], [16, 16], [0, 0], [0, 0]))
    later = accumulator.step(action([3, 3]), 1, timestep([102, 1004], [102, 1004], [16, 16], [0, 0], [0, 0]))
    assert rows(later) == [(100, 102, 24, 0.25), (1002, 1004, 24, 0.25)]


def test_context_is_that_of_the_first_step_and_extras_travel_along() -> None:
    accumulator = NStepAccumulator(1, 3, GAMMA, reward_scale=0.5)
    accumulator.first(np.array([[0.0]], dtype=np.float32))
    columns: dict[str, Any] = {}
    for t in range(3):
        chosen = Action(
            np.array([t + 5]), np.array([-t - 1.0], dtype=np.float32), {"item_id": np.array([[t, t]], dtype=np.int32)}
        )
        columns = accumulator.step(chosen, 10 + t, timestep([t + 1], [t + 1], [8], [0], [0]))
    assert columns["action"].tolist() == [5]
    assert columns["policy_version"].tolist() == [10]
    assert columns["behaviour_log_prob"].tolist() == [-1.0]
    assert columns["item_id"].tolist() == [[0, 0]]
    assert columns["reward"].tolist() == [7.0]
    dtypes = {name: column.dtype.name for name, column in columns.items()}
    assert dtypes == {
        "observation": "float32",
        "next_observation": "float32",
        "action": "int64",
        "reward": "float32",
        "discount": "float32",
        "behaviour_log_prob": "float32",
        "policy_version": "int64",
        "item_id": "int32",
    }


def test_flush_truncated_closes_open_windows_at_the_last_successor() -> None:
    accumulator = NStepAccumulator(2, 3, GAMMA)
    accumulator.first(np.array([[0.0], [1000.0]], dtype=np.float32))
    accumulator.step(action([0, 0]), 1, timestep([1, 1100], [1, 1001], [4, 4], [0, 1], [0, 0]))
    accumulator.step(action([1, 1]), 1, timestep([2, 1101], [2, 1101], [8, 8], [0, 0], [0, 0]))
    assert rows(accumulator.flush_truncated()) == [(0, 2, 8, 0.25), (1, 2, 8, 0.5), (1100, 1101, 8, 0.5)]
    with pytest.raises(RuntimeError, match="first"):
        accumulator.step(action([0, 0]), 1, timestep([1, 1], [1, 1], [1, 1], [0, 0], [0, 0]))
    accumulator.first(np.array([[50.0], [1050.0]], dtype=np.float32))
    assert rows(accumulator.step(action([0, 0]), 1, timestep([51, 1051], [51, 1051], [1, 1], [1, 0], [0, 0]))) == [
        (50, 51, 1, 0)
    ]


def test_flush_after_everything_ended_gives_nothing() -> None:
    accumulator = NStepAccumulator(1, 3, GAMMA)
    accumulator.first(np.zeros((1, 1), dtype=np.float32))
    accumulator.step(action([0]), 1, timestep([100], [1], [4], [1], [0]))
    columns = accumulator.flush_truncated()
    assert {name: len(column) for name, column in columns.items()} == dict.fromkeys(columns, 0)
    assert columns["observation"].shape == (0, 1)


def test_records_do_not_change_when_the_caller_reuses_its_arrays() -> None:
    accumulator = NStepAccumulator(2, 1, GAMMA)
    observation = np.array([[1.0], [2.0]], dtype=np.float32)
    accumulator.first(observation.copy())
    step = TimeStep(observation, observation, np.ones(2, np.float32), *np.zeros((2, 2), dtype=bool), np.ones(2, bool))
    columns = accumulator.step(action([0, 1]), 0, step)
    before = {name: column.copy() for name, column in columns.items()}
    observation[:] = -1
    accumulator.step(action([3, 4]), 1, step)
    for name, column in columns.items():
        np.testing.assert_array_equal(column, before[name])


def test_float64_inside() -> None:
    accumulator = NStepAccumulator(1, 3, 1.0)
    accumulator.first(np.zeros((1, 1), dtype=np.float32))
    columns: dict[str, Any] = {}
    for reward in (2.0**24, 1.0, 1.0):  # in float32, 2^24 + 1 + 1 stays 2^24
        columns = accumulator.step(action([0]), 0, timestep([0], [0], [reward], [0], [0]))
    assert columns["reward"].tolist() == [2.0**24 + 2.0]


EPISODES = {
    "going on": Case(0, [4, 8], "open", []),
    "terminated": Case(0, [4, 8, 16], "terminated", [(0, 3, 12, 0), (1, 3, 16, 0), (2, 3, 16, 0)]),
    "truncated": Case(0, [4, 8, 16], "truncated", [(0, 3, 12, 0.125), (1, 3, 16, 0.25), (2, 3, 16, 0.5)]),
    "both flags mean terminated": Case(0, [4, 8], "both", [(0, 2, 8, 0), (1, 2, 8, 0)]),
    "one step": Case(0, [4], "truncated", [(0, 1, 4, 0.5)]),
}


@pytest.mark.parametrize("case", EPISODES.values(), ids=EPISODES.keys())
def test_whole_episodes_table(case: Case) -> None:
    assert records_of(EpisodeAccumulator(1, GAMMA), case) == case.expected


def test_an_episode_longer_than_the_first_room_and_one_that_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    accumulator = EpisodeAccumulator(1, 1.0)
    accumulator.first(np.zeros((1, 1), dtype=np.float32))
    for _ in range(199):
        assert not len(accumulator.step(action([0]), 0, timestep([0], [0], [1], [0], [0]))["reward"])
    columns = accumulator.step(action([0]), 0, timestep([0], [0], [1], [1], [0]))
    assert columns["reward"].tolist() == list(range(200, 0, -1))
    monkeypatch.setattr(episodes, "_LONGEST", 128)
    endless = EpisodeAccumulator(1, 1.0)
    endless.first(np.zeros((1, 1), dtype=np.float32))
    with pytest.raises(
        EnvironmentFault, match=r"128 steps, and algorithm\.n_step null .* environment\.max_episode_steps"
    ):
        for _ in range(200):
            endless.step(action([0]), 0, timestep([0], [0], [1], [0], [0]))


class SlowAccumulator:
    """The rules written down for one environment, with Python lists; n None: to the end of the episode."""

    def __init__(self, n: int | None, gamma: float, scale: float) -> None:
        self.n, self.gamma, self.scale = n, gamma, scale
        self.windows: list[tuple[float, int, float, int, list[tuple[float, float]]]] = []

    def step(
        self,
        observation: float,
        act: int,
        version: int,
        reward: float,
        periods: float,
        successor: float,
        term: bool,
        trunc: bool,
    ) -> list[tuple[float, ...]]:
        self.windows.append((observation, act, -act / 8, version, []))
        for window in self.windows:
            window[-1].append((reward * self.scale, periods))
        closing = self.windows if term or trunc else [w for w in self.windows if len(w[-1]) == self.n]
        records = [self.record(window, successor, term) for window in closing]
        self.windows = [window for window in self.windows if window not in closing]
        return records

    def record(self, window: Any, successor: float, term: bool) -> tuple[float, ...]:
        observation, act, log_prob, version, steps = window
        passed, total = 0.0, 0.0
        for reward, periods in steps:
            total += self.gamma**passed * reward
            passed += periods
        discount = 0.0 if term else self.gamma**passed
        return (observation, successor, act, total, discount, log_prob, version)

    def flush(self, successor: float) -> list[tuple[float, ...]]:
        records = [self.record(window, successor, False) for window in self.windows]
        self.windows = []
        return records


def as_tuples(columns: dict[str, np.ndarray]) -> list[tuple[float, ...]]:
    names = ("observation", "next_observation", "action", "reward", "discount", "behaviour_log_prob", "policy_version")
    return sorted(zip(*(columns[name].reshape(-1).tolist() for name in names), strict=True))


@settings(max_examples=60, deadline=None)
@given(
    num_envs=st.integers(1, 5),
    n=st.sampled_from([1, 2, 3, 5, None]),
    gamma=st.sampled_from([0.0, 0.5, 0.99, 1.0]),
    discount_hours=st.sampled_from([None, 24.0]),
    next_step=st.booleans(),
    flush_at=st.integers(0, 30),
    seed=st.integers(0, 10_000),
)
def test_against_the_slow_one(
    num_envs: int,
    n: int | None,
    gamma: float,
    discount_hours: float | None,
    next_step: bool,
    flush_at: int,
    seed: int,
) -> None:
    rng = np.random.default_rng(seed)
    fast: Accumulator = EpisodeAccumulator(num_envs, gamma, reward_scale=0.25, discount_hours=discount_hours)
    if n is not None:
        fast = NStepAccumulator(num_envs, n, gamma, reward_scale=0.25, discount_hours=discount_hours)
    slow = [SlowAccumulator(n, gamma, 0.25) for _ in range(num_envs)]
    episode, t = np.zeros(num_envs, int), np.zeros(num_envs, int)
    fresh = np.zeros(num_envs, bool)

    def now() -> list[float]:
        return [encode(b, episode[b], t[b]) for b in range(num_envs)]

    fast.first(np.array(now(), dtype=np.float32)[:, None])
    for k in range(31):
        seen, valid = now(), ~fresh
        acts, rewards = rng.integers(8, size=num_envs), rng.normal(size=num_envs).astype(np.float32)
        hours = rng.exponential(24.0, size=num_envs).astype(np.float32)
        periods = np.ones(num_envs) if discount_hours is None else hours / discount_hours
        ends = rng.random((2, num_envs)) < 0.2
        term, trunc = ends[0] & valid, ends[1] & valid
        expected = []
        episode[fresh], t[fresh] = episode[fresh] + 1, 0
        t[valid] += 1
        successor = now()
        for b in np.flatnonzero(valid):
            expected += slow[b].step(
                seen[b],
                int(acts[b]),
                k,
                float(rewards[b]),
                float(periods[b]),
                successor[b],
                bool(term[b]),
                bool(trunc[b]),
            )
        ended = term | trunc
        fresh = ended if next_step else np.zeros(num_envs, bool)
        if not next_step:
            episode[ended], t[ended] = episode[ended] + 1, 0
        told = None if discount_hours is None else hours.tolist()
        step = timestep(now(), successor, rewards.tolist(), term.tolist(), trunc.tolist(), valid.tolist(), told)
        got = as_tuples(fast.step(action(acts.tolist()), k, step))
        np.testing.assert_allclose(got, sorted(expected), rtol=1e-6, atol=1e-6)
        if k == flush_at:
            flushed = sorted(record for b in range(num_envs) for record in slow[b].flush(successor[b]))
            np.testing.assert_allclose(as_tuples(fast.flush_truncated()), flushed, rtol=1e-6, atol=1e-6)
            episode, t, fresh = episode + 1, np.zeros(num_envs, int), np.zeros(num_envs, bool)
            fast.first(np.array(now(), dtype=np.float32)[:, None])


def test_environments_must_tell_the_time_that_discounts_take() -> None:
    for accumulator in (
        NStepAccumulator(1, 1, 0.9, discount_hours=24.0),
        EpisodeAccumulator(1, 0.9, discount_hours=1.0),
    ):
        accumulator.first(np.zeros((1, 1), dtype=np.float32))
        with pytest.raises(EnvironmentFault, match="dt_hours"):
            accumulator.step(action([0]), 0, timestep([0], [0], [0], [0], [0]))


def test_wrong_use() -> None:
    with pytest.raises(ValueError, match="n_step"):
        NStepAccumulator(1, 0, 0.9)
    accumulator = NStepAccumulator(1, 2, 0.9)
    with pytest.raises(RuntimeError, match="first"):
        accumulator.step(action([0]), 0, timestep([0], [0], [0], [0], [0]))
    with pytest.raises(RuntimeError, match="step"):
        accumulator.flush_truncated()
    whole = EpisodeAccumulator(1, 0.9)
    with pytest.raises(RuntimeError, match="first"):
        whole.step(action([0]), 0, timestep([0], [0], [0], [0], [0]))
    with pytest.raises(RuntimeError, match="step"):
        whole.flush_truncated()
    whole.first(np.zeros((1, 1), dtype=np.float32))
    whole.step(action([0]), 0, timestep([0], [0], [0], [0], [0]))
    with pytest.raises(ValueError, match="extras changed"):
        whole.step(
            Action(np.zeros(1), np.zeros(1, np.float32), {"x": np.zeros(1)}), 0, timestep([0], [0], [0], [0], [0])
        )
