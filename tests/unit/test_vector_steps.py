"""Every autoreset mode looks the same, and broken environments are named."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.accumulators import NStepAccumulator
from actors.episodes import EpisodeAccumulator
from actors.vector_steps import VectorSteps
from learners.policies import Action
from replay_server.errors import ConfigError, EnvironmentFault

SPACE = gymnasium.spaces.Box(-np.inf, np.inf, (3,), dtype=np.float32)


class Counting(gymnasium.Env[Any, Any]):
    """Observes (index, episode, t); episodes end at random; the reward is the time of the state acted in."""

    observation_space = SPACE
    action_space = gymnasium.spaces.Discrete(3)

    def __init__(self, index: int, seed: int) -> None:
        self.index, self.episode, self.t, self.over = index, -1, 0, True
        self.rng = np.random.default_rng([seed, index])

    def observe(self) -> np.ndarray:
        return np.array([self.index, self.episode, self.t], dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.episode, self.t, self.over = self.episode + 1, 0, False
        return self.observe(), {}

    def step(self, action: Any) -> Any:
        assert not self.over, "stepped beyond an end"
        reward = float(self.t)
        self.t += 1
        terminated, truncated = self.rng.random(2) < 0.25
        self.over = bool(terminated or truncated)
        return self.observe(), reward, bool(terminated), bool(truncated), {}


class PlainArrays(VectorEnv[Any, Any, Any]):
    """SAME_STEP with `final_obs` as one plain array, and the same buffers returned every time."""

    def __init__(self, num_envs: int, seed: int) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.envs = [Counting(i, seed) for i in range(num_envs)]
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = SPACE, Counting.action_space
        self.observation_space = batch_space(SPACE, num_envs)
        self.action_space = batch_space(Counting.action_space, num_envs)
        self.buffer = np.zeros((num_envs, 3), dtype=np.float32)
        self.final = np.zeros((num_envs, 3), dtype=np.float32)
        self.rewards = np.zeros(num_envs, dtype=np.float32)
        self.flags = np.zeros((2, num_envs), dtype=bool)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        for i, env in enumerate(self.envs):
            self.buffer[i], _ = env.reset()
        return self.buffer, {}

    def step(self, actions: Any) -> Any:
        for i, env in enumerate(self.envs):
            self.buffer[i], self.rewards[i], self.flags[0, i], self.flags[1, i], _ = env.step(actions[i])
            if self.flags[:, i].any():
                self.final[i] = self.buffer[i]
                self.buffer[i], _ = env.reset()
        return self.buffer, self.rewards, self.flags[0], self.flags[1], {"final_obs": self.final}


def build(kind: str, num_envs: int, seed: int) -> VectorEnv[Any, Any, Any]:
    if kind == "plain":
        return PlainArrays(num_envs, seed)
    makers = [lambda i=i: Counting(i, seed) for i in range(num_envs)]
    return SyncVectorEnv(makers, copy=False, autoreset_mode=AutoresetMode[kind])


@settings(max_examples=20, deadline=None)
@given(
    kind=st.sampled_from(["NEXT_STEP", "SAME_STEP", "DISABLED", "plain"]),
    num_envs=st.integers(1, 4),
    n_step=st.sampled_from([1, 3, None]),
    seed=st.integers(0, 10_000),
)
def test_no_transition_crosses_a_reset(kind: str, num_envs: int, n_step: int | None, seed: int) -> None:
    steps = VectorSteps(build(kind, num_envs, seed))
    accumulator = EpisodeAccumulator(num_envs, 0.5) if n_step is None else NStepAccumulator(num_envs, n_step, 0.5)
    observation = steps.reset(0)
    accumulator.first(observation)
    records: list[dict[str, np.ndarray]] = []
    ends = np.zeros(num_envs, dtype=int)
    for _ in range(40):
        action = Action(np.zeros(num_envs, dtype=np.int64), np.zeros(num_envs, dtype=np.float32))
        step = steps.step(action.action)
        ends += (step.terminated | step.truncated) & step.valid
        records.append(accumulator.step(action, 0, step))
    columns = {name: np.concatenate([r[name] for r in records]) for name in records[0]}
    begin, end = columns["observation"], columns["next_observation"]
    np.testing.assert_array_equal(begin[:, :2], end[:, :2])  # environment and episode
    k = (end[:, 2] - begin[:, 2]).astype(int)
    assert (k >= 1).all() and (n_step is None or (k <= n_step).all())
    rewards = [sum(0.5**i * (t + i) for i in range(width)) for t, width in zip(begin[:, 2], k, strict=True)]
    np.testing.assert_allclose(columns["reward"], rewards)
    assert np.isin(columns["discount"] * 2.0**k, [0.0, 1.0]).all()
    assert len({tuple(row) for row in begin}) == len(begin)
    for index in range(num_envs):  # every step of every finished episode is there exactly once
        own = begin[begin[:, 0] == index]
        for episode in range(ends[index]):
            times = np.sort(own[own[:, 1] == episode, 2])
            np.testing.assert_array_equal(times, np.arange(len(times)))
        assert set(own[:, 1]) >= set(range(ends[index]))


def test_all_modes_give_the_same_transitions() -> None:
    transitions = {}
    for kind in ("NEXT_STEP", "SAME_STEP", "DISABLED", "plain"):
        steps = VectorSteps(build(kind, 3, seed=5))
        seen, rows = steps.reset(0), []
        for _ in range(60):
            step = steps.step(np.zeros(3, dtype=np.int64))
            for i in np.flatnonzero(step.valid):
                flags = (bool(step.terminated[i]), bool(step.truncated[i]))
                rows.append((*seen[i], *step.next_observation[i], float(step.reward[i]), *flags))
            seen = step.observation
        transitions[kind] = {row for row in rows if row[1] < 5}
    assert len(transitions["plain"]) > 20
    for rows in transitions.values():
        assert rows == transitions["plain"]


def test_only_next_step_mode_has_rows_that_are_no_transitions() -> None:
    for kind in ("NEXT_STEP", "SAME_STEP", "DISABLED", "plain"):
        steps = VectorSteps(build(kind, 3, seed=1))
        steps.reset(0)
        valid = np.concatenate([steps.step(np.zeros(3, dtype=np.int64)).valid for _ in range(20)])
        assert valid.all() == (kind != "NEXT_STEP")


def test_arrays_survive_buffers_being_written_again() -> None:
    steps = VectorSteps(build("plain", 2, seed=3))
    first = steps.reset(0)
    kept = [(first, first.copy())]
    for _ in range(10):
        step = steps.step(np.zeros(2, dtype=np.int64))
        arrays = (step.observation, step.next_observation, step.reward, step.terminated, step.truncated)
        kept += [(array, array.copy()) for array in arrays]
    for array, copy in kept:
        np.testing.assert_array_equal(array, copy)


class Broken(PlainArrays):
    """Returns something wrong in step number 3."""

    def __init__(self, what: str) -> None:
        super().__init__(3, 0)
        self.what = what
        self.count = 0

    def step(self, actions: Any) -> Any:
        self.count += 1
        observation, reward, terminated, truncated, info = super().step(actions)
        if self.count < 3:
            return observation, reward, terminated, truncated, info
        match self.what:
            case "observation":
                observation = observation.copy()
                observation[1, 0] = np.nan
            case "reward":
                reward = np.array([0, np.inf, 0])
            case "shape":
                observation = observation[:, :2]
            case "reward shape":
                reward = reward[:, None]
            case "flags":
                terminated = terminated[:2]
            case "raises":
                raise ZeroDivisionError("division by zero")
            case "no final":
                terminated, info = np.ones(3, bool), {}
            case "final nan":
                terminated, info = np.ones(3, bool), {"final_obs": np.full((3, 3), np.nan)}
            case "final none":
                final = np.empty(3, dtype=object)
                final[0] = np.zeros(3)
                terminated, info = np.ones(3, bool), {"final_obs": final}
        return observation, reward, terminated, truncated, info


FAULTS = {
    "observation": "Broken, index 1: observation is NaN",
    "reward": "Broken, index 1: reward is NaN or inf",
    "shape": r"Broken: step returned observations of shape \(3, 2\)",
    "reward shape": r"reward has shape \(3, 1\)",
    "flags": r"terminated has shape \(2,\)",
    "raises": "Broken: step raised ZeroDivisionError: division by zero",
    "no final": "final_obs",
    "final nan": "index 0: final observation is NaN",
    "final none": "index 1: info\\['final_obs'\\] has nothing",
}


@pytest.mark.parametrize(("what", "message"), FAULTS.items(), ids=FAULTS.keys())
def test_faults_are_named(what: str, message: str) -> None:
    steps = VectorSteps(Broken(what))
    steps.reset(0)
    steps.step(np.zeros(3, dtype=np.int64))
    steps.step(np.zeros(3, dtype=np.int64))
    with pytest.raises(EnvironmentFault, match=message):
        steps.step(np.zeros(3, dtype=np.int64))


@pytest.mark.parametrize(
    "metadata",
    [{}, {"autoreseet-mode": AutoresetMode.NEXT_STEP}, {"autoreset_mode": "NextStep"}, {"autoreset_mode": None}],
)
def test_undeclared_autoreset_is_an_error(metadata: dict[str, Any]) -> None:
    env = PlainArrays(1, 0)
    env.metadata = metadata
    with pytest.raises(ConfigError, match=r"PlainArrays: metadata\['autoreset_mode'\] .*AutoresetMode") as caught:
        VectorSteps(env)
    assert "\n" not in str(caught.value)


def test_float64_observations_become_float32() -> None:
    class Wide(PlainArrays):
        def __init__(self) -> None:
            super().__init__(2, 0)
            self.single_observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (3,), dtype=np.float64)
            self.buffer = self.buffer.astype(np.float64)

    steps = VectorSteps(Wide())
    assert steps.reset(0).dtype == np.float32
    step = steps.step(np.zeros(2, dtype=np.int64))
    assert step.observation.dtype == step.next_observation.dtype == step.reward.dtype == np.float32
