"""Wolpertinger: from proto-action to item, what is stored, what is learnt, and what re-scoring is good for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from kit.learning import batch_of, every_field_matters, learner_of, own_metrics, policy_of, random_columns, spec_of
from torch import nn

from learners.algorithms.wolpertinger import WolpertingerConfig
from learners.catalogue.catalogue import Catalogue
from learners.catalogue.choice import best_of_nearest
from learners.task import ContinuousActions, DiscreteActions, Part, Task
from replay_server.errors import ConfigError

ITEMS, SIZE = 200, 4
EMBEDDINGS = np.random.default_rng(0).normal(size=(ITEMS, SIZE)).astype(np.float32)
EMBEDDINGS /= np.linalg.norm(EMBEDDINGS, axis=1, keepdims=True)
BY_ID = Task(
    observation_dtype="float32", observation_shape=(SIZE,), actions=DiscreteActions(ITEMS), item_embeddings=EMBEDDINGS
)
BY_VECTOR = msgspec.structs.replace(BY_ID, actions=ContinuousActions((-1.0,) * SIZE, (1.0,) * SIZE))
WITH_HISTORY = msgspec.structs.replace(
    BY_ID,
    observation_shape=(SIZE + 3,),
    parts=(
        Part("history", 0, 3, (3,), True, largest=ITEMS - 1),
        Part("observation", 3, SIZE + 3, (SIZE,), False),
    ),
)
SMALL = {"hidden_sizes": (16,), "random_env_steps": 0, "neighbours": 5}


class Likes(nn.Module):
    """A critic that likes one direction."""

    def __init__(self, direction: list[float]) -> None:
        super().__init__()
        self.direction = torch.tensor(direction)

    def encoder(self, observation: torch.Tensor) -> torch.Tensor:
        return observation

    def first_of_each(self, encoded: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        return actions @ self.direction


def line(count: int = 8) -> Catalogue:
    return Catalogue(np.arange(count, dtype=np.float32)[:, None], distance="euclidean", search="exact")


# From proto-action to item


def test_the_critic_chooses_among_the_nearest_only() -> None:
    observation, proto = torch.zeros(1, 1), torch.tensor([[3.1]])
    for k, likes, expected in (
        (1, 1.0, 3),
        (2, 1.0, 4),
        (3, 1.0, 4),
        (3, -1.0, 2),
        (5, 1.0, 5),
        (8, 1.0, 7),
        (99, -1.0, 0),
    ):
        chosen = best_of_nearest(line().edition, Likes([likes]), observation, proto, k, None)  # type: ignore[arg-type]
        assert chosen.tolist() == [expected], (k, likes)


def test_seen_items_are_left_out_and_made_up_for() -> None:
    observation, proto = torch.zeros(3, 1), torch.full((3, 1), 3.1)
    seen = torch.tensor([[3, 4, -1], [-1, -1, -1], [5, 5, 3]])
    one = best_of_nearest(line().edition, Likes([1.0]), observation, proto, 1, seen)  # type: ignore[arg-type]
    assert one.tolist() == [2, 3, 4]
    three = best_of_nearest(line().edition, Likes([1.0]), observation, proto, 3, seen)  # type: ignore[arg-type]
    assert three.tolist() == [5, 4, 4]  # of {2, 5, 1}, {3, 4, 2} and {4, 2, 1}
    few = best_of_nearest(
        line(4).edition, Likes([1.0]), torch.zeros(1, 1), torch.tensor([[3.1]]), 3, torch.tensor([[3, 2, 1]])
    )  # type: ignore[arg-type]
    assert few.tolist() == [0]


def test_the_observations_history_is_what_was_seen() -> None:
    config = WolpertingerConfig(**SMALL)
    learner = learner_of(config, WITH_HISTORY)
    policy, rng = policy_of(config, WITH_HISTORY, 6, learner=learner), np.random.default_rng(0)
    observation = rng.normal(size=(6, SIZE + 3)).astype(np.float32)
    observation[:, :3] = -1.0
    for _ in range(3):  # each time one more of what it would have chosen is in the history
        chosen = policy.act(observation, rng, explore=False, env_steps=0).action
        assert not (observation[:, :3] == chosen[:, None]).any()
        observation[:, :3] = np.concatenate((observation[:, 1:3], chosen[:, None]), axis=1)
    looked_up = {tuple(row): item for item, row in enumerate(EMBEDDINGS.tolist())}
    t = {"next_observation": torch.from_numpy(observation)}
    for _ in range(3):  # and the learner's targets leave them out alike
        with torch.no_grad():
            targets = [looked_up[tuple(row)] for row in learner._rule.next_item(t).tolist()]
        assert not (observation[:, :3] == np.array(targets)[:, None]).any()
        observation[:, :3] = np.concatenate((observation[:, 1:3], np.array(targets)[:, None]), axis=1)
    free = policy_of(msgspec.structs.replace(config, drop_seen=False), WITH_HISTORY, 6, learner=learner)
    repeated = free.act(observation, rng, explore=False, env_steps=0).action
    observation[:, 2] = repeated
    assert (free.act(observation, rng, explore=False, env_steps=0).action == repeated).any()
    tiny = msgspec.structs.replace(WITH_HISTORY, actions=DiscreteActions(3), item_embeddings=EMBEDDINGS[:3])
    tiny = msgspec.structs.replace(tiny, parts=(msgspec.structs.replace(tiny.parts[0], largest=2), tiny.parts[1]))
    with pytest.raises(ConfigError, match="may hold all 3 items"):
        learner_of(config, tiny)


@pytest.mark.parametrize("drop_seen", [True, False])
def test_drop_seen_is_refused_where_nothing_says_what_was_seen(drop_seen: bool) -> None:
    config = WolpertingerConfig(**SMALL, drop_seen=drop_seen)
    features = msgspec.structs.replace(
        WITH_HISTORY, parts=(Part("history", 0, 3, (1, 3), False), WITH_HISTORY.parts[1])
    )
    for task in (BY_ID, features):
        with pytest.raises(ConfigError, match=f"algorithm.drop_seen is {str(drop_seen).lower()}, but .* no history of"):
            learner_of(config, task)
        with pytest.raises(ConfigError, match="drop_seen"):
            config.make_policy(task, env_indices=range(1), total_envs=1)


def test_the_run_begins_with_unseen_items_each_as_likely() -> None:
    config = WolpertingerConfig(hidden_sizes=(8,), random_env_steps=10)
    task = msgspec.structs.replace(
        WITH_HISTORY, actions=DiscreteActions(5), item_embeddings=EMBEDDINGS[:5],
        parts=(Part("history", 0, 3, (3,), True, largest=4), WITH_HISTORY.parts[1]),
    )  # fmt: skip
    policy = config.make_policy(task, env_indices=range(6000), total_envs=6000)
    observation = np.zeros((6000, SIZE + 3), np.float32)
    observation[:, :3] = [1, 4, 1]
    drawn = policy.act(observation, np.random.default_rng(1), explore=True, env_steps=9)
    assert np.abs(np.bincount(drawn.action, minlength=5) / 6000 - np.array([1, 0, 1, 1, 0]) / 3).max() < 0.03
    assert np.allclose(drawn.log_prob, -np.log(3.0))


# What is stored


@pytest.mark.parametrize("task", [BY_ID, BY_VECTOR], ids=["by id", "by vector"])
@pytest.mark.parametrize("explore", [False, True])
def test_a_record_holds_item_embedding_and_version(task: Task, explore: bool) -> None:
    config = WolpertingerConfig(**SMALL)
    policy = policy_of(config, task, 7, learner=learner_of(config, task))
    rng = np.random.default_rng(2)
    action = policy.act(rng.normal(size=(7, SIZE)).astype(np.float32), rng, explore=explore, env_steps=1)
    by_id = task is BY_ID
    ids, embeddings = (
        (action.action, action.extras["item_embedding"]) if by_id else (action.extras["item_id"], action.action)
    )
    assert np.array_equal(embeddings, EMBEDDINGS[ids]) and embeddings.dtype == np.float32 and ids.dtype == np.int64
    assert action.extras["embedding_version"].tolist() == [0] * 7
    stored = {field.name: (field.dtype, field.shape) for field in config.record_fields(task)}
    assert stored.keys() == action.extras.keys()
    for name, (dtype, shape) in stored.items():
        assert action.extras[name].dtype == dtype and action.extras[name].shape == (7, *shape)
    policy.catalogue.reindex(EMBEDDINGS[::-1], version=3)
    later = policy.act(np.zeros((7, SIZE), np.float32), rng, explore=explore, env_steps=1)
    assert later.extras["embedding_version"].tolist() == [3] * 7
    ids, embeddings = (
        (later.action, later.extras["item_embedding"]) if by_id else (later.extras["item_id"], later.action)
    )
    assert np.array_equal(embeddings, EMBEDDINGS[::-1][ids])


def columns_of(config: Any, task: Task, seed: int, size: int = 16) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    columns = random_columns(config, task, rng, size)
    ids = rng.integers(0, ITEMS, size)
    columns["action"], columns["item_embedding"] = ids, EMBEDDINGS[ids]
    return columns


def test_stale_embeddings_are_counted() -> None:
    config = WolpertingerConfig(**SMALL, diagnose_every_updates=1)
    learner, columns = learner_of(config, BY_ID), columns_of(config, BY_ID, 0)
    learner.step(batch_of(spec_of(config, BY_ID), columns))
    metrics = learner.take_metrics()
    defined = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    assert all(f"`{name}`" in defined for name in own_metrics(metrics))
    assert metrics["stale_embeddings"] == 0.0 and metrics["proto_distance"] > 0.0
    learner._rule.catalogue.reindex(EMBEDDINGS, version=2)
    columns["embedding_version"][:4] = 2
    learner.step(batch_of(spec_of(config, BY_ID), columns))
    assert learner.take_metrics()["stale_embeddings"] == 0.75


# What is learnt


def test_critics_learn_on_the_executed_embedding_and_the_target_goes_the_whole_way() -> None:
    config = WolpertingerConfig(**SMALL, smoothing_sigma=0.0, learning_rate=0.1)
    learner, columns = learner_of(config, BY_ID), columns_of(config, BY_ID, 1)
    for seed in range(2, 5):  # so that target and online networks differ
        learner.step(batch_of(spec_of(config, BY_ID), columns_of(config, BY_ID, seed)))
    rule, t = learner._rule, {name: torch.from_numpy(column) for name, column in columns.items()}
    with torch.no_grad():
        s = t["next_observation"]
        proto = rule.target_actor(s)
        near = torch.cdist(proto, torch.from_numpy(EMBEDDINGS)).argsort(dim=1)[:, :5]
        scores = torch.stack([rule.target_critics.first(s, torch.from_numpy(EMBEDDINGS)[near[:, i]]) for i in range(5)])
        chosen = torch.from_numpy(EMBEDDINGS)[near.gather(1, scores.argmax(dim=0)[:, None]).squeeze(1)]
        target = t["reward"] + t["discount"] * rule.target_critics(s, chosen).amin(dim=0)
        errors = (target - rule.critics(t["observation"], torch.from_numpy(EMBEDDINGS)[t["action"]])).abs().mean(dim=0)
    priorities = learner.step(batch_of(spec_of(config, BY_ID), columns)).priorities
    assert np.allclose(priorities, errors.numpy() + config.priority_epsilon, atol=1e-5)


def test_proto_actions_have_the_length_of_the_catalogue_and_gradients_through_it() -> None:
    doubled = msgspec.structs.replace(BY_ID, item_embeddings=2.0 * EMBEDDINGS)
    rule = learner_of(WolpertingerConfig(**SMALL, unit_proto=True), doubled)._rule
    observation = torch.randn(5, SIZE, generator=torch.Generator().manual_seed(0))
    proto = rule.actor(observation)
    assert torch.allclose(proto.norm(dim=1), torch.full((5,), 2.0), atol=1e-5)
    assert torch.allclose(rule.actor.unit(observation), rule.actor.bounds.to_unit(proto), atol=1e-5)
    before = rule.critics.first(observation, proto).mean()
    for _ in range(5):
        rule.improve_actor(observation, torch.ones(5), diagnose=False)
    assert rule.critics.first(observation, rule.actor(observation)).mean() > before


def test_every_field_matters() -> None:
    base = WolpertingerConfig(**SMALL, unit_proto=True)
    changes = {
        "critics": 1, "neighbours": 1, "distance": "chebyshev", "unit_proto": False,
        "actor_period_updates": 1, "smoothing_sigma": 0.6, "smoothing_clip": (0.01, {"smoothing_sigma": 0.5}),
    }  # fmt: skip
    tested_elsewhere = {
        "actor_learning_rate", "target_update_tau", "final_layer_bound", "critic_products", "final_learning_rate",
        "learning_rate_decay_env_steps", "final_importance_beta", "importance_beta_env_steps",
        "sigma_low", "sigma_high", "random_env_steps", "noise", "ou_theta", "search", "drop_seen",
    }  # fmt: skip
    every_field_matters(base, WITH_HISTORY, changes, elsewhere=tested_elsewhere)


def user_columns(config: Any, rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
    """Users who stay as they are and reward what points their way: Q*(u, e) = u . e + max over items, discount 1/2."""
    columns = random_columns(config, BY_ID, rng, size)
    users = rng.normal(size=(size, SIZE)).astype(np.float32)
    users /= np.linalg.norm(users, axis=1, keepdims=True)
    ids = rng.integers(0, ITEMS, size)
    return {
        **columns,
        "observation": users, "next_observation": users,
        "action": ids, "item_embedding": EMBEDDINGS[ids],
        "reward": (users * EMBEDDINGS[ids]).sum(axis=1) + rng.normal(0.0, 0.1, size).astype(np.float32),
        "discount": np.full(size, 0.5, np.float32),
    }  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [{"unit_proto": True}, {"critics": 1, "actor_period_updates": 1, "smoothing_sigma": 0.0}],
    ids=["TD3 on the sphere", "DDPG in the box"],
)
def test_it_learns_and_rescoring_mends_a_noisy_actor(changes: dict[str, Any]) -> None:
    config = WolpertingerConfig(
        hidden_sizes=(64, 64), neighbours=20, random_env_steps=0, sigma_low=0.5, sigma_high=0.5,
        target_update_tau=0.05, learning_rate=3e-3, **changes,
    )  # fmt: skip
    learner, rng = learner_of(config, BY_ID), np.random.default_rng(1)
    for _ in range(250):
        learner.step(batch_of(spec_of(config, BY_ID), user_columns(config, rng, 64)))
    users = user_columns(config, rng, 300)["observation"]
    values = users @ EMBEDDINGS.T
    best, reward = values.max(axis=1).mean(), {}
    for k, explore in ((20, False), (1, True), (20, True)):
        policy = policy_of(msgspec.structs.replace(config, neighbours=k), BY_ID, 300, learner=learner)
        ids = policy.act(users, np.random.default_rng(2), explore=explore, env_steps=0).action
        reward[k, explore] = values[np.arange(300), ids].mean()
    assert reward[20, False] > 0.9 * best
    assert reward[1, True] + 0.1 * best < reward[20, True] < best


# Refusals


def test_what_cannot_work_is_refused() -> None:
    config = WolpertingerConfig(**SMALL)
    without = msgspec.structs.replace(BY_ID, item_embeddings=None)
    other = msgspec.structs.replace(BY_ID, actions=DiscreteActions(ITEMS + 1))
    narrow = msgspec.structs.replace(BY_VECTOR, actions=ContinuousActions((-1.0,), (1.0,)))
    offered = msgspec.structs.replace(BY_ID, parts=(Part("candidates", 0, SIZE, (SIZE,), True),))
    masked = msgspec.structs.replace(BY_ID, parts=(Part("action_mask", 0, SIZE, (SIZE,), True, 1),))
    for task, match in (
        (without, "gives no item embeddings"),
        (other, r"takes Discrete\(200\) or a Box of 4 numbers"),
        (narrow, r"takes Discrete\(200\) or a Box of 4 numbers"),
        (offered, "with candidates use dqn"),
        (masked, "with an action_mask use dqn"),
    ):
        with pytest.raises(ConfigError, match=match):
            config.record_fields(task)
            config.make_policy(task, env_indices=range(1), total_envs=1)
