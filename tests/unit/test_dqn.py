"""The DQN learner and policy: known optima, moving targets, exact continuation."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from kit.chains import ACTIONS, CHAIN, STATES
from kit.learning import batch_of, learner_of, random_columns, spec_of

from learners.acting.exploration import annealed, ape_x_epsilons
from learners.algorithms.c51 import C51Config
from learners.algorithms.dqn import DQNConfig
from learners.algorithms.qr_dqn import QRDQNConfig
from learners.task import DiscreteActions, Task
from replay_server.errors import Diverged
from replay_server.transitions import transition_spec

CONFIG = DQNConfig(target_update_tau=0.1)
SPEC = spec_of(CONFIG, CHAIN)


def targets(learner: Any) -> dict[str, torch.Tensor]:
    """Everything of the target network that is trained in the online one."""
    return {f"target.{name}": value.clone() for name, value in learner._rule.target.named_parameters()}


FORMS: list[dict[str, Any]] = [
    {},
    {"action_values": "embedding_mlp", "item_embedding": "learnt", "dueling": False},  # which a common bias cancels in
    {"action_values": "embedding_dot", "item_embedding": "learnt", "normalise_embeddings": True},
]


@pytest.mark.parametrize("config", [DQNConfig, C51Config, QRDQNConfig])
@pytest.mark.parametrize("form", FORMS, ids=["heads", "mlp", "dot"])
def test_soft_updates_move_every_target_tensor_by_tau(config: Any, form: dict[str, Any]) -> None:
    learner = learner_of(config(target_update_tau=0.25, **form), CHAIN)
    before = targets(learner)
    learner.step(batch_of(SPEC, random_columns(CONFIG, CHAIN, np.random.default_rng(0))))
    state = learner.state_dict()
    assert len(before) >= 6
    for name, value in targets(learner).items():
        assert not torch.equal(value, before[name]), name
        expected = before[name] + 0.25 * (state[name.replace("target.", "online.")] - before[name])
        assert torch.allclose(value, expected, atol=1e-7)


@pytest.mark.parametrize("config", [DQNConfig, C51Config, QRDQNConfig])
def test_hard_updates_copy_every_target_tensor_on_time(config: Any) -> None:
    learner = learner_of(config(target_update_period_updates=3), CHAIN)
    before, batch = targets(learner), batch_of(SPEC, random_columns(CONFIG, CHAIN, np.random.default_rng(0)))
    for _ in range(2):
        learner.step(batch)
    assert all(torch.equal(value, before[name]) for name, value in targets(learner).items())
    learner.step(batch)
    state = learner.state_dict()
    assert all(
        torch.equal(value, state[name.replace("target.", "online.")]) for name, value in targets(learner).items()
    )


@pytest.mark.parametrize(
    "config",
    [
        DQNConfig(target_update_tau=0.1, importance_beta=1.0),
        DQNConfig(target_update_tau=0.1, importance_beta=1.0, loss="mse"),
        C51Config(target_update_tau=0.1, importance_beta=1.0),
        QRDQNConfig(target_update_tau=0.1, importance_beta=1.0),
    ],
    ids=lambda config: f"{config.type} {getattr(config, 'loss', '')}",
)
def test_importance_weights_reach_the_update(config: Any) -> None:
    columns, moved = random_columns(CONFIG, CHAIN, np.random.default_rng(1)), []
    for probabilities in (np.full(16, 1 / 16), np.linspace(0.01, 0.2, 16)):
        learner = learner_of(config, CHAIN)
        learner.step(batch_of(SPEC, columns, probabilities))
        moved.append(learner.state_dict()["optimizer.online.first"])
    assert not torch.allclose(moved[0], moved[1])


@pytest.mark.parametrize("scaled", [False, True])
def test_priorities_are_the_absolute_errors_plus_epsilon(scaled: bool) -> None:
    """Of rewards as the learner counts them, whoever computes them."""
    config = DQNConfig(target_update_tau=0.1, priority_epsilon=0.5, double=False)
    task = msgspec.structs.replace(CHAIN, normalise_rewards=scaled)
    columns, learner = random_columns(config, task, np.random.default_rng(2)), learner_of(config, task)
    policy = config.make_policy(task, env_indices=range(1), total_envs=1)
    learner.set_moments({"return_std": np.array(4.0)})
    policy.load(learner.snapshot())
    by_actor = policy.initial_priorities(columns)
    by_learner = learner.step(batch_of(SPEC, columns)).priorities
    assert by_learner.dtype == np.float64 and by_learner.min() >= 0.5
    assert np.allclose(by_actor, by_learner, atol=1e-6)  # at first the target network equals the acting one


def test_updates_that_are_not_finite_are_skipped_and_too_many_in_a_row_end_the_run() -> None:
    learner = learner_of(DQNConfig(target_update_tau=0.1, max_skipped_updates=3), CHAIN)
    rng = np.random.default_rng(4)
    good, bad = random_columns(CONFIG, CHAIN, rng), random_columns(CONFIG, CHAIN, rng)
    bad["reward"][3] = np.inf
    before = learner.state_dict()
    for _ in range(2):
        assert learner.step(batch_of(SPEC, bad)) is None
    after = learner.state_dict()
    assert all(torch.equal(value, before[name]) for name, value in after.items() if name != "counters")
    assert learner.bad_batch.columns["reward"][3] == np.inf
    assert learner.step(batch_of(SPEC, good)) is not None  # the count begins anew
    for _ in range(2):
        assert learner.step(batch_of(SPEC, bad)) is None
    with pytest.raises(Diverged, match="not finite 3 times in a row"):
        learner.step(batch_of(SPEC, bad))


def test_epsilon_greedy_frequencies_and_log_probabilities() -> None:
    config = DQNConfig(target_update_tau=0.1, epsilon_base=0.4, epsilon_alpha=7.0, epsilon_anneal_env_steps=100)
    policy = config.make_policy(CHAIN, env_indices=range(3), total_envs=3)
    policy.load(learner_of(config, CHAIN).snapshot())
    rng, observation = np.random.default_rng(5), np.zeros((3, STATES), np.float32)
    greedy = policy.act(observation, rng, explore=False, env_steps=0).action
    draws = [policy.act(observation, rng, explore=True, env_steps=1000) for _ in range(4000)]
    epsilons = ape_x_epsilons(range(3), 3, 0.4, 7.0)
    share = np.mean([draw.action == greedy for draw in draws], axis=0)
    expected = 1.0 - epsilons * (1.0 - 1.0 / ACTIONS)
    assert np.abs(share - expected).max() < 0.025
    for draw in draws[:50]:
        probability = np.where(draw.action == greedy, expected, epsilons / ACTIONS)
        assert np.allclose(np.exp(draw.log_prob), probability, rtol=1e-5)


def test_ape_x_epsilons_and_annealing() -> None:
    assert ape_x_epsilons([0, 7], 8, 0.4, 7.0).tolist() == pytest.approx([0.4, 0.4**8])
    assert ape_x_epsilons([0], 1, 0.4, 7.0).tolist() == pytest.approx([0.4])
    assert annealed(np.array([0.4, 0.01]), 25, 100).tolist() == pytest.approx([0.75, 0.75])
    assert annealed(np.array([0.4, 0.01]), 80, 100).tolist() == pytest.approx([0.4, 0.2])
    assert annealed(np.array([0.4, 0.01]), 100, 100).tolist() == [0.4, 0.01]


def test_moments_standardise_observations_and_scale_rewards() -> None:
    task = Task(
        observation_dtype="float32", observation_shape=(2,), actions=DiscreteActions(2),
        normalise_observations=True, normalise_rewards=True,
    )  # fmt: skip
    spec = transition_spec(("float32", (2,)), ("int64", ()), {})
    config = DQNConfig(target_update_tau=0.1, hidden_sizes=(8,))
    learner = config.make_learner(task, spec, seed=0, device="cpu")
    plain = config.make_policy(task, env_indices=range(1), total_envs=1)
    plain.load(learner.snapshot())
    moments = {"observation_mean": np.array([5.0, -3.0]), "observation_std": np.array([2.0, 0.5]), "return_std": 4.0}
    learner.set_moments(moments)
    scaled = config.make_policy(task, env_indices=range(1), total_envs=1)
    scaled.load(learner.snapshot())
    raw = np.array([[7.0, -2.5]], np.float32)
    with torch.inference_mode():
        assert torch.allclose(scaled._network(torch.from_numpy(raw)), plain._network(torch.tensor([[1.0, 1.0]])))
    assert scaled._network.torso.normaliser.reward_factor.item() == 0.25


def test_contradictions_are_refused_with_both_names() -> None:
    with pytest.raises(ValueError, match=r"target_update_tau .* target_update_period_updates"):
        DQNConfig()
    with pytest.raises(ValueError, match=r"target_update_tau .* target_update_period_updates"):
        DQNConfig(target_update_tau=0.1, target_update_period_updates=5)
    with pytest.raises(ValueError, match=r"final_learning_rate and learning_rate_decay_env_steps"):
        DQNConfig(target_update_tau=0.1, final_learning_rate=1e-4)


def test_two_seeds_start_from_different_networks_and_the_global_generator_is_untouched() -> None:
    torch.manual_seed(1)
    untouched = torch.initial_seed(), torch.get_rng_state()
    config = DQNConfig(target_update_tau=0.1)
    states = [learner_of(config, CHAIN, seed).state_dict()["online.head.linear.weight"] for seed in (0, 0, 1)]
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])
    assert torch.equal(untouched[1], torch.get_rng_state())


def test_spec_of_records_is_what_the_learner_reads() -> None:
    columns = random_columns(CONFIG, CHAIN, np.random.default_rng(6))
    learner = learner_of(CONFIG, CHAIN)
    staged, _ = learner._staging(batch_of(SPEC, columns), np.ones(16, np.float32))
    for name, column in columns.items():
        assert np.array_equal(staged[name].numpy(), column), name
