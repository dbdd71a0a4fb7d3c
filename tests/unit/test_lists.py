"""Values of items shown as a list: losses against a loop over pairs, and the policy's chances."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from kit.learning import batch_of, learner_of, policy_of, random_columns, spec_of

from learners.algorithms.c51 import C51Config
from learners.algorithms.dqn import DQNConfig
from learners.algorithms.qr_dqn import QRDQNConfig
from learners.losses.lists import best_items, list_losses
from learners.task import Part, SlateActions, Task

ITEMS, SLOTS = 5, 3
PLAIN = Task(observation_dtype="float32", observation_shape=(4,), actions=SlateActions(ITEMS, SLOTS))
MASKED = Task(
    observation_dtype="float32",
    observation_shape=(4 + ITEMS,),
    actions=SlateActions(ITEMS, SLOTS),
    parts=(Part("observation", 0, 4, (4,), False), Part("action_mask", 4, 4 + ITEMS, (ITEMS,), True, 1)),
)
CONFIGS: list[Any] = [
    DQNConfig(target_update_tau=0.1, hidden_sizes=(8,)),
    DQNConfig(target_update_tau=0.1, hidden_sizes=(8,), loss="mse"),
    C51Config(target_update_tau=0.1, hidden_sizes=(8,)),
    QRDQNConfig(target_update_tau=0.1, hidden_sizes=(8,)),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: f"{config.type} {getattr(config, 'loss', '')}")
@pytest.mark.parametrize("slots", [1, 3])
def test_losses_are_means_over_pairs_of_items(config: Any, slots: int) -> None:
    rng, returns = torch.Generator().manual_seed(0), config.make_return_model()
    outputs, following = torch.randn(2, 7, ITEMS, returns.size, generator=rng)
    selector, order = torch.randn(7, ITEMS, generator=rng), torch.rand(7, ITEMS, generator=rng)
    lists = order.argsort(dim=1)[:, :slots]
    r, discount = torch.randn(7, generator=rng), torch.rand(7, generator=rng)
    losses, errors = list_losses(returns, outputs, lists, r, discount, following, selector)
    best = selector.argsort(dim=1, descending=True)[:, :slots]
    for row in range(7):
        pairs = []
        for shown in lists[row]:
            for next_shown in best[row]:
                one_hot = torch.nn.functional.one_hot(next_shown, ITEMS).float()[None]
                one = slice(row, row + 1)
                arguments = outputs[one], shown[None], r[one], discount[one], following[one], one_hot
                pairs.append(torch.stack(returns.loss(*arguments)))
        expected = torch.stack(pairs).mean(dim=0)[:, 0]
        torch.testing.assert_close(torch.stack([losses[row], errors[row]]), expected)


def test_best_items_are_in_order_and_the_first_stands_in_for_those_missing() -> None:
    q = torch.tensor([[0.0, 3.0, 1.0, 2.0], [-math.inf, 5.0, -math.inf, 6.0]])
    assert best_items(q, 3).tolist() == [[1, 3, 2], [3, 1, 3]]
    assert best_items(q, 1).tolist() == [[1], [3]]


@pytest.mark.parametrize("config", CONFIGS[::2], ids=lambda config: config.type)
def test_priorities_are_the_same_whoever_computes_them(config: Any) -> None:
    config = msgspec.structs.replace(config, double=False)
    learner = learner_of(config, PLAIN)
    columns = random_columns(config, PLAIN, np.random.default_rng(2))
    by_actor = policy_of(config, PLAIN, learner=learner).initial_priorities(columns)
    by_learner = learner.step(batch_of(spec_of(config, PLAIN), columns)).priorities
    np.testing.assert_allclose(by_actor, by_learner, atol=1e-5)


def test_the_value_of_an_item_is_the_return_of_lists_that_show_it() -> None:
    """Lists pay the sum of what their items pay, at once; they are random, so that an item adds to a mean."""
    config = DQNConfig(target_update_tau=1.0, hidden_sizes=(16,), learning_rate=0.01, dueling=False, loss="mse")
    learner, rng, pays = learner_of(config, PLAIN), np.random.default_rng(0), np.array([0.0, 0.2, 0.4, 0.8, 1.0])
    for _ in range(500):
        columns = random_columns(config, PLAIN, rng, 64)
        columns["observation"][:], columns["discount"][:] = 1.0, 0.0
        columns["action"] = rng.random((64, ITEMS)).argsort(axis=1)[:, :SLOTS]
        columns["reward"] = pays[columns["action"]].sum(axis=1).astype(np.float32)
        learner.step(batch_of(spec_of(config, PLAIN), columns))
    policy = policy_of(config, PLAIN, learner=learner)
    with torch.inference_mode():
        q = policy._network(torch.ones(1, 4))[0].numpy()
    others = [(pays.sum() - own) / (ITEMS - 1) * (SLOTS - 1) for own in pays]
    np.testing.assert_allclose(q, pays + others, atol=0.12)
    chosen = policy.act(np.ones((1, 4), np.float32), rng, explore=False, env_steps=0)
    assert chosen.action.tolist() == [[4, 3, 2]]


@pytest.mark.parametrize("exploration", ["epsilon", "boltzmann"])
@pytest.mark.parametrize("task", [PLAIN, MASKED], ids=["all", "masked"])
def test_lists_are_shown_as_often_as_their_log_probability_says(exploration: Any, task: Task) -> None:
    settings: dict[str, Any] = (
        {"epsilon_base": 0.5, "epsilon_anneal_env_steps": 0} if exploration == "epsilon" else {"temperature": 0.3}
    )
    config = DQNConfig(target_update_tau=0.1, hidden_sizes=(8,), exploration=exploration, **settings)
    envs = 5000
    policy = config.make_policy(task, env_indices=[0] * envs, total_envs=1)
    policy.load(learner_of(config, task).snapshot())
    observation = np.ones((envs, *task.observation_shape), np.float32)
    if task is MASKED:
        observation[:, 6] = 0.0  # item 2 is not on offer
    rng = np.random.default_rng(0)
    counts: Counter[tuple[int, ...]] = Counter()
    chances: dict[tuple[int, ...], float] = {}
    for _ in range(4):
        chosen = policy.act(observation, rng, explore=True, env_steps=10)
        for shown, log_prob in zip(map(tuple, chosen.action.tolist()), chosen.log_prob, strict=True):
            counts[shown] += 1
            chances[shown] = math.exp(log_prob)
    on_offer = ITEMS - (task is MASKED)
    assert len(counts) == math.perm(on_offer, SLOTS)
    assert sum(chances.values()) == pytest.approx(1.0, abs=1e-4)
    chi = sum((counts[shown] - 20_000 * p) ** 2 / (20_000 * p) for shown, p in chances.items())
    assert chi < (99.6 if task is PLAIN else 49.7)  # 59 or 23 degrees, 0.1 %
    assert all(len(set(shown)) == SLOTS and (task is PLAIN or 2 not in shown) for shown in counts)
    greedy = policy.act(observation[:1], rng, explore=False, env_steps=10).action[0].tolist()
    with torch.inference_mode():
        q = policy._network(torch.from_numpy(observation[:1]))[0].numpy()
    if task is MASKED:
        q[2] = -np.inf
    assert greedy == np.argsort(-q)[:SLOTS].tolist()
    assert exploration == "boltzmann" or counts.most_common(1)[0][0] == tuple(greedy)


def test_where_too_few_are_on_offer_the_others_fill_the_list() -> None:
    config = DQNConfig(target_update_tau=0.1, hidden_sizes=(8,), epsilon_anneal_env_steps=0)
    observation = np.zeros((2, 4 + ITEMS), np.float32)
    observation[:, 5] = 1.0
    policy = policy_of(config, MASKED, envs=2)
    for explore in (False, True):
        lists = policy.act(observation, np.random.default_rng(0), explore=explore, env_steps=0).action
        assert lists[:, 0].tolist() == [1, 1] and all(len(set(shown)) == SLOTS for shown in lists.tolist())
