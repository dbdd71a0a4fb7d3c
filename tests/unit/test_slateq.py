"""SlateQ learns a small world's known optimum, from responses or with the choice given; refuses what does not fit."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from kit.learning import batch_of, every_field_matters, random_columns, spec_of
from kit.worlds import Sweets

from actors.layouts import observation_layout, observation_parts
from actors.vector_steps import Packer
from learners.algorithms.slateq import SlateQConfig
from learners.networks.slate_network import OutcomeNetwork
from learners.task import DiscreteActions, Part, SlateActions, Task
from replay_server.errors import ConfigError, InvalidRecord

GAMMA = 0.8
CONFIG = SlateQConfig(
    gamma=GAMMA, hidden_sizes=(32,), item_hidden_size=32, embedding_size=8, batch_size=128, learning_rate=5e-3,
    choice_learning_rate=5e-3, target_update_tau=0.1,
)  # fmt: skip
GIVEN = msgspec.structs.replace(CONFIG, choice="given", choice_learning_rate=1e-3)
LAYOUT = observation_layout(Sweets.observation_space)
TASK = Task(
    observation_dtype=LAYOUT[0],
    observation_shape=LAYOUT[1],
    actions=SlateActions(4, 2),
    parts=tuple(Part(**vars(part)) for part in observation_parts(Sweets.observation_space)),
)


@pytest.fixture(scope="module")
def records() -> dict[str, np.ndarray]:
    """Random slates in the small world."""
    world, rng, packer = Sweets(), np.random.default_rng(0), Packer(Sweets.observation_space, "Sweets")
    observations, slates, rewards = [], [], []
    raw, _ = world.reset(seed=1)
    for _ in range(6000):
        slate = rng.permutation(4)[:2]
        observations.append(raw)
        slates.append(slate)
        raw, reward, *_ = world.step(slate)
        rewards.append(reward)
    stacked = {name: np.stack([o[name] for o in [*observations, raw]]) for name in raw}
    seen = packer.batch(stacked, len(observations) + 1, "step")
    size = len(observations)
    return {
        "observation": seen[:-1],
        "next_observation": seen[1:],
        "action": np.stack(slates),
        "first_response": stacked["response"][1:].astype(np.float32),
        "reward": np.array(rewards, np.float32),
        "discount": np.full(size, GAMMA, np.float32),
        "behaviour_log_prob": np.full(size, -np.log(12), np.float32),
        "policy_version": np.zeros(size, np.int64),
    }


def taught(config: SlateQConfig, records: dict[str, np.ndarray], updates: int = 300, device: str = "cpu") -> Any:
    spec, rng = spec_of(config, TASK), np.random.default_rng(1)
    learner = config.make_learner(TASK, spec, seed=0, device=device)
    for _ in range(updates):
        rows = rng.integers(0, len(records["reward"]), config.batch_size)
        learner.step(batch_of(spec, {name: column[rows] for name, column in records.items()}))
    return learner


def looked_at(learner: Any, config: SlateQConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Qbar [2, 5] and choice probabilities [2, 5] by sweet, and the best slates [2, 2] as sweets, of both states."""
    order = np.array([2, 0, 3, 1])
    packer = Packer(Sweets.observation_space, "Sweets")
    scores = np.array([[*(Sweets.SCORES[state][i] for i in order), 1.0] for state in range(2)])
    raw = {
        "observation": np.eye(2), "candidates": np.stack([order] * 2), "choice_scores": scores,
        "response": np.zeros((2, 2)),
    }  # fmt: skip
    observation = packer.batch(raw, 2, "step")
    policy = config.make_policy(TASK, env_indices=range(2), total_envs=2)
    policy.load(learner.snapshot())
    slates = policy.act(observation, np.random.default_rng(0), explore=False, env_steps=0).action
    seen = torch.from_numpy(observation)
    with torch.inference_mode():
        q = policy._network.values(seen).numpy()
        shares = policy._network.choice(seen).softmax(dim=1).numpy()
    by_sweet = [*np.argsort(order), 4]
    return q[:, by_sweet], shares[:, by_sweet], order[slates]


@pytest.mark.parametrize("config", [CONFIG, GIVEN], ids=lambda config: config.choice)
def test_the_optimum_of_the_small_world_is_found(config: SlateQConfig, records: dict[str, np.ndarray]) -> None:
    learner = taught(config, records)
    q, shares, slates = looked_at(learner, config)
    true_q, best = Sweets.optimum(GAMMA)
    assert [tuple(sorted(slate)) for slate in slates.tolist()] == best
    np.testing.assert_allclose(q, true_q, atol=0.1)
    scores = np.array([[*row, 1.0] for row in Sweets.SCORES])
    np.testing.assert_allclose(shares, scores / scores.sum(axis=1, keepdims=True), atol=0.05)
    metrics = learner.take_metrics()
    assert metrics["click_probability"] == pytest.approx(metrics["click_share"], abs=0.05)


def test_sarsa_learns_the_value_of_the_slates_it_is_told_of(records: dict[str, np.ndarray]) -> None:
    config = msgspec.structs.replace(GIVEN, target="sarsa", sarsa_epsilon=1.0)
    q, _, _ = looked_at(taught(config, records), config)
    np.testing.assert_allclose(q, Sweets.optimum(GAMMA, uniform=True)[0], atol=0.1)


def test_without_a_value_for_no_click_only_clicks_teach(records: dict[str, np.ndarray]) -> None:
    config = msgspec.structs.replace(GIVEN, no_click_value=False)
    spec = spec_of(config, TASK)
    ignored = np.flatnonzero(records["first_response"].sum(axis=1) == 0)[:64]
    learner = config.make_learner(TASK, spec, seed=0, device="cpu")
    before = learner.state_dict()
    output = learner.step(batch_of(spec, {name: column[ignored] for name, column in records.items()}))
    after = learner.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before if name.startswith("online."))
    assert np.allclose(output.priorities, config.priority_epsilon)
    with_value = msgspec.structs.replace(config, no_click_value=True).make_learner(TASK, spec, seed=0, device="cpu")
    output = with_value.step(batch_of(spec, {name: column[ignored] for name, column in records.items()}))
    assert (output.priorities > 1e-3).mean() > 0.9


def test_only_the_target_is_slow_and_it_moves(records: dict[str, np.ndarray]) -> None:
    learner = taught(msgspec.structs.replace(CONFIG, target_update_tau=0.5), records, updates=1)
    state = learner.state_dict()
    pairs = {name: name.replace("target.", "online.values.") for name in state if name.startswith("target.")}
    assert pairs
    fresh = CONFIG.make_learner(TASK, spec_of(CONFIG, TASK), seed=0, device="cpu").state_dict()
    for target, online in pairs.items():
        expected = torch.lerp(fresh[online], state[online], 0.5)
        torch.testing.assert_close(state[target], expected)
        if "normaliser" not in target:
            assert not torch.equal(state[target], fresh[target]), target


def test_the_order_of_the_candidates_does_not_matter(records: dict[str, np.ndarray]) -> None:
    network = CONFIG.make_network(TASK, torch.Generator().manual_seed(0))
    seen = torch.from_numpy(records["observation"][:32])
    part, turned = TASK.part("candidates"), seen.clone()
    turned[:, part.start : part.stop] = seen[:, part.start : part.stop].roll(1, dims=1)
    there, back = network.values(turned), network.values(seen)
    torch.testing.assert_close(there[:, :4], back[:, :4].roll(1, dims=1))
    torch.testing.assert_close(there[:, 4], back[:, 4])


def test_propensities_are_those_of_the_slates_shown(records: dict[str, np.ndarray]) -> None:
    config = msgspec.structs.replace(CONFIG, epsilon_base=0.5, epsilon_anneal_env_steps=0)
    policy = config.make_policy(TASK, env_indices=range(1), total_envs=1)
    policy.load(CONFIG.make_learner(TASK, spec_of(CONFIG, TASK), seed=0, device="cpu").snapshot())
    observation, rng = np.repeat(records["observation"][:1], 4000, axis=0), np.random.default_rng(0)
    action = policy.act(observation, rng, explore=True, env_steps=10)
    best = policy.act(observation[:1], rng, explore=False, env_steps=10).action[0]
    slates, counts = np.unique(action.action, axis=0, return_counts=True)
    assert len(slates) == 12 and (slates[:, 0] != slates[:, 1]).all()
    for slate, count in zip(slates, counts, strict=True):
        expected = 0.5 / 12 + 0.5 * (slate == best).all()
        said = np.exp(action.log_prob[(action.action == slate).all(axis=1)])
        assert np.allclose(said, expected)
        assert abs(count / 4000 - expected) < 4 * (expected * (1 - expected) / 4000) ** 0.5


def test_candidates_that_are_not_there_are_never_shown(records: dict[str, np.ndarray]) -> None:
    policy = CONFIG.make_policy(TASK, env_indices=range(1), total_envs=1)
    observation = records["observation"][:200].copy()
    part = TASK.part("candidates")
    observation[:, part.start + 1] = -1.0
    for explore in (False, True):
        action = policy.act(observation, np.random.default_rng(0), explore=explore, env_steps=0)
        assert not (action.action == 1).any()
        assert np.isfinite(action.log_prob).all()
    assert np.exp(action.log_prob).min() == pytest.approx(1 / 6)  # epsilon begins at 1


@pytest.mark.parametrize("optimizer", ["exact", "greedy", "top_k"])
def test_a_terminal_state_of_zeros_has_a_value(optimizer: str, records: dict[str, np.ndarray]) -> None:
    """Nothing draws the user there: neither a candidate nor none."""
    config = msgspec.structs.replace(GIVEN, slate_optimizer=optimizer)
    learner = config.make_learner(TASK, spec_of(config, TASK), seed=0, device="cpu")
    columns = {name: column[:8].copy() for name, column in records.items()}
    columns["next_observation"][3], columns["discount"][3] = 0.0, 0.0
    output = learner.step(batch_of(spec_of(config, TASK), columns))
    assert learner.skipped_updates == 0 and output is not None and np.isfinite(output.priorities).all()
    offered = torch.ones(1, 4, dtype=torch.bool)
    scores = learner._rule.online.scores(torch.zeros(1, TASK.observation_size), offered)
    assert scores[0].tolist() == pytest.approx([0.0, 0.0, 0.0, 0.0, 1e-30])


def test_a_slate_with_a_repeat_is_refused(records: dict[str, np.ndarray]) -> None:
    spec = spec_of(CONFIG, TASK)
    columns = {name: column[:8].copy() for name, column in records.items()}
    columns["action"][3] = 2
    with pytest.raises(InvalidRecord, match=r"record 3: slate \[2, 2\] shows an item twice"):
        CONFIG.make_learner(TASK, spec, seed=0, device="cpu").step(batch_of(spec, columns))


def without(name: str) -> Task:
    return msgspec.structs.replace(TASK, parts=tuple(part for part in TASK.parts if part.name != name))


REFUSED: dict[str, tuple[Any, Task, str]] = {
    "no slates": (CONFIG, msgspec.structs.replace(TASK, actions=DiscreteActions(4)), "slateq takes slates .MultiDisc"),
    "too few": (CONFIG, msgspec.structs.replace(TASK, actions=SlateActions(4, 5)), "slates hold 5 of 4 candidates;"),
    "no response": (CONFIG, without("response"), r"slateq takes a part response \[2\], .* has none; observe a Dict"),
    "long response": (
        CONFIG, msgspec.structs.replace(TASK, actions=SlateActions(4, 3)), r"response \[3\], .* gives shape \[2\]"
    ),
    "no scores": (
        GIVEN, without("choice_scores"), r"scores \[5\], .* has none; take"
    ),
    "other candidates": (CONFIG, msgspec.structs.replace(TASK, actions=SlateActions(9, 2)), "4 candidates, but 9 act"),
    "few items": (
        CONFIG, msgspec.structs.replace(TASK, item_embeddings=np.ones((3, 2))), "goes up to 3, but there are 3 item"
    ),
}  # fmt: skip


@pytest.mark.parametrize(("config", "task", "message"), REFUSED.values(), ids=REFUSED)
def test_environments_that_do_not_fit_are_refused(config: SlateQConfig, task: Task, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        config.make_policy(task, env_indices=range(1), total_envs=1)
    assert "\n" not in str(caught.value)


def test_every_field_matters() -> None:
    decay = {"final_learning_rate": 1e-3, "learning_rate_decay_env_steps": 300}
    every_field_matters(
        SlateQConfig(target_update_tau=0.1, learning_rate=1e-2, item_hidden_size=8),
        TASK,
        {
            "slate_optimizer": ("top_k", {"choice": "given"}), "choice": "given",
            "target": "sarsa", "sarsa_epsilon": (1.0, {"target": "sarsa"}),
            "double": (False, {"target_update_tau": 0.02}), "no_click_value": False, "huber_delta": 0.1,
            "action_values": ("embedding_dot", {"item_hidden_size": 64}), "dueling": False,
            "item_hidden_size": 5, "choice_learning_rate": 1e-2, "target_update_tau": 0.5,
            "target_update_period_updates": (3, {"target_update_tau": None, "target_update_period_updates": 2}),
            "final_learning_rate": (1e-5, decay), "learning_rate_decay_env_steps": (100, decay),
            "final_importance_beta": (0.5, {"importance_beta_env_steps": 300}), "importance_beta_env_steps": 300,
        },
        {"epsilon_base", "epsilon_alpha", "epsilon_anneal_env_steps"},
    )  # fmt: skip


def test_exploration_follows_its_settings(records: dict[str, np.ndarray]) -> None:
    observation = np.repeat(records["observation"][:1], 2000, axis=0)

    def shares(env_steps: int, **changes: Any) -> float:
        config = msgspec.structs.replace(CONFIG, **changes)
        policy = config.make_policy(TASK, env_indices=[0] * 1000 + [1] * 1000, total_envs=2)
        rng = np.random.default_rng(0)
        best = policy.act(observation, rng, explore=False, env_steps=0).action
        action = policy.act(observation, rng, explore=True, env_steps=env_steps).action
        return float((action == best).all(axis=1)[1000:].mean())

    assert shares(0) == pytest.approx(1 / 12, abs=0.05)  # random at first
    assert shares(5_000, epsilon_anneal_env_steps=10_000) == pytest.approx(0.5 + 0.5 / 12, abs=0.08)
    assert shares(10_000) > 0.99  # the second of two environments: epsilon 0.4 ^ 8
    assert shares(10_000, epsilon_alpha=0.0, epsilon_base=0.6) == pytest.approx(0.4 + 0.6 / 12, abs=0.08)


def test_contradictions_are_refused_with_both_names() -> None:
    with pytest.raises(ValueError, match=r"target_update_tau .* target_update_period_updates"):
        SlateQConfig(target_update_period_updates=5)
    with pytest.raises(ValueError, match=r"item_hidden_size .* action_values embedding_dot"):
        SlateQConfig(action_values="embedding_dot", item_hidden_size=5)


@pytest.mark.parametrize("changes", [{"action_values": "embedding_dot", "item_hidden_size": 64}, {"dueling": False}])
def test_other_heads_find_the_optimum_too(changes: dict[str, Any], records: dict[str, np.ndarray]) -> None:
    config = msgspec.structs.replace(GIVEN, **changes)
    q, _, slates = looked_at(taught(config, records), config)
    true_q, best = Sweets.optimum(GAMMA)
    assert [tuple(sorted(slate)) for slate in slates.tolist()] == best
    np.testing.assert_allclose(q, true_q, atol=0.1)


def test_dueling_values_rise_with_that_of_none_and_choice_does_not() -> None:
    network = CONFIG.make_network(TASK, torch.Generator().manual_seed(0))
    assert isinstance(network.choice, OutcomeNetwork)
    seen = torch.rand(3, *TASK.observation_shape)
    before = network.values(seen), network.choice(seen)
    with torch.no_grad():
        network.values.none.bias += 1.0
        network.choice.none.bias += 1.0
    torch.testing.assert_close(network.values(seen), before[0] + 1.0)
    torch.testing.assert_close(network.choice(seen)[:, :-1], before[1][:, :-1])


def test_candidates_may_be_features_with_a_mask_beside_a_history() -> None:
    parts = (
        Part("action_mask", 0, 5, (5,), True, 1),
        Part("candidates", 5, 15, (5, 2), False),
        Part("history", 15, 18, (3,), True, 9),
        Part("response", 18, 20, (2,), True, 1),
    )
    task = Task(observation_dtype="float32", observation_shape=(20,), actions=SlateActions(5, 2), parts=parts)
    policy = CONFIG.make_policy(task, env_indices=range(8), total_envs=8)
    observation = np.random.default_rng(0).normal(size=(8, 20)).astype(np.float32)
    observation[:, :5] = [1, 0, 1, 0, 1]
    observation[:, 15:18] = [-1, 3, 9]
    for explore in (False, True):
        slates = policy.act(observation, np.random.default_rng(0), explore=explore, env_steps=0).action
        assert set(slates.ravel().tolist()) <= {0, 2, 4} and (slates[:, 0] != slates[:, 1]).all()
    network, seen = policy._network, torch.from_numpy(observation)
    turned = seen.clone()
    turned[:, 5:15] = seen[:, 5:15].reshape(8, 5, 2).flip(1).flatten(1)
    with torch.inference_mode():
        torch.testing.assert_close(network.values(turned)[:, :5], network.values(seen)[:, :5].flip(1))
    batch = batch_of(spec_of(CONFIG, task), random_columns(CONFIG, task, np.random.default_rng(0)))
    learner = CONFIG.make_learner(task, spec_of(CONFIG, task), seed=0, device="cpu")
    assert np.isfinite(learner.step(batch).priorities).all()
