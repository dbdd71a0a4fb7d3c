"""Dict observations become one vector in every autoreset mode, and what float32 can't hold is refused."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import batch_space

from actors.environments import EnvironmentConfig
from actors.layouts import PartLayout, observation_layout, observation_parts
from actors.normalisation import MomentTracker, RunMoments
from actors.packing import Packer
from actors.vector_steps import VectorSteps
from distributed.build import make_task
from distributed.config import ExperimentConfig
from learners.algorithms.dqn import DQNConfig
from learners.networks.normaliser import Normaliser
from learners.task import Part
from replay_server.errors import ConfigError, EnvironmentFault

SPACE = spaces.Dict(
    {
        "observation": spaces.Box(-9, 9, (2,), dtype=np.float64),
        "action_mask": spaces.MultiBinary(3),
        "history": spaces.Box(-1, 99, (4,), dtype=np.int32),
        "topic": spaces.Discrete(5),
        "place": spaces.MultiDiscrete([3, 4]),
        "candidates": spaces.Box(0, 1, (2, 3), dtype=np.float32),
    }
)
PARTS = {  # in Gymnasium's order
    "action_mask": ((0, 3), (3,), True, 1, ()),
    "candidates": ((3, 9), (2, 3), False, 0, ()),
    "history": ((9, 13), (4,), True, 99, ()),
    "observation": ((13, 15), (2,), False, 0, ()),
    "place": ((15, 17), (2,), True, 3, (3, 4)),
    "topic": ((17, 18), (), True, 4, (5,)),
}


def told(index: int, episode: int, t: int) -> dict[str, Any]:
    """What environment `index` observes at step t of an episode."""
    return {
        "observation": np.array([episode, t], dtype=np.float64),
        "action_mask": np.array([1, 0, t % 2], dtype=np.int8),
        "history": np.array([-1, index, episode, t], dtype=np.int32),
        "topic": np.int64(t % 5),
        "place": np.array([t % 3, t % 4]),
        "candidates": np.full((2, 3), t / 100, dtype=np.float32),
    }


def packed(index: int, episode: int, t: int) -> np.ndarray:
    said = told(index, episode, t)
    return np.concatenate([np.asarray(said[name], dtype=np.float32).ravel() for name in PARTS])


class Telling(gymnasium.Env[Any, Any]):
    """Ends every third step; knows its three items."""

    observation_space = SPACE
    action_space = spaces.Discrete(3)
    item_embeddings = np.eye(3)
    built = 0

    def __init__(self, index: int = 0) -> None:
        type(self).built += 1
        self.index, self.episode = index, -1

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.episode, self.t = self.episode + 1, 0
        return told(self.index, self.episode, 0), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return told(self.index, self.episode, self.t), 1.0, False, self.t == 3 + self.index, {}


class TellingTogether(VectorEnv[Any, Any, Any]):
    """SAME_STEP with `final_obs` as one dict of arrays."""

    def __init__(self, num_envs: int) -> None:
        self.metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}
        self.num_envs, self.envs = num_envs, [Telling(i) for i in range(num_envs)]
        self.single_observation_space, self.single_action_space = SPACE, Telling.action_space
        self.observation_space = batch_space(SPACE, num_envs)
        self.action_space = batch_space(Telling.action_space, num_envs)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return together([env.reset()[0] for env in self.envs]), {}

    def step(self, actions: Any) -> Any:
        seen, final, ended = [], [], np.zeros(self.num_envs, bool)
        for i, env in enumerate(self.envs):
            observation, _, _, ended[i], _ = env.step(actions[i])
            final.append(observation)
            seen.append(env.reset()[0] if ended[i] else observation)
        nothing = np.zeros(self.num_envs, bool)
        return together(seen), np.ones(self.num_envs), nothing, ended, {"final_obs": together(final)}


def together(observations: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    return {name: np.stack([o[name] for o in observations]) for name in SPACE.spaces}


def build(kind: str) -> VectorEnv[Any, Any, Any]:
    if kind == "together":
        return TellingTogether(2)
    return SyncVectorEnv([lambda i=i: Telling(i) for i in range(2)], copy=False, autoreset_mode=AutoresetMode[kind])


def test_parts_say_where_everything_lies() -> None:
    assert observation_layout(SPACE) == ("float32", (18,))
    assert observation_parts(SPACE) == tuple(
        PartLayout(name, *place, shape, integer, largest, categories)
        for name, (place, shape, integer, largest, categories) in PARTS.items()
    )
    assert observation_parts(spaces.Box(0, 1, (3,))) == ()
    assert observation_parts(spaces.Discrete(16)) == (PartLayout("observation", 0, 1, (), True, 15, (16,)),)
    counted_from_below = spaces.Dict({"history": spaces.MultiDiscrete([5, 5], start=[-1, -1])})
    assert observation_parts(counted_from_below) == (PartLayout("history", 0, 2, (2,), True, 3, ()),)


@pytest.mark.parametrize("kind", ["SAME_STEP", "NEXT_STEP", "DISABLED", "together"])
def test_every_autoreset_mode_gives_the_true_successors(kind: str) -> None:
    steps = VectorSteps(build(kind))
    acted_in = steps.reset(0)
    np.testing.assert_array_equal(acted_in, [packed(0, 0, 0), packed(1, 0, 0)])
    t, episode, ends = [0, 0], [0, 0], 0
    for _ in range(12):
        step = steps.step(np.zeros(2, dtype=np.int64))
        for i in range(2):
            if not step.valid[i]:
                episode[i], t[i] = episode[i] + 1, 0
                np.testing.assert_array_equal(step.observation[i], packed(i, episode[i], 0))
                continue
            np.testing.assert_array_equal(acted_in[i], packed(i, episode[i], t[i]))
            t[i] += 1
            np.testing.assert_array_equal(step.next_observation[i], packed(i, episode[i], t[i]))
            assert step.truncated[i] == (t[i] == 3 + i)
            ends += step.truncated[i]
            if step.truncated[i] and kind != "NEXT_STEP":
                episode[i], t[i] = episode[i] + 1, 0
        acted_in = step.observation
    assert ends >= 4


def test_packed_observations_share_no_memory_with_the_environment() -> None:
    packer, raw = Packer(SPACE, "x"), together([told(0, 0, 1)])
    array = packer.batch(raw, 1, "reset")
    raw["observation"][:] = 7.0
    np.testing.assert_array_equal(array[0], packed(0, 0, 1))


def broken(**parts: Any) -> dict[str, Any]:
    return {**together([told(0, 0, 1), told(1, 0, 1)]), **parts}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({}, "environment x: step has no part 'action_mask', the space says it is there"),
        (np.zeros(18), "environment x: step has no part 'action_mask'"),
        (broken(topic=np.zeros((2, 1))), r"part 'topic' of step has shape \(2, 1\), the space says \(2,\)"),
        (broken(observation=np.array([[0, 0], [0, np.nan]])), "environment x, index 1: observation is NaN or infinite"),
        (broken(history=np.full((2, 4), 1 << 25)), "part 'history' of step has a whole number beyond 16777216"),
    ],
)
def test_what_breaks_the_space_is_named(raw: Any, message: str) -> None:
    with pytest.raises(EnvironmentFault, match=message) as caught:
        Packer(SPACE, "x").batch(raw, 2, "step")
    assert "\n" not in str(caught.value)


def test_a_missing_or_broken_final_observation_is_named() -> None:
    packer, ended, seen = Packer(SPACE, "x"), np.array([False, True]), np.zeros((2, 18), np.float32)
    nothing = np.full(2, None, dtype=object)
    with pytest.raises(EnvironmentFault, match=r"index 1: info\['final_obs'\] has nothing"):
        packer.final(nothing, ended, seen)
    with pytest.raises(EnvironmentFault, match=r"without info\['final_obs'\] of 2 rows"):
        packer.final(None, ended, seen)
    nothing[1] = {**told(0, 0, 0), "place": np.zeros(3)}
    with pytest.raises(EnvironmentFault, match=r"part 'place' of index 1 of info\['final_obs'\] has shape \(3,\)"):
        packer.final(nothing, ended, seen)
    nothing[1] = told(0, 0, 2)
    np.testing.assert_array_equal(packer.final(nothing, ended, seen), [np.zeros(18), packed(0, 0, 2)])


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Dict({"a": spaces.Dict({"b": spaces.Discrete(2)})}), "part 'a' of its observations is a Dict;"),
        (spaces.Dict({"a": spaces.Tuple([spaces.Discrete(2)])}), "part 'a' of its observations is a Tuple;"),
        (spaces.Dict({"id": spaces.Discrete((1 << 24) + 2)}), "'id' .* whole numbers from 0 to 16777217, .*bounds"),
        (spaces.Dict({"id": spaces.Box(-(1 << 30), 0, (1,), dtype=np.int64)}), "whole numbers from -1073741824"),
        (spaces.Discrete(1 << 25), "part 'observation' of its observations has whole numbers"),
        (spaces.Dict({"eye": spaces.Box(0, 255, (8, 8, 3), dtype=np.uint8)}), r"'eye' .* image \[8, 8, 3\] .* alone"),
        (spaces.Dict({}), "is empty"),
        (spaces.Tuple([spaces.Discrete(2)]), "Tuple is neither .*FlattenObservation"),
    ],
)
def test_spaces_that_cannot_be_packed_are_refused_in_one_line(space: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        observation_layout(space), observation_parts(space)
    assert "\n" not in str(caught.value)


class Misfit(Telling):
    item_embeddings = np.ones(3)


def experiment(name: str, **environment: Any) -> ExperimentConfig:
    return ExperimentConfig(
        environment=EnvironmentConfig(id=f"{__name__}:{name}", **environment),
        algorithm=DQNConfig(target_update_tau=0.1),
    )


def test_a_task_knows_parts_and_items_from_one_look() -> None:
    Telling.built = 0
    task = make_task(experiment("Telling", wrappers=["gymnasium.wrappers:OrderEnforcing"]))
    assert Telling.built == 1
    assert task.part("history") == Part("history", 9, 13, (4,), True, 99)
    assert task.part("topic") == Part("topic", 17, 18, (), True, 4, (5,))
    assert task.observation_dtype == "float32" and task.observation_shape == (18,)
    assert task.item_embeddings.dtype == np.float32 and task.item_embeddings.tolist() == np.eye(3).tolist()
    with pytest.raises(ConfigError, match=r"item_embeddings of .*Misfit have shape \(3,\); give .* \[items, size\]"):
        make_task(experiment("Misfit"))


def test_whole_numbers_are_never_standardised() -> None:
    task = make_task(experiment("Telling", normalise_observations=True))
    steps = VectorSteps(build("SAME_STEP"))
    steps.reset(0)
    tracker, moments = MomentTracker(2, task.observation_shape, None), RunMoments()
    for _ in range(9):
        step = steps.step(np.zeros(2, dtype=np.int64))
        tracker.observe(step)
    moments.merge(tracker.take_delta())
    normaliser = Normaliser(task)
    normaliser.set_moments(moments.summary())
    seen = torch.from_numpy(step.observation)
    standardised = normaliser(seen)
    whole = [*range(3), *range(9, 13), *range(15, 18)]
    assert torch.equal(standardised[:, whole], seen[:, whole])
    assert not torch.isclose(standardised[:, 14], seen[:, 14]).any()
