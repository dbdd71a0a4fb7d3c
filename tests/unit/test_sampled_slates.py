"""Slates: chances against enumeration and against counting; columns; learning from what was consumed."""

from __future__ import annotations

import itertools
import math
import sys
from pathlib import Path
from typing import Any

import gymnasium
import msgspec
import numpy as np
import pytest
import torch
from gymnasium import spaces
from kit.learning import DISCRETE, batch_of, policy_of, random_columns, spec_of

from actors.accumulators import NStepAccumulator
from actors.environments import EnvironmentConfig
from actors.episodes import EpisodeAccumulator
from actors.first_step import FirstStep
from actors.timestep import TimeStep
from distributed.config import ActorsConfig, ExperimentConfig, LearnerConfig, ReplayConfig, RunConfig
from distributed.runtime import Origin
from distributed.serial_runtime import SerialRuntime
from learners.acting.sampled_slates import (
    draw_slates,
    draw_without_replacement,
    inclusion_probabilities,
    sequence_log_probs,
)
from learners.algorithms.reinforce import ReinforceConfig
from learners.logged_choices import Logged
from learners.networks.softmax_policy import NEVER
from learners.policies import Action
from learners.task import DiscreteActions, Part, SlateActions, Task
from replay_server.errors import ConfigError

SLATES = Task(
    observation_dtype="float32",
    observation_shape=(5,),
    actions=SlateActions(candidates=6, slots=3),
    parts=(Part("observation", 0, 2, (2,), False), Part("response", 2, 5, (3,), True)),
)


def enumerated(p: np.ndarray, count: int) -> tuple[np.ndarray, dict[tuple[int, ...], float]]:
    """Chance of every item to be among so many drawn one after the other, and of every order."""
    chances, orders = np.zeros(len(p)), {}
    for order in itertools.permutations(range(len(p)), count):
        probability = 1.0
        for k, item in enumerate(order):
            probability *= p[item] / sum(p[other] for other in range(len(p)) if other not in order[:k])
        chances[list(order)] += probability
        orders[order] = probability
    return chances, orders


@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0, 9.0])
@pytest.mark.parametrize(("items", "count"), [(3, 1), (3, 2), (6, 2), (6, 3), (7, 4), (6, 5), (4, 4)])
def test_chances_are_those_of_enumeration(spread: float, items: int, count: int) -> None:
    p = np.exp(spread * np.random.default_rng(items).normal(size=items))
    p /= p.sum()
    expected, orders = enumerated(p, count)
    places = np.array([[(i + j) % items for j in range(count)] for i in range(items)])
    got = inclusion_probabilities(np.repeat(p[None], items, axis=0), places)
    assert np.abs(got - expected[places]).max() < 1e-9
    log_probs = sequence_log_probs(np.repeat(p[None], items, axis=0), places)
    assert np.allclose(np.exp(log_probs), [orders[tuple(order)] for order in places.tolist()], rtol=1e-12, atol=0)


def test_chances_of_many_items_are_those_of_counting() -> None:
    rng, items, count, draws = np.random.default_rng(1), 30, 5, 40_000
    p = np.exp(1.5 * rng.normal(size=items))
    p /= p.sum()
    places = draw_without_replacement(np.repeat(p[None], draws, axis=0), count, rng)
    assert all(len(set(row)) == count for row in places[:100].tolist())
    share = np.bincount(places.ravel(), minlength=items) / draws
    every = np.array([[(i + j) % items for j in range(count)] for i in range(items)])
    chances = inclusion_probabilities(np.repeat(p[None], items, axis=0), every)[:, 0]
    assert chances.sum() == pytest.approx(count, abs=1e-9)
    assert np.abs((share - chances) / np.sqrt(chances * (1 - chances) / draws)).max() < 4.5


def test_nearly_impossible_items_break_nothing() -> None:
    slates = draw_slates(torch.tensor([[0.0, -500.0, -1e30, -900.0]]), 3, 0, 4, np.random.default_rng(0))
    assert slates.items[0, 0] == 0 and len(set(slates.items[0].tolist())) == 3
    assert slates.propensities[0, 0] == pytest.approx(1.0) and np.isfinite(slates.log_probs).all()
    assert slates.propensities[0, 1:] == pytest.approx([2 / 3, 2 / 3])  # three alike, at the least probability


@pytest.mark.parametrize("certain", [0, 1])
def test_a_policy_that_has_made_up_its_mind_draws_the_rest_as_before_and_nothing_forbidden(certain: int) -> None:
    logits = torch.tensor([[500.0, 1.0, 0.0, NEVER, NEVER]]).repeat(2_000, 1)
    slates = draw_slates(logits, 2 + certain, certain, 5, np.random.default_rng(1))
    assert (slates.items[:, 0] == 0).all() and (slates.items < 3).all()
    if certain:
        two = draw_slates(logits, 2, certain, 5, np.random.default_rng(1))
        assert (two.items[:, 1] == 1).mean() == pytest.approx(1.0 / (1.0 + math.exp(-1.0)), abs=0.04)
        assert set(np.round(two.propensities[:, 1], 4)) == {0.7311, 0.2689}


@pytest.mark.parametrize("certain", [0, 1, 2, 3])
def test_slates_hold_the_likeliest_and_draw_the_rest_among_the_candidates(certain: int) -> None:
    rng = np.random.default_rng(2)
    logits = torch.tensor([[0.0, 3.0, 1.0, 2.0, -1.0, 2.5, 0.5]]).repeat(6_000, 1)
    slates = draw_slates(logits, 3, certain, 5, rng)
    best = [1, 5, 3, 2, 6]
    assert (slates.items[:, :certain] == best[:certain]).all() and (slates.propensities[:, :certain] == 1.0).all()
    assert set(slates.items.ravel().tolist()) <= set(best)
    p = torch.softmax(logits[0, best], dim=0).double().numpy()[certain:]
    chances = enumerated(p / p.sum(), 3 - certain)[0] if certain < 3 else np.zeros(2)
    for item, chance in zip(best[certain:], chances, strict=True):
        shown = slates.items == item
        assert abs(shown.any(axis=1).mean() - chance) < 0.03
        assert np.allclose(slates.propensities[shown], chance, atol=1e-6)


def test_one_item_of_all_is_drawn_by_its_softmax_and_never_a_forbidden_one() -> None:
    logits = torch.tensor([[1.0, NEVER, 2.0, -60.0, 0.0]])
    draws = 40_000
    slates = draw_slates(logits.expand(draws, 5), 1, 0, 5, np.random.default_rng(0))
    p = torch.softmax(logits.double(), dim=1).numpy()[0]
    counts = np.bincount(slates.items[:, 0], minlength=5)
    assert counts[1] == counts[3] == 0
    np.testing.assert_allclose(counts / draws, p, atol=4 * 0.5 / np.sqrt(draws))
    np.testing.assert_allclose(slates.propensities, p[slates.items], rtol=1e-5)
    np.testing.assert_allclose(slates.log_probs, np.log(p[slates.items[:, 0]]), rtol=1e-5)


def test_the_policy_stores_chances_and_evaluates_the_likeliest() -> None:
    config = ReinforceConfig(hidden_sizes=(8,), certain_slots=1, serving_candidates=5)
    policy, rng = policy_of(config, SLATES, 2), np.random.default_rng(3)
    observation = rng.normal(size=(4, 5)).astype(np.float32)
    explored = policy.act(observation, rng, explore=True, env_steps=0)
    greedy = policy.act(observation, rng, explore=False, env_steps=0)
    with torch.inference_mode():
        order = policy._network(torch.from_numpy(observation)).argsort(dim=1, descending=True).numpy()
    assert greedy.action.tolist() == order[:, :3].tolist() and (greedy.extras["propensity"] == 1.0).all()
    assert explored.action.shape == (4, 3) and (explored.action[:, 0] == order[:, 0]).all()
    assert explored.extras["propensity"].dtype == np.float32 and (explored.extras["propensity"][:, 1:] < 1.0).all()
    names = [field.name for field in config.record_fields(SLATES)]
    assert names == ["propensity", "first_response"]


@pytest.mark.parametrize("name", ["certain_slots", "serving_candidates"])
def test_serving_settings_change_what_is_shown(name: str) -> None:
    shown = []
    for config in (ReinforceConfig(hidden_sizes=(8,)), ReinforceConfig(hidden_sizes=(8,), **{name: 3})):
        rng = np.random.default_rng(4)
        shown.append(
            policy_of(config, SLATES, 2).act(np.zeros((9, 5), np.float32), rng, explore=True, env_steps=0).action
        )
    assert not np.array_equal(*shown)


def test_the_logged_choice_is_what_was_consumed() -> None:
    t = {
        "action": torch.tensor([[4, 2, 5], [0, 1, 2], [3, 4, 5]]),
        "propensity": torch.tensor([[1.0, 0.5, 0.25]] * 3),
        "behaviour_log_prob": torch.zeros(3),
        "first_response": torch.tensor([[0.0, 0, 1], [0, 0, 0], [0, 1, 1]]),
        "first_reward": torch.tensor([0.0, 2.0, 3.0]),
        "reward": torch.ones(3),
    }
    logged = Logged.of(t, slates=True, rewarded_only=False)
    assert logged.a[[0, 2]].tolist() == [5, 4]
    assert logged.behaviour_log_prob[[0, 2]].exp().tolist() == pytest.approx([0.25, 0.5])
    assert logged.counted.tolist() == logged.rewarded.tolist() == [1.0, 0.0, 1.0]
    assert Logged.of(t, slates=True, rewarded_only=True).rewarded.tolist() == [0.0, 0.0, 1.0]
    single = Logged.of({**t, "action": torch.arange(3)}, slates=False, rewarded_only=True)
    assert (single.counted.tolist(), single.rewarded.tolist()) == ([1.0] * 3, [0.0, 1.0, 1.0])


@pytest.mark.parametrize("normalise", [False, True])
def test_records_without_a_reward_teach_the_behaviour_head_and_not_the_policy(normalise: bool) -> None:
    config = ReinforceConfig(
        hidden_sizes=(8,), correction="behaviour_head", rewarded_only=True, baseline=False,
        normalise_advantages=normalise,
    )  # fmt: skip
    spec, columns = spec_of(config, DISCRETE), random_columns(config, DISCRETE, np.random.default_rng(0))
    assert not columns["first_reward"].any()
    learner = config.make_learner(DISCRETE, spec, seed=0, device="cpu")
    before = learner.state_dict()
    before = {name: value.clone() for name, value in before.items()}
    learner.step(batch_of(spec, columns))
    after = learner.state_dict()
    moved = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert "behaviour" in moved and "policy" not in moved


def test_slates_of_which_nothing_was_consumed_teach_values_alone() -> None:
    config = ReinforceConfig(hidden_sizes=(8,), correction="behaviour_head", normalise_advantages=False)
    spec, columns = spec_of(config, SLATES), random_columns(config, SLATES, np.random.default_rng(0))
    columns["first_response"][:] = 0.0
    learner = config.make_learner(SLATES, spec, seed=0, device="cpu")
    before = learner.state_dict()
    learner.step(batch_of(spec, columns))
    after = learner.state_dict()
    moved = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert "value" in moved and not moved & {"policy", "behaviour"}


@pytest.mark.parametrize("whole_episodes", [False, True])
def test_accumulators_keep_a_record_s_first_response_and_reward(whole_episodes: bool) -> None:
    first = FirstStep(reward=True, response=slice(1, 3))
    made = (EpisodeAccumulator(1, 0.5, 2.0, first), NStepAccumulator(1, 3, 0.5, 2.0, first))
    accumulator = made[0] if whole_episodes else made[1]
    accumulator.first(np.zeros((1, 3), np.float32))
    for t in range(3):
        seen = np.array([[0.0, t + 10.0, t + 20.0]], np.float32)
        ended = np.array([t == 2])
        step = TimeStep(seen * 0, seen, np.array([t + 1.0], np.float32), ended, ended & False, np.ones(1, bool))
        columns = accumulator.step(Action(np.zeros(1, np.int64), np.zeros(1, np.float32)), 0, step)
    assert columns["first_reward"].tolist() == [2.0, 4.0, 6.0]
    assert columns["first_response"].tolist() == [[10.0, 20.0], [11.0, 21.0], [12.0, 22.0]]
    assert columns["reward"].tolist() == [2.0 + 2.0 + 1.5, 4.0 + 3.0, 6.0]


class SlateBandit(gymnasium.Env[dict[str, np.ndarray], np.ndarray]):
    """One of three items shown is consumed, in proportion to its appeal; item i pays i. Five steps an episode."""

    observation_space = spaces.Dict(
        {"observation": spaces.Box(-1, 1, (1,)), "response": spaces.MultiBinary(3)}
    )  # fmt: skip
    action_space = spaces.MultiDiscrete([8, 8, 8])

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.step_number = 0
        return self._seen(np.zeros(3, np.int8)), {}

    def step(self, action: np.ndarray) -> Any:
        assert len(set(action.tolist())) == 3
        self.step_number += 1
        response = np.zeros(3, np.int8)
        if self.np_random.random() < 0.8:
            response[self.np_random.integers(3)] = 1
        reward = float(action[response.argmax()]) if response.any() else 0.0
        return self._seen(response), reward, self.step_number == 5, False, {}

    def _seen(self, response: np.ndarray) -> dict[str, np.ndarray]:
        return {"observation": np.ones(1, np.float32), "response": response}


def test_a_whole_run_on_slates_finds_the_best_three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules[__name__]
    monkeypatch.setitem(sys.modules, "slate_bandit", module)
    config = ExperimentConfig(
        runtime="serial",
        environment=EnvironmentConfig(id="slate_bandit:SlateBandit", num_envs=8),
        algorithm=ReinforceConfig(
            gamma=0.9, hidden_sizes=(8,), batch_size=128, learning_rate=0.02, correction="stored", top_k=3,
            reward_scale=0.1, n_step=1, certain_slots=1, serving_candidates=7,
        ),
        replay=ReplayConfig(sampler="queue", priority_exponent=0.0, min_size=1, capacity=256),
        actors=ActorsConfig(count=1, records_per_insert=32),
        learner=LearnerConfig(samples_per_insert=1.0, publish_every_updates=1),
        run=RunConfig(seed=100),
    )  # fmt: skip
    runtime = SerialRuntime(config)
    runtime.start(Origin(None, None, (0,), 0))
    reports = [report.metrics for _ in range(250) for report in runtime.advance().learner if report.metrics]
    assert 0.7 < np.mean([metrics["learnt_share"] for metrics in reports]) < 0.9
    actor = runtime._actors[0]
    best = actor._policy.act(actor._observation, np.random.default_rng(0), explore=False, env_steps=0)
    assert set(best.action[0].tolist()) == {5, 6, 7}
    runtime.stop()


def test_contradictions_with_the_environment_are_refused_with_both_names() -> None:
    def refused(match: str, task: Task = SLATES, **settings: Any) -> None:
        with pytest.raises(ConfigError, match=match):
            ReinforceConfig(**settings).make_policy(task, env_indices=range(1), total_envs=1)

    refused(
        r"reinforce takes a part response \[3\].* has none", msgspec.structs.replace(SLATES, parts=SLATES.parts[:1])
    )
    refused(r"algorithm\.certain_slots is 4.* shows 3 item", certain_slots=4)
    refused(r"algorithm\.certain_slots is 1.* shows 1 item", DISCRETE, certain_slots=1)
    refused(r"algorithm\.serving_candidates is 2.* 3 item.* 6 actions", serving_candidates=2)
    refused(r"algorithm\.serving_candidates is 4.* 1 item.* 3 actions", DISCRETE, serving_candidates=4)


@pytest.mark.parametrize("shape", [(4,), (4, 2)])
def test_candidates_that_change_are_chosen_by_what_they_are(shape: tuple[int, ...]) -> None:
    """The same item at another place has the same probability, and one that is not there none."""
    numbers = math.prod(shape)
    parts = (Part("observation", 0, 2, (2,), False), Part("candidates", 2, 2 + numbers, shape, len(shape) == 1, 9))
    task = Task(
        observation_dtype="float32", observation_shape=(2 + numbers,), actions=DiscreteActions(4), parts=parts
    )  # fmt: skip
    policy = policy_of(ReinforceConfig(hidden_sizes=(8,)), task)
    rng = np.random.default_rng(5)
    items = np.array([7, 0, 9, -1]) if len(shape) == 1 else rng.normal(size=shape)
    order = np.array([2, 3, 0, 1])
    seen = [np.concatenate([[0.3, -0.2], chosen.ravel()]).astype(np.float32) for chosen in (items, items[order])]
    with torch.inference_mode():
        p = policy._network(torch.from_numpy(np.stack(seen))).softmax(dim=1).numpy()
    assert np.allclose(p[0][order], p[1], atol=1e-6) and np.abs(p[0] - 0.25).max() > 0.01
    if len(shape) == 1:
        assert p[0][3] == 0.0
