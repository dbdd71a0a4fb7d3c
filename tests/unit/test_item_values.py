"""Action masks, candidate sets and item embeddings: who is chosen, what is learnt, against the obvious way."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from kit.devices import update_without_values
from kit.learning import batch_of, policy_of, random_columns, spec_of

from learners.algorithm import seeded
from learners.algorithms.c51 import C51Config
from learners.algorithms.dqn import DQNConfig
from learners.algorithms.qr_dqn import QRDQNConfig
from learners.networks.heads import ActionHead, EmbeddingDotHead, EmbeddingMLPHead
from learners.networks.offers import Offers
from learners.task import DiscreteActions, Part, Task
from replay_server.errors import ConfigError

ACTIONS, STATE, LAST = 4, 3, 8
EMBEDDINGS = np.random.default_rng(7).normal(size=(9, 5)).astype(np.float32)


def task_of(embeddings: Any = None, actions: int = ACTIONS, **parts: tuple[tuple[int, ...], bool]) -> Task:
    """A packed observation: `observation` [3] and further parts, name -> (shape, integer)."""
    laid, start = [], 0
    for name, (shape, integer) in {"observation": ((STATE,), False), **parts}.items():
        stop = start + int(np.prod(shape))
        laid.append(Part(name, start, stop, shape, integer, largest=LAST if name == "candidates" else 0))
        start = stop
    return Task(
        observation_dtype="float32", observation_shape=(start,), actions=DiscreteActions(actions),
        parts=tuple(laid), item_embeddings=embeddings,
    )  # fmt: skip


MASKED = task_of(action_mask=((ACTIONS,), True))
IDS = task_of(EMBEDDINGS, candidates=((ACTIONS,), True))
FEATURES = task_of(candidates=((ACTIONS, 2), False), action_mask=((ACTIONS,), True))
CATALOGUE = task_of(EMBEDDINGS, actions=9)
ALGORITHMS = [
    DQNConfig(target_update_tau=0.1, hidden_sizes=(8,)),
    C51Config(target_update_tau=0.1, hidden_sizes=(8,), atoms=11),
    QRDQNConfig(target_update_tau=0.1, hidden_sizes=(8,), quantiles=5),
]


def seen(masks: list[list[float]]) -> np.ndarray:
    states = np.random.default_rng(0).normal(size=(len(masks), STATE))
    return np.concatenate([states, np.array(masks)], axis=1).astype(np.float32)


@pytest.mark.parametrize("config", ALGORITHMS, ids=lambda c: c.type)
@pytest.mark.parametrize("exploration", ["epsilon", "boltzmann"])
def test_forbidden_actions_are_never_taken_and_probabilities_are_of_the_allowed(config: Any, exploration: str) -> None:
    epsilons = {"epsilon_base": 0.6, "epsilon_alpha": 0.0, "epsilon_anneal_env_steps": 0}
    settings = epsilons if exploration == "epsilon" else {"temperature": 0.5}
    config = msgspec.structs.replace(config, exploration=exploration, **settings)
    times = 2000
    observation = np.tile(seen([[1, 0, 1, 1], [0, 0, 0, 1], [1, 1, 1, 1], [0, 1, 1, 0]]), (times, 1))
    policy, rng = policy_of(config, MASKED, len(observation)), np.random.default_rng(1)
    with torch.inference_mode():
        q = policy._network(torch.from_numpy(observation)).numpy()
    allowed = observation[:, STATE:] == 1.0
    q[~allowed] = -np.inf
    rows = np.arange(len(q))
    if exploration == "epsilon":
        expected = 0.6 * allowed / allowed.sum(axis=1, keepdims=True)
        expected[rows, q.argmax(axis=1)] += 0.4
    else:
        expected = np.exp(q / 0.5) / np.exp(q / 0.5).sum(axis=1, keepdims=True)
    drawn = policy.act(observation, rng, explore=True, env_steps=5)
    assert np.allclose(np.exp(drawn.log_prob), expected[rows, drawn.action], rtol=1e-4)
    counts = np.zeros((4, ACTIONS))
    np.add.at(counts, (rows % 4, drawn.action), 1.0)
    assert np.abs(counts / times - expected[:4]).max() < 0.05
    assert counts[~allowed[:4]].sum() == 0
    greedy = policy.act(observation, rng, explore=False, env_steps=5)
    assert greedy.action.tolist() == q.argmax(axis=1).tolist() and not greedy.log_prob.any()


def test_evaluation_draws_when_asked_to() -> None:
    config = DQNConfig(
        target_update_tau=0.1, exploration="boltzmann", temperature=1e3, evaluation_actions="sampled", hidden_sizes=(8,)
    )
    policy, rng = policy_of(config, MASKED, 1), np.random.default_rng(0)
    actions = {int(policy.act(seen([[1, 1, 0, 1]]), rng, explore=False, env_steps=0).action[0]) for _ in range(60)}
    assert actions == {0, 1, 3}


@pytest.mark.parametrize("double", [False, True])
def test_a_target_never_comes_from_a_forbidden_action(double: bool) -> None:
    """The best action of the successor is forbidden; by hand: the best of the others, evaluated by the target net."""
    config = DQNConfig(
        target_update_tau=1e-9, double=double, dueling=False, hidden_sizes=(8,), priority_epsilon=1e-9,
        diagnose_every_updates=1,
    )  # fmt: skip
    learner = config.make_learner(MASKED, spec_of(config, MASKED), seed=0, device="cpu")
    online, target = learner._rule.online, learner._rule.target
    with torch.no_grad():
        for network, biases in ((online, [1.0, 5.0, 2.0, 3.0]), (target, [0.0, 9.0, 7.0, 6.0])):
            network.head.linear.weight.zero_()
            network.head.linear.bias.copy_(torch.tensor(biases))
    columns = random_columns(config, MASKED, np.random.default_rng(0), 4)
    columns["next_observation"] = seen([[1, 0, 1, 1], [1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]])
    columns["observation"] = seen([[1, 0, 1, 0]] * 4)
    columns["action"][:], columns["reward"][:], columns["discount"][:] = 2, 1.0, [0.5, 0.5, 0.5, 0.0]
    bootstrap = [6.0, 9.0, 0.0, 0.0] if double else [7.0, 9.0, 0.0, 0.0]
    expected = np.abs(1.0 + 0.5 * np.array(bootstrap) - 2.0)
    policy = config.make_policy(MASKED, env_indices=range(1), total_envs=1)
    policy.load(learner.snapshot())
    by_actor = policy.initial_priorities(columns)  # with online values alone: the successor's best are 3, 5, 1, none
    assert by_actor == pytest.approx(np.abs(1.0 + 0.5 * np.array([3.0, 5.0, 1.0, 0.0]) - 2.0), rel=1e-5)
    assert learner.step(batch_of(spec_of(config, MASKED), columns)).priorities == pytest.approx(expected, rel=1e-5)
    assert learner.take_metrics()["greedy_share"] == 1.0  # 2 is the best of those allowed


@pytest.mark.parametrize("config", ALGORITHMS, ids=lambda c: c.type)
def test_a_terminal_state_that_allows_nothing_makes_no_nan(config: Any) -> None:
    config = msgspec.structs.replace(config, diagnose_every_updates=1)
    spec = spec_of(config, MASKED)
    columns = random_columns(config, MASKED, np.random.default_rng(0), 6)
    columns["observation"] = seen([[1, 0, 1, 1]] * 6)
    columns["action"][:] = 2
    columns["next_observation"], columns["discount"][:] = seen([[0, 0, 0, 0]] * 6), 0.0
    learner = config.make_learner(MASKED, spec, seed=0, device="cpu")
    for _ in range(3):
        assert np.isfinite(learner.step(batch_of(spec, columns)).priorities).all()
    assert all(np.isfinite(value) for value in learner.take_metrics().values())
    assert all(torch.isfinite(value).all() for value in learner.state_dict().values())
    assert np.isfinite(policy_of(config, MASKED, 6).initial_priorities(columns)).all()


def test_dueling_centres_advantages_over_the_allowed_actions() -> None:
    config = DQNConfig(target_update_tau=0.1, hidden_sizes=(8,))
    network = config.make_network(MASKED, seeded(0))
    with torch.no_grad():
        network.head.linear.weight.zero_()
        network.head.linear.bias.copy_(torch.tensor([10.0, 1.0, 2.0, 6.0, 100.0]))
        q = network(torch.from_numpy(seen([[1, 1, 1, 0], [1, 1, 1, 1]])))
    assert q[0, :3].tolist() == pytest.approx([8.0, 9.0, 13.0])
    assert q[1, :3].tolist() == pytest.approx([10 + 1 - 27.25, 10 + 2 - 27.25, 10 + 6 - 27.25])


@pytest.mark.parametrize("actions", [5, 80])
def test_dueling_is_the_same_with_a_mask_that_allows_everything(actions: int) -> None:
    head = ActionHead(6, actions, 3, True, seeded(0))
    features = torch.randn(7, 6, generator=seeded(1))
    plain = head(features, features, None)
    masked = head(features, features, torch.ones(7, actions, dtype=torch.bool))
    assert plain.shape == (7, actions, 3) and torch.allclose(plain, masked, atol=1e-5)
    raw = head.linear(features).view(7, actions + 1, 3)
    assert torch.allclose(plain.mean(dim=1), raw[:, 0], atol=1e-5)
    assert torch.allclose(plain[:, 2] - plain[:, 0], raw[:, 3] - raw[:, 1], atol=1e-5)


def head_inputs(task: Task, observation: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    features = torch.from_numpy(np.random.default_rng(2).normal(size=(len(observation), 6)).astype(np.float32))
    return features, torch.from_numpy(observation)


CANDIDATES = [[3, 8, -1, 0], [8, -1, -1, 2]]


def obvious_items(task: Task, observation: np.ndarray, embeddings: np.ndarray) -> np.ndarray:
    """[B, A, d], by a loop; zeros where there is no candidate."""
    if task.part("candidates") is None:
        return np.broadcast_to(embeddings, (len(observation), *embeddings.shape))
    items = np.zeros((len(observation), ACTIONS, embeddings.shape[1]), np.float32)
    for row, ids in enumerate(observation[:, STATE:].astype(int)):
        for place, item in enumerate(ids):
            items[row, place] = embeddings[item] if item >= 0 else 0.0
    return items


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("task", [IDS, CATALOGUE], ids=["candidates", "catalogue"])
def test_dot_products_are_those_of_the_offered_items(task: Task, normalise: bool) -> None:
    config = DQNConfig(
        target_update_tau=0.1, hidden_sizes=(6,), action_values="embedding_dot", normalise_embeddings=normalise,
        dueling=False,
    )  # fmt: skip
    observation = seen(CANDIDATES if task is IDS else [[], []])
    head = config.make_network(task, seeded(0)).head
    assert isinstance(head, EmbeddingDotHead)
    with torch.no_grad():
        head.bias.copy_(torch.arange(9.0).view(9, 1))
        if head.scale is not None:
            head.scale.fill_(3.0)
        features, tensor = head_inputs(task, observation)
        outputs = head(features, tensor, None)[..., 0].numpy()
        query = head.query(features).numpy()
    items = obvious_items(task, observation, EMBEDDINGS)
    for row in range(2):
        for place in range(outputs.shape[1]):
            item = int(observation[row, STATE + place]) if task is IDS else place
            if item < 0:
                continue
            product = float(query[row] @ items[row, place])
            if normalise:
                product *= 3.0 / (np.linalg.norm(query[row]) * np.linalg.norm(items[row, place]))
            assert outputs[row, place] == pytest.approx(product + item, rel=1e-4)


@pytest.mark.parametrize("task", [IDS, CATALOGUE], ids=["candidates", "catalogue"])
@pytest.mark.parametrize("rows", [2, 12])
def test_mlp_values_are_those_of_the_concatenated_inputs(task: Task, rows: int) -> None:
    config = DQNConfig(target_update_tau=0.1, hidden_sizes=(6,), action_values="embedding_mlp", dueling=False)
    observation = seen((CANDIDATES if task is IDS else [[], []]) * (rows // 2))
    head = config.make_network(task, seeded(0)).head
    assert isinstance(head, EmbeddingMLPHead)
    items = torch.from_numpy(np.array(obvious_items(task, observation, EMBEDDINGS)))
    with torch.no_grad():
        features, tensor = head_inputs(task, observation)
        outputs = head(features, tensor, None)
        inputs = torch.cat([features.unsqueeze(1).expand(-1, items.shape[1], -1), items], dim=2)
        weight = torch.cat([head.of_state.weight, head.of_item.weight], dim=1)
        hidden = torch.relu(inputs @ weight.T + head.of_state.bias + head.of_item.bias)
        expected = head.last(hidden)
    offered = Offers(task, task.discrete("dqn").count).allowed(tensor)
    offered = torch.ones(expected.shape[:2], dtype=torch.bool) if offered is None else offered
    assert torch.allclose(outputs[offered], expected[offered], atol=1e-5)


@pytest.mark.parametrize("config", ALGORITHMS, ids=lambda c: c.type)
@pytest.mark.parametrize("form", ["embedding_mlp", "embedding_dot"])
@pytest.mark.parametrize(
    ("task", "learnt"), [(IDS, False), (IDS, True), (FEATURES, False)], ids=["fixed", "learnt", "features"]
)
def test_the_best_candidate_is_learnt_wherever_it_stands(config: Any, form: Any, task: Task, learnt: bool) -> None:
    """A bandit: the reward is a linear function of the item's embedding; candidates change from record to record."""
    config = msgspec.structs.replace(
        config, action_values=form, item_embedding="learnt" if learnt else "fixed", learning_rate=1e-2,
        hidden_sizes=(16,), dueling=form == "embedding_mlp",
    )  # fmt: skip
    rng, spec = np.random.default_rng(0), spec_of(config, task)
    learner = config.make_learner(task, spec, seed=0, device="cpu")
    taste = {5: np.array([1.0, -1.0, 0.5, 0.0, 0.3]), 2: np.array([1.0, -0.7])}

    def draw(size: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        columns = random_columns(config, task, rng, size)
        for name in ("observation", "next_observation"):
            if task is IDS:
                columns[name][:, STATE:] = np.argsort(rng.random((size, 9)), axis=1)[:, :ACTIONS]
                columns[name][np.arange(size), STATE + rng.integers(0, ACTIONS, size)] = -1.0
            else:
                columns[name][:, STATE + 2 * ACTIONS :] = 1.0
        worth = obvious_items(task, columns["observation"], EMBEDDINGS) if task is IDS else None
        if worth is None:
            worth = columns["observation"][:, STATE : STATE + 2 * ACTIONS].reshape(size, ACTIONS, 2)
        values = worth @ taste[worth.shape[2]]
        if task is IDS:
            values[columns["observation"][:, STATE:] < 0] = -np.inf
        chances = np.where(np.isfinite(values), rng.random(values.shape), -1.0)
        columns["action"] = chances.argmax(axis=1)
        columns["reward"] = values[np.arange(size), columns["action"]].astype(np.float32)
        columns["discount"][:] = 0.0
        return columns, values

    for _ in range(150):
        learner.step(batch_of(spec, draw(64)[0]))
    policy = config.make_policy(task, env_indices=range(1), total_envs=1)
    policy.load(learner.snapshot())
    columns, values = draw(200)
    action = policy.act(columns["observation"], rng, explore=False, env_steps=0).action
    assert (values.max(axis=1) - values[np.arange(200), action]).mean() < 0.15
    table = [name for name in learner.state_dict() if name == "online.head.items.table"]
    assert len(table) == learnt


@pytest.mark.parametrize(
    ("task", "form"),
    [
        (MASKED, "heads"),
        *itertools.product((IDS, FEATURES), ("embedding_mlp", "embedding_dot")),
    ],
)
def test_nothing_in_an_update_looks_at_values(task: Task, form: Any) -> None:
    update_without_values(msgspec.structs.replace(ALGORITHMS[0], action_values=form), task)


def test_a_learnt_table_holds_every_item_and_starts_from_what_is_known() -> None:
    config = DQNConfig(target_update_tau=0.1, action_values="embedding_dot", item_embedding="learnt", embedding_size=7)
    candidates = {"candidates": ((ACTIONS,), True)}
    assert config.make_network(task_of(**candidates), seeded(0)).head.items.table.shape == (LAST + 1, 7)
    assert config.make_network(task_of(), seeded(0)).head.items.table.shape == (ACTIONS, 7)
    table = config.make_network(IDS, seeded(0)).head.items.table
    assert table.requires_grad and np.array_equal(table.detach().numpy(), EMBEDDINGS)
    fixed = msgspec.structs.replace(config, item_embedding="fixed").make_network(IDS, seeded(0)).head.items
    assert not fixed.table.requires_grad and "table" not in fixed.state_dict()


@pytest.mark.parametrize(
    ("task", "settings", "message"),
    [
        (IDS, {}, "action_values: heads .* take embedding_mlp or embedding_dot"),
        (MASKED, {"action_values": "embedding_dot"}, "item_embedding: fixed needs .* take learnt"),
        (task_of(EMBEDDINGS), {"action_values": "embedding_dot"}, "9 item embeddings, but 4 actions"),
        (FEATURES, {"action_values": "embedding_mlp", "item_embedding": "learnt"}, "learnt needs candidate ids"),
        (task_of(action_mask=((3,), True)), {}, r"action_mask has shape \[3\], the actions are 4"),
        (
            task_of(EMBEDDINGS[:5], candidates=((4,), True)),
            {"action_values": "embedding_dot"},
            "up to 8, but there are 5",
        ),
        (task_of(EMBEDDINGS, candidates=((3,), True)), {"action_values": "embedding_dot"}, "3 candidates, but 4"),
    ],
)
def test_what_does_not_fit_together_is_refused(task: Task, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DQNConfig(target_update_tau=0.1, **settings).make_network(task, seeded(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluation_actions": "sampled"}, "evaluation_actions sampled needs exploration boltzmann"),
        ({"normalise_embeddings": True}, "normalise_embeddings needs action_values embedding_dot"),
        ({"item_embedding": "learnt"}, "item_embedding learnt needs action_values"),
    ],
)
def test_contradictions_are_refused_with_both_names(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DQNConfig(target_update_tau=0.1, **settings)
