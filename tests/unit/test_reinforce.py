"""REINFORCE: fixed points known in closed form, what takes gradients, and the effect of every setting."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from kit.learning import DISCRETE, batch_of, every_field_matters, own_metrics, random_columns, spec_of

from learners.algorithms.reinforce import ReinforceConfig, ReinforceRule
from learners.task import DiscreteActions, Part, Task
from replay_server.errors import ConfigError

BANDIT = Task(observation_dtype="float32", observation_shape=(1,), actions=DiscreteActions(10))
PLAIN = ReinforceConfig(
    baseline=False, normalise_advantages=False, hidden_sizes=(1,), learning_rate=0.05, correction="stored"
)


def bandit_columns(config: Any, reward: np.ndarray, behaviour: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    """Every item `counts` times, as a log of a behaviour policy would hold it."""
    a = np.repeat(np.arange(10), counts)
    columns = random_columns(config, BANDIT, np.random.default_rng(0), len(a))
    columns["observation"][:] = columns["next_observation"][:] = 1.0
    return columns | {
        "action": a,
        "reward": reward[a].astype(np.float32),
        "discount": np.zeros(len(a), np.float32),
        "behaviour_log_prob": np.log(behaviour[a]).astype(np.float32),
    }


def learnt(config: Any, columns: dict[str, Any], updates: int, decay: bool = True) -> np.ndarray:
    """The policy after so many updates from the same batch: the expected gradient."""
    if decay:
        config = msgspec.structs.replace(config, final_learning_rate=1e-4, learning_rate_decay_env_steps=updates)
    spec = spec_of(config, BANDIT)
    learner = config.make_learner(BANDIT, spec, seed=0, device="cpu")
    for update in range(updates):
        learner.step(batch_of(spec, columns, inserted=update))
    policy = config.make_policy(BANDIT, env_indices=range(1), total_envs=1)
    policy.load(learner.snapshot())
    with torch.inference_mode():
        return policy._network(torch.ones(1, 1)).softmax(dim=1)[0].numpy()


TOP_K = {
    1: [1.0] + [0.0] * 9,
    2: [10 / 19, 9 / 19] + [0.0] * 8,
    4: [0.5088, 0.4912] + [0.0] * 8,
    16: [0.206, 0.200] + [0.0742] * 8,
}


@pytest.mark.parametrize("k", TOP_K)
def test_top_k_fixed_points(k: int) -> None:
    """r = (10, 9, 1 x 8), all items logged alike: pi maximises sum r_i (1 - (1 - pi_i)^K)."""
    reward = np.array([10.0, 9.0] + [1.0] * 8)
    config = msgspec.structs.replace(PLAIN, top_k=k)
    columns = bandit_columns(config, reward, np.full(10, 0.1), np.full(10, 1))
    pi = learnt(config, columns, 500)
    assert np.abs(pi - TOP_K[k]).max() < 0.02


REWARD, SKEWED = np.arange(1.0, 11.0), np.arange(10, 0, -1) / 55.0


@pytest.mark.parametrize("correction", ["none", "stored", "behaviour_head"])
def test_off_policy_fixed_points(correction: Any) -> None:
    """r_i = i, logged in proportion to 11 - i: uncorrected pi goes to r x beta (5.5), corrected to the best."""
    settings: dict[str, Any] = {} if correction == "none" else {"weight_cap": None}
    if correction == "behaviour_head":
        settings["behaviour_learning_rate"] = 0.05
    config = msgspec.structs.replace(PLAIN, correction=correction, learning_rate=0.02, **settings)
    columns = bandit_columns(config, REWARD, SKEWED, np.arange(10, 0, -1))
    if correction == "behaviour_head":
        columns["behaviour_log_prob"][:] = -1.0  # not looked at
    pi = learnt(config, columns, 600)
    expected = REWARD * SKEWED / (REWARD * SKEWED).sum() if correction == "none" else np.eye(10)[9]
    assert np.abs(pi - expected).max() < 0.02
    assert pi @ REWARD == pytest.approx(5.5 if correction == "none" else 10.0, abs=0.02)


def test_what_the_cap_costs() -> None:
    """The best item, logged once in 55 times, weighs e^3 at most: its pull 10 e^3 / 55 meets that of 9 at 9 pi_10."""
    columns = bandit_columns(PLAIN, REWARD, SKEWED, np.arange(10, 0, -1))
    pi = learnt(PLAIN, columns, 400)
    best = 10.0 * math.exp(3.0) / 55.0 / 9.0
    assert pi[8:] == pytest.approx([1.0 - best, best], abs=0.02)


def test_the_behaviour_head_learns_what_was_logged_and_nothing_else_moves_it() -> None:
    config = msgspec.structs.replace(
        PLAIN, correction="behaviour_head", behaviour_learning_rate=0.05, learning_rate=1e-12
    )  # the head reads the state, which the policy's loss would move
    columns, spec = bandit_columns(config, REWARD, SKEWED, np.arange(10, 0, -1)), spec_of(config, BANDIT)
    heads, logits = [], []
    for sign in (1.0, -1.0):  # other rewards, another policy: the same head
        learner = config.make_learner(BANDIT, spec, seed=0, device="cpu")
        rule = learner._rule
        for update in range(200):
            learner.step(batch_of(spec, columns | {"reward": sign * columns["reward"]}, inserted=update))
        heads.append(rule.behaviour.items.table.detach().clone())
        logits.append(
            rule.behaviour(rule.policy.torso(torch.ones(1, 1)), torch.ones(1, 1)).softmax(dim=1)[0].detach().numpy()
        )
    assert torch.allclose(heads[0], heads[1], atol=1e-5)
    assert np.abs(logits[0] - SKEWED).max() < 0.02


def test_no_gradient_of_the_policy_loss_reaches_the_head_and_none_of_the_head_s_the_state() -> None:
    config = ReinforceConfig(correction="behaviour_head", top_k=4, hidden_sizes=(8,))
    rule = config.make_learner(DISCRETE, spec_of(config, DISCRETE), seed=0, device="cpu")._rule
    losses: dict[str, torch.Tensor] = {}

    class Kept:
        def __init__(self, name: str) -> None:
            self.name = name

        def minimise(self, loss: torch.Tensor) -> None:
            losses[self.name] = loss

    rule.optimizers = {name: Kept(name) for name in rule.optimizers}
    columns = random_columns(config, DISCRETE, np.random.default_rng(0))
    t = {name: torch.from_numpy(column) for name, column in columns.items()}
    rule.update(t, torch.ones(16), number=1, diagnose=True)

    def reached(loss: str, module: torch.nn.Module) -> bool:
        parameters = list(module.parameters())
        gradients = torch.autograd.grad(losses[loss], parameters, retain_graph=True, allow_unused=True)
        return any(g is not None and bool(g.abs().max() > 0) for g in gradients)

    assert reached("policy", rule.policy.torso) and reached("policy", rule.policy.head)
    assert not reached("policy", rule.behaviour) and not reached("policy", rule.value)
    assert reached("behaviour", rule.behaviour)
    assert not reached("behaviour", rule.policy) and not reached("behaviour", rule.value)
    assert reached("value", rule.value) and not reached("value", rule.policy)


@pytest.mark.parametrize("name", ["policy", "value", "behaviour"])
def test_importance_weights_reach_every_loss(name: str) -> None:
    config = ReinforceConfig(correction="behaviour_head", hidden_sizes=(8,), importance_beta=1.0)
    spec, columns = spec_of(config, DISCRETE), random_columns(config_ := config, DISCRETE, np.random.default_rng(1))
    moved = []
    for probabilities in (np.full(16, 1 / 16), np.linspace(0.01, 0.2, 16)):
        learner = config_.make_learner(DISCRETE, spec, seed=0, device="cpu")
        learner.step(batch_of(spec, columns, probabilities))
        state = learner.state_dict()
        moved.append({key: value for key, value in state.items() if key.startswith(f"{name}.")})
    assert any(not torch.allclose(value, moved[1][key], atol=1e-6) for key, value in moved[0].items())


def test_ratios_are_of_the_logged_actions() -> None:
    """RecNN draws new actions; here the mean weight follows from the records alone."""
    config = ReinforceConfig(correction="stored", hidden_sizes=(8,), weight_cap=None, diagnose_every_updates=1)
    spec, columns = spec_of(config, DISCRETE), random_columns(config, DISCRETE, np.random.default_rng(2))
    learner = config.make_learner(DISCRETE, spec, seed=0, device="cpu")
    with torch.inference_mode():
        pi = learner._rule.policy(torch.from_numpy(columns["observation"])).softmax(dim=1).numpy()
    expected = pi[np.arange(16), columns["action"]] / np.exp(columns["behaviour_log_prob"])
    learner.step(batch_of(spec, columns))
    metrics = learner.take_metrics()
    assert metrics["importance_weight"] == pytest.approx(expected.mean(), rel=1e-5)
    assert metrics["effective_sample_share"] == pytest.approx(expected.mean() ** 2 / (expected**2).mean(), rel=1e-5)
    assert metrics["capped_share"] == 0.0


def test_diagnostics_are_all_there_and_say_what_they_mean() -> None:
    config = ReinforceConfig(
        correction="behaviour_head", top_k=2, weight_cap=1e-3, hidden_sizes=(8,), diagnose_every_updates=1
    )
    spec, columns = spec_of(config, DISCRETE), random_columns(config, DISCRETE, np.random.default_rng(3))
    columns["discount"][:] = 0.0
    learner = config.make_learner(DISCRETE, spec, seed=0, device="cpu")
    learner.step(batch_of(spec, columns))
    metrics = learner.take_metrics()
    assert sorted(own_metrics(metrics)) == sorted(
        [
            "loss", "policy_entropy", "action_probability", "return_mean", "advantage_std",
            "value_loss", "explained_variance", "importance_weight", "capped_share", "effective_sample_share",
            "behaviour_loss", "top_k_multiplier", "learnt_share",
        ]
    )  # fmt: skip
    assert metrics["capped_share"] == 1.0 and metrics["importance_weight"] == pytest.approx(1e-3)
    assert metrics["return_mean"] == pytest.approx(columns["reward"].mean(), abs=1e-6)
    assert 0.9 < metrics["policy_entropy"] < math.log(3) and 0.2 < metrics["action_probability"] < 0.5
    assert 1.0 < metrics["top_k_multiplier"] < 2.0 and 0.9 < metrics["behaviour_loss"] < 1.5
    assert metrics["explained_variance"] == pytest.approx(
        1.0 - metrics["advantage_std"] ** 2 / columns["reward"].var(), rel=1e-4
    )


def test_every_setting_does_something() -> None:
    off_policy = {"correction": "stored"}
    head = {"correction": "behaviour_head"}
    every_field_matters(
        ReinforceConfig(hidden_sizes=(4,), value_minibatch_size=8),
        DISCRETE,
        {
            "importance_beta": 0.9,
            "final_importance_beta": (0.5, {"importance_beta_env_steps": 300}),
            "importance_beta_env_steps": 300,
            "final_learning_rate": (1e-5, {"final_learning_rate": 1e-4, "learning_rate_decay_env_steps": 300}),
            "learning_rate_decay_env_steps": (500, {"final_learning_rate": 1e-4, "learning_rate_decay_env_steps": 300}),
            "baseline": (False, {"value_minibatch_size": 512}),
            "value_learning_rate": 1e-2,
            "value_minibatches": 3,
            "value_minibatch_size": 5,
            "normalise_advantages": False,
            "advantage_epsilon": 0.3,
            "entropy_cost": 0.1,
            "correction": "stored",
            "weight_cap": (0.5, off_policy),
            "self_normalise": (True, {**off_policy, "normalise_advantages": False}),
            "behaviour_learning_rate": (1e-2, head),
            "top_k": 4,
            "rewarded_only": True,
            "temperature": 0.5,
            "negatives": (1, {"softmax": "sampled", "negatives": 2}),
            "negative_exponent": (0.5, {"softmax": "sampled", "negatives": 2}),
        },
        # softmax and negatives go together: test_softmax_sampled_is_not_full
        elsewhere={"priority_epsilon", "serving_candidates", "certain_slots", "softmax"},
    )


def test_softmax_sampled_is_not_full() -> None:
    states = []
    for settings in ({}, {"softmax": "sampled", "negatives": 2}):
        config = ReinforceConfig(hidden_sizes=(4,), **settings)
        learner = config.make_learner(DISCRETE, spec_of(config, DISCRETE), seed=0, device="cpu")
        columns = random_columns(config, DISCRETE, np.random.default_rng(0))
        learner.step(batch_of(spec_of(config, DISCRETE), columns))
        states.append(learner.state_dict())
    full, sampled = ({n: v for n, v in state.items() if n.startswith("optimizer.policy.")} for state in states)
    assert any(not torch.equal(value, sampled[name]) for name, value in full.items())


def test_records_get_no_priorities() -> None:
    config = ReinforceConfig(hidden_sizes=(4,))
    spec = spec_of(config, DISCRETE)
    learner = config.make_learner(DISCRETE, spec, seed=0, device="cpu")
    assert learner.step(batch_of(spec, random_columns(config, DISCRETE, np.random.default_rng(0)))) is None


def test_the_policy_samples_from_its_softmax_and_is_greedy_in_evaluation() -> None:
    config = ReinforceConfig(hidden_sizes=(8,), temperature=0.2)
    policy = config.make_policy(DISCRETE, env_indices=range(3), total_envs=3)
    policy.load(config.make_learner(DISCRETE, spec_of(config, DISCRETE), seed=1, device="cpu").snapshot())
    observation, rng = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32), np.random.default_rng(1)
    with torch.inference_mode():
        pi = policy._network(torch.from_numpy(observation)).softmax(dim=1).numpy()
    draws = [policy.act(observation, rng, explore=True, env_steps=0) for _ in range(4000)]
    shares = np.stack([np.bincount([d.action[row] for d in draws], minlength=3) / 4000 for row in range(3)])
    assert np.abs(shares - pi).max() < 0.03
    for draw in draws[:20]:
        assert draw.action.dtype == np.int64 and draw.log_prob.dtype == np.float32
        assert np.allclose(np.exp(draw.log_prob), pi[np.arange(3), draw.action], rtol=1e-5)
    greedy = policy.act(observation, rng, explore=False, env_steps=0)
    assert greedy.action.tolist() == pi.argmax(axis=1).tolist()


def test_forbidden_actions_are_never_chosen() -> None:
    parts = (Part("action_mask", 0, 3, (3,), True), Part("observation", 3, 5, (2,), False))
    task = msgspec.structs.replace(DISCRETE, parts=parts)
    config = ReinforceConfig(hidden_sizes=(8,))
    policy = config.make_policy(task, env_indices=range(2), total_envs=2)
    policy.load(config.make_learner(task, spec_of(config, task), seed=1, device="cpu").snapshot())
    observation, rng = np.array([[0, 1, 0, 0.3, 1], [1, 0, 1, 0.5, -2]], np.float32), np.random.default_rng(0)
    chosen = [policy.act(observation, rng, explore=explore, env_steps=0) for explore in [True] * 50 + [False]]
    assert {draw.action[0] for draw in chosen} == {1} and {draw.action[1] for draw in chosen} <= {0, 2}
    assert all(draw.log_prob[0] == 0.0 for draw in chosen)
    sampled = msgspec.structs.replace(config, softmax="sampled", negatives=2)
    with pytest.raises(ConfigError, match=r"algorithm\.softmax: sampled .* action_mask"):
        sampled.make_learner(task, spec_of(config, task), seed=1, device="cpu")


def test_contradictions_are_refused_with_both_names() -> None:
    with pytest.raises(ValueError, match=r"advantage_epsilon .* normalise_advantages"):
        ReinforceConfig(advantage_epsilon=0.1, normalise_advantages=False)
    with pytest.raises(ValueError, match=r"self_normalise .* correction"):
        ReinforceConfig(self_normalise=True)
    with pytest.raises(ConfigError, match=r"algorithm\.negatives is 3, the environment has 3 actions"):
        ReinforceConfig(softmax="sampled", negatives=3).make_policy(DISCRETE, env_indices=range(1), total_envs=1)


@pytest.mark.parametrize(
    ("torso", "softmax"), [("gru", "full"), ("cfn", "full"), ("attention", "full"), ("gru", "sampled")]
)
def test_policies_over_histories_of_items(torso: Any, softmax: Any) -> None:
    """Watched again is what was watched last: the state encoder has to carry it to the output embeddings."""
    items, length, size = 12, 4, 256
    task = Task(
        observation_dtype="float32",
        observation_shape=(length,),
        actions=DiscreteActions(items),
        parts=(Part("history", 0, length, (length,), True, items - 1),),
    )
    few: dict[str, Any] = {"negatives": 6, "negative_exponent": 0.5} if softmax == "sampled" else {}
    config = ReinforceConfig(
        torso=torso, softmax=softmax, **few, embedding_size=16, encoder_size=16,
        hidden_sizes=(32,), learning_rate=1e-2, correction="stored", baseline=False, normalise_advantages=False,
    )  # fmt: skip
    rng, spec = np.random.default_rng(0), spec_of(config, task)
    learner = config.make_learner(task, spec, seed=0, device="cpu")

    def histories(count: int) -> np.ndarray:
        seen = rng.integers(0, items, (count, length))
        return np.where(np.arange(length) < rng.integers(0, length, (count, 1)), -1, seen).astype(np.float32)

    for _ in range(120):
        columns = random_columns(config, task, rng, size)
        columns["observation"] = histories(size)
        columns["behaviour_log_prob"][:] = -math.log(items)
        columns["reward"] = (columns["action"] == columns["observation"][:, -1]).astype(np.float32)
        columns["discount"][:] = 0.0
        learner.step(batch_of(spec, columns))
    policy = config.make_policy(task, env_indices=range(1), total_envs=1)
    policy.load(learner.snapshot())
    tested = histories(200)
    greedy = policy.act(tested, rng, explore=False, env_steps=0).action
    assert (greedy == tested[:, -1]).mean() > 0.9


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"correction": "stored", "self_normalise": True, "entropy_cost": 0.1, "rewarded_only": True},
        {"correction": "behaviour_head", "softmax": "sampled", "negatives": 2, "top_k": 3, "value_minibatch_size": 5},
    ],
)
def test_nothing_in_an_update_waits_for_the_device(settings: dict[str, Any]) -> None:
    """Tensors on `meta` have no values: whatever looks at one raises."""
    config = ReinforceConfig(hidden_sizes=(8,), **settings)
    rule = ReinforceRule(config, DISCRETE, seed=0, device="meta")
    for optimizer in rule.optimizers.values():
        optimizer.checks = False
    columns = random_columns(config, DISCRETE, np.random.default_rng(0))
    t = {name: torch.from_numpy(column).to("meta") for name, column in columns.items()}
    updated = rule.update(t, torch.ones(16, device="meta"), number=1, diagnose=True)
    assert all(value.shape == () for value in updated.diagnostics.values())


def test_entropy_is_a_reward() -> None:
    config = msgspec.structs.replace(PLAIN, entropy_cost=0.5, diagnose_every_updates=1)
    nothing = bandit_columns(config, np.zeros(10), np.full(10, 0.1), np.full(10, 2))
    spec = spec_of(config, BANDIT)
    learner, entropies = config.make_learner(BANDIT, spec, seed=0, device="cpu"), []
    for _ in range(60):
        learner.step(batch_of(spec, nothing))
        entropies.append(learner.take_metrics()["policy_entropy"])
    assert entropies[0] < math.log(10) - 0.02 and entropies[-1] > math.log(10) - 0.002
