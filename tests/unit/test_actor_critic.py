"""DDPG and TD3: losses by hand, bounds of each dimension, actors that climb, targets that move, a known optimum."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from kit.learning import (
    CONTINUOUS,
    DISCRETE,
    batch_of,
    every_field_matters,
    learner_of,
    own_metrics,
    policy_of,
    random_batch,
    random_columns,
    spec_of,
)
from scipy.stats import norm
from torch import nn

from learners.acting.exploration import geometric_sigmas
from learners.algorithms.ddpg import DDPGConfig
from learners.algorithms.td3 import TD3Config
from learners.losses.actor_critic import (
    critic_losses,
    critic_td_errors,
    deterministic_policy_losses,
    pessimistic_target,
    smoothed,
)
from learners.losses.reductions import weighted_mean
from learners.task import ContinuousActions, Task
from replay_server.errors import ConfigError

LOW, HIGH = np.float32(CONTINUOUS.actions.low), np.float32(CONTINUOUS.actions.high)
SMALL = {"hidden_sizes": (16,), "random_env_steps": 0}
BOTH = pytest.mark.parametrize("config", [DDPGConfig(**SMALL), TD3Config(**SMALL)], ids=["ddpg", "td3"])


def part(learner: Any, prefix: str) -> dict[str, torch.Tensor]:
    return {n: v for n, v in learner.state_dict().items() if n.startswith(prefix) and n.endswith(("weight", "bias"))}


# Losses


def test_targets_errors_and_losses_by_hand() -> None:
    q_t = torch.tensor([[2.0, 5.0, 9.0], [3.0, 4.0, 9.0]])
    target = pessimistic_target(torch.tensor([1.0, 0.5, -1.0]), torch.tensor([0.9, 0.5, 0.0]), q_t)
    assert target.tolist() == pytest.approx([2.8, 2.5, -1.0])
    q_tm1 = torch.tensor([[2.0, 2.5, 0.0], [3.8, 0.5, 1.0]])
    errors = critic_td_errors(q_tm1, target)
    assert errors.flatten().tolist() == pytest.approx([0.8, 0.0, -1.0, -1.0, 2.0, -2.0])
    assert critic_losses(q_tm1, target).tolist() == pytest.approx([0.82, 2.0, 2.5])
    assert deterministic_policy_losses(torch.tensor([1.0, -2.0])).tolist() == [-1.0, 2.0]


def test_no_gradient_flows_through_the_target() -> None:
    q_t = torch.ones(2, 3, requires_grad=True)
    target = pessimistic_target(torch.zeros(3), torch.ones(3), q_t)
    assert not target.requires_grad


def test_columns_of_other_shapes_are_refused_before_they_broadcast() -> None:
    q_t, good, column = torch.zeros(2, 4), torch.zeros(4), torch.zeros(4, 1)
    for r_t, discount_t in ((column, good), (good, column), (torch.zeros(4, 1, 1), good)):
        with pytest.raises(ValueError, match=r"_t has shape \(4, 1"):
            pessimistic_target(r_t, discount_t, q_t)
    with pytest.raises(ValueError, match="target_tm1"):
        critic_td_errors(q_t, column)
    with pytest.raises(ValueError, match="q_tm1"):
        deterministic_policy_losses(column)
    with pytest.raises(ValueError, match="weights"):
        weighted_mean(good, column)


def test_smoothing_noise_is_cut_and_so_are_actions() -> None:
    normal = torch.tensor([[1.0, 1.0], [-9.0, 9.0], [0.0, -2.0]])
    unit = torch.tensor([[0.0, 0.9], [0.1, 0.2], [-1.0, -0.7]])
    noisy = smoothed(unit, normal, 0.2, 0.5)
    assert noisy.flatten().tolist() == pytest.approx([0.2, 1.0, -0.4, 0.7, -1.0, -1.0])


# Updates


def test_smoothed_target_actions_stay_within_the_bounds_of_their_own_dimension() -> None:
    task = Task(
        observation_dtype="float32", observation_shape=(5,), actions=ContinuousActions((-1.0, 3.0, -40.0), (1, 3.5, 0))
    )
    config = TD3Config(**SMALL, smoothing_sigma=3.0, smoothing_clip=3.0)
    rule = learner_of(config, task)._rule
    with torch.no_grad():
        unit = rule.next_unit({"next_observation": torch.randn(500, 5, generator=torch.Generator())})
        action = rule.target_actor.bounds.from_unit(unit)
    low, high = torch.tensor(task.actions.low), torch.tensor(task.actions.high)
    assert (action >= low).all() and (action <= high).all()
    reached = (action.amax(dim=0) - action.amin(dim=0)) / (high - low)
    assert reached.tolist() == pytest.approx([1.0, 1.0, 1.0])  # with the first dimension's bounds it would not be


class Quadratic(nn.Module):
    """A frozen critic whose best action is known."""

    def __init__(self, best: torch.Tensor) -> None:
        super().__init__()
        self.best = best

    def first_of_unit(self, observation: torch.Tensor, unit: torch.Tensor) -> torch.Tensor:
        return -(unit - self.best).square().sum(dim=1)


@BOTH
@pytest.mark.parametrize("max_grad_norm", [1e-3, 10.0])
def test_one_step_of_the_actor_raises_the_value_of_a_frozen_critic(config: Any, max_grad_norm: float) -> None:
    config = msgspec.structs.replace(config, max_grad_norm=max_grad_norm, learning_rate=1e-3)
    rule = learner_of(config, CONTINUOUS)._rule
    rule.critics = critic = Quadratic(torch.tensor([0.7, -0.6]))
    observation = torch.randn(64, 5, generator=torch.Generator().manual_seed(1))
    values = []
    for _ in range(20):
        values.append(float(critic.first_of_unit(observation, rule.actor.unit(observation)).mean().detach()))
        rule.improve_actor(observation, torch.ones(64), diagnose=False)
    assert all(later > earlier for earlier, later in pairwise(values))


def test_importance_weights_reach_the_actor() -> None:
    observation, moved = torch.randn(8, 5, generator=torch.Generator().manual_seed(2)), []
    for weights in (torch.ones(8), torch.linspace(0.1, 1.0, 8)):
        rule = learner_of(TD3Config(**SMALL), CONTINUOUS)._rule
        rule.improve_actor(observation, weights, diagnose=False)
        moved.append(rule.optimizers["actor"].state_dict()["first"].clone())
    assert not torch.allclose(moved[0], moved[1])


def test_the_actors_step_leaves_the_critics_and_their_gradients_alone() -> None:
    rule = learner_of(TD3Config(**SMALL), CONTINUOUS)._rule
    before = {name: value.clone() for name, value in rule.critics.state_dict().items()}
    rule.improve_actor(torch.randn(8, 5), torch.ones(8), diagnose=False)
    assert all(torch.equal(value, before[name]) for name, value in rule.critics.state_dict().items())
    assert all(not parameter.grad.any() for parameter in rule.critics.parameters())


@BOTH
def test_every_target_network_moves_by_tau(config: Any) -> None:
    config = msgspec.structs.replace(config, target_update_tau=0.25)
    learner = learner_of(config, CONTINUOUS)
    before = part(learner, "target_")
    assert {name.partition(".")[0] for name in before} == {"target_actor", "target_critics"}
    for update in range(2 if isinstance(config, TD3Config) else 1):
        assert all(torch.equal(value, before[name]) for name, value in part(learner, "target_").items())
        learner.step(random_batch(config, CONTINUOUS, update))
    state = learner.state_dict()
    for name, value in part(learner, "target_").items():
        online = state[name.removeprefix("target_")]
        assert not torch.equal(value, before[name]), name
        assert torch.allclose(value, before[name] + 0.25 * (online - before[name]), atol=1e-7), name


def test_the_actor_and_all_targets_wait_for_their_turn() -> None:
    config = TD3Config(**SMALL, actor_period_updates=3)
    learner = learner_of(config, CONTINUOUS)
    moved = []
    for update in range(7):
        before = part(learner, "actor"), part(learner, "critics"), part(learner, "target_")
        learner.step(random_batch(config, CONTINUOUS, update))
        after = part(learner, "actor"), part(learner, "critics"), part(learner, "target_")
        moved.append([any(not torch.equal(a[n], b[n]) for n in a) for a, b in zip(before, after, strict=True)])
    assert moved == [[n % 3 == 0, True, n % 3 == 0] for n in range(1, 8)]


def test_the_target_is_the_lesser_of_both_critics_and_both_learn() -> None:
    config = TD3Config(**SMALL, smoothing_sigma=0.0)
    learner = learner_of(config, CONTINUOUS)
    rule, columns = learner._rule, random_columns(config, CONTINUOUS, np.random.default_rng(3))
    t = {name: torch.from_numpy(column) for name, column in columns.items()}
    with torch.no_grad():
        q_t = rule.target_critics(t["next_observation"], rule.target_actor(t["next_observation"]))
        errors = t["reward"] + t["discount"] * q_t.amin(dim=0) - rule.critics(t["observation"], t["action"])
    assert not torch.equal(q_t[0], q_t[1])
    before = rule.critics.layers[0].weight.detach().clone()
    priorities = learner.step(batch_of(spec_of(config, CONTINUOUS), columns)).priorities
    assert np.allclose(priorities, errors.abs().mean(dim=0).numpy() + config.priority_epsilon, atol=1e-6)
    moved = (rule.critics.layers[0].weight.detach() - before).abs().amax(dim=(1, 2))
    assert (moved > 0).all()


def test_the_first_critic_alone_gives_the_values_it_gives_in_the_stack() -> None:
    rule = learner_of(TD3Config(**SMALL), CONTINUOUS)._rule
    observation, action = torch.randn(6, 5), torch.rand(6, 2) - 1.0
    assert torch.allclose(rule.critics.first(observation, action), rule.critics(observation, action)[0], atol=1e-6)


@BOTH
def test_importance_weights_reach_every_critic(config: Any) -> None:
    config, gradients = msgspec.structs.replace(config, importance_beta=1.0), []
    for probabilities in (np.full(16, 1 / 16), np.linspace(0.01, 0.2, 16)):
        learner = learner_of(config, CONTINUOUS)
        learner.step(random_batch(config, CONTINUOUS, 1, probabilities=probabilities))
        gradients.append(learner.state_dict()["optimizer.critics.first"])
    assert all(not torch.allclose(a, b) for a, b in zip(*gradients, strict=True))


def lq_columns(rng: np.random.Generator, size: int) -> dict[str, np.ndarray]:
    """x' = x + a / 2, reward -(x^2 + a^2 / 2): the successor of any action, so that one batch shows everything."""
    x, a = rng.uniform(-1.0, 1.0, size), rng.uniform(-1.0, 1.0, size)
    return {
        "observation": x[:, None].astype(np.float32),
        "next_observation": (x + 0.5 * a)[:, None].astype(np.float32),
        "action": a[:, None].astype(np.float32),
        "reward": (-(x**2) - 0.5 * a**2).astype(np.float32),
        "discount": np.full(size, 0.7, np.float32),
        "behaviour_log_prob": np.zeros(size, np.float32),
        "policy_version": np.zeros(size, np.int64),
    }


@pytest.mark.parametrize("config", [DDPGConfig(), TD3Config(smoothing_sigma=0.02)], ids=["ddpg", "td3"])
def test_the_values_and_the_policy_of_a_linear_quadratic_problem_are_reached(config: Any) -> None:
    value = 0.0  # V(x) = -value x^2, by the Riccati recursion
    for _ in range(200):
        gain = -(0.7 * value * 0.5) / (0.5 + 0.7 * value * 0.25)
        value = 1.0 + 0.5 * gain**2 + 0.7 * value * (1.0 + 0.5 * gain) ** 2
    task = Task(observation_dtype="float32", observation_shape=(1,), actions=ContinuousActions((-1.0,), (1.0,)))
    config = msgspec.structs.replace(
        config,
        hidden_sizes=(64, 64),
        target_update_tau=0.05,
        learning_rate=3e-3,
        final_learning_rate=1e-4,
        learning_rate_decay_env_steps=1_000,
    )
    learner, rng = learner_of(config, task), np.random.default_rng(0)
    for update in range(1_000):
        learner.step(batch_of(spec_of(config, task), lq_columns(rng, 64), inserted=update))
    x = torch.linspace(-0.8, 0.8, 9)[:, None]
    with torch.no_grad():
        action = learner._rule.actor(x)
        q = learner._rule.critics.first(x, action)
    assert (action - gain * x).abs().max() < 0.1
    assert (q + value * x.square().squeeze(1)).abs().max() < 0.1


def test_products_are_added_to_every_critic() -> None:
    with_products, without = TD3Config(**SMALL, critic_products=True), TD3Config(**SMALL)
    one, other = learner_of(with_products, CONTINUOUS)._rule.critics, learner_of(without, CONTINUOUS)._rule.critics
    other.load_state_dict({n: v for n, v in one.state_dict().items() if not n.startswith("slope")})
    rng = np.random.default_rng(0)
    observation = torch.from_numpy(rng.normal(size=(6, *CONTINUOUS.observation_shape)).astype(np.float32))
    actions = torch.from_numpy(rng.uniform(LOW, HIGH, size=(6, 4, len(LOW))).astype(np.float32))
    with torch.no_grad():
        encoded = one.encoder(observation)
        for k in range(4):
            unit = one.bounds.to_unit(actions[:, k])
            slope = encoded @ one.slope.weight + one.slope.bias  # [2, 6, n]
            expected = other(observation, actions[:, k]) + (slope * unit).sum(dim=2)
            torch.testing.assert_close(one(observation, actions[:, k]), expected)
            torch.testing.assert_close(one.first(observation, actions[:, k]), expected[0])
            torch.testing.assert_close(one.first_of_unit(observation, unit), expected[0])
            torch.testing.assert_close(one.first_of_each(encoded, actions)[:, k], expected[0])
        assert (one(observation, actions[:, 0]) != other(observation, actions[:, 0])).all()


@pytest.mark.parametrize(
    ("base", "changes"),
    [
        (DDPGConfig(**SMALL), {"critic_weight_decay": 0.1}),
        (
            TD3Config(**SMALL),
            {"actor_period_updates": 1, "smoothing_sigma": 0.6, "smoothing_clip": (0.01, {"smoothing_sigma": 0.5})},
        ),
    ],
    ids=["ddpg", "td3"],
)
def test_every_field_matters(base: Any, changes: dict[str, Any]) -> None:
    alike = {
        "actor_learning_rate": 0.1, "target_update_tau": 0.5, "final_layer_bound": 0.2,
        "final_learning_rate": (1e-5, {"final_learning_rate": 1e-3, "learning_rate_decay_env_steps": 200}),
        "learning_rate_decay_env_steps": (100, {"final_learning_rate": 1e-5, "learning_rate_decay_env_steps": 400}),
        "final_importance_beta": (0.5, {"importance_beta_env_steps": 100}), "importance_beta_env_steps": 100,
        "critic_products": True,
    }  # fmt: skip
    acting = {"sigma_low", "sigma_high", "random_env_steps", "noise", "ou_theta"}  # tested with the policy
    every_field_matters(base, CONTINUOUS, {**alike, **changes}, elsewhere=acting)


@BOTH
def test_diagnostics_are_finite_and_named(config: Any) -> None:
    config = msgspec.structs.replace(config, diagnose_every_updates=1)
    learner = learner_of(config, CONTINUOUS)
    for update in range(3):
        learner.step(random_batch(config, CONTINUOUS, update))
    metrics = learner.take_metrics()
    assert set(own_metrics(metrics)) == {
        "loss", "q_mean", "q_std", "target_mean", "target_std", "bootstrap_mean", "bootstrap_std", "td_error",
        "expected_value_mean", "expected_value_std", "action_mean", "action_std", "action_saturation",
    }  # fmt: skip
    assert all(np.isfinite(value) for value in metrics.values())
    defined = (Path(__file__).parents[2] / "docs/metrics.md").read_text()
    assert all(f"`{name}`" in defined for name in own_metrics(metrics))
    assert metrics["gradient_norm_actor"] > 0.0 and 0.0 <= metrics["action_saturation"] <= 1.0


def test_moments_standardise_observations_in_every_network_and_scale_rewards() -> None:
    task = msgspec.structs.replace(CONTINUOUS, normalise_observations=True, normalise_rewards=True)
    learner = learner_of(TD3Config(**SMALL), task)
    rule, raw, action = learner._rule, torch.tensor([[3.0] * 5]), torch.zeros(1, 2)
    networks = (
        rule.actor,
        rule.target_actor,
        lambda o: rule.critics(o, action),
        lambda o: rule.target_critics(o, action),
    )
    plain = [network(torch.ones(1, 5)) for network in networks]
    learner.set_moments({"observation_mean": np.full(5, 1.0), "observation_std": np.full(5, 2.0), "return_std": 4.0})
    assert all(torch.equal(network(raw), before) for network, before in zip(networks, plain, strict=True))
    scaled, unscaled = learner_of(TD3Config(**SMALL), task), learner_of(TD3Config(**SMALL), CONTINUOUS)
    scaled.set_moments({"return_std": 4.0})
    columns = random_columns(TD3Config(), CONTINUOUS, np.random.default_rng(0))
    quarter = {**columns, "reward": columns["reward"] / 4}
    spec = spec_of(TD3Config(), CONTINUOUS)
    outputs = scaled.step(batch_of(spec, columns)), unscaled.step(batch_of(spec, quarter))
    assert np.array_equal(outputs[0].priorities, outputs[1].priorities)


# Policies


def test_sigmas_spread_in_equal_ratios() -> None:
    assert geometric_sigmas(range(3), 3, 0.1, 0.4).tolist() == pytest.approx([0.1, 0.2, 0.4])
    assert geometric_sigmas([0, 3], 4, 0.1, 0.8).tolist() == pytest.approx([0.1, 0.8])
    assert geometric_sigmas([0], 1, 0.1, 0.4).tolist() == pytest.approx([0.1])


def test_gaussian_exploration_has_the_deviation_and_log_probability_it_says() -> None:
    config = TD3Config(**SMALL, sigma_low=0.05, sigma_high=0.8)
    policy, rng, observation = policy_of(config, CONTINUOUS, 4), np.random.default_rng(1), np.zeros((4, 5), np.float32)
    greedy = policy.act(observation, rng, explore=False, env_steps=0)
    assert greedy.action.dtype == np.float32 and greedy.log_prob.tolist() == [0.0] * 4
    sigma = geometric_sigmas(range(4), 4, 0.05, 0.8)[:, None] * (HIGH - LOW) / 2
    draws = [policy.act(observation, rng, explore=True, env_steps=10**6) for _ in range(2000)]
    actions = np.stack([draw.action for draw in draws])
    assert np.abs(actions[:, 0].std(axis=0) / sigma[0] - 1.0).max() < 0.06
    for draw in draws[:40]:
        inside = norm.logpdf(draw.action, greedy.action, sigma)
        low, high = norm.logcdf(LOW, greedy.action, sigma), norm.logsf(HIGH, greedy.action, sigma)
        expected = np.where(draw.action == LOW, low, np.where(draw.action == HIGH, high, inside)).sum(axis=1)
        assert np.allclose(draw.log_prob, expected, atol=1e-4)
    cut = (actions == LOW) | (actions == HIGH)
    chance = norm.cdf(LOW, greedy.action, sigma) + norm.sf(HIGH, greedy.action, sigma)
    assert np.abs(cut.mean(axis=0) - chance).max() < 0.04  # the point masses are the shares of cut draws
    assert (actions >= LOW).all() and (actions <= HIGH).all()


def test_the_run_begins_with_uniform_actions_of_known_density() -> None:
    policy = policy_of(TD3Config(hidden_sizes=(8,), random_env_steps=100), CONTINUOUS, 500)
    rng, observation = np.random.default_rng(2), np.zeros((500, 5), np.float32)
    drawn = policy.act(observation, rng, explore=True, env_steps=99)
    assert np.abs(drawn.action.mean(axis=0) - (LOW + HIGH) / 2).max() < 0.15
    assert (np.ptp(drawn.action, axis=0) > 0.98 * (HIGH - LOW)).all()
    assert drawn.log_prob.tolist() == pytest.approx([-np.log(np.prod(HIGH - LOW))] * 500)
    after = policy.act(observation, rng, explore=True, env_steps=100)
    assert np.ptp(after.action[0]) < 2.0 and not np.allclose(after.log_prob, drawn.log_prob)


def test_ornstein_uhlenbeck_noise_is_correlated_and_its_log_probability_conditional() -> None:
    config = DDPGConfig(**SMALL, noise="ou", ou_theta=0.25, sigma_low=0.05, sigma_high=0.05)
    policy, rng, observation = policy_of(config, CONTINUOUS, 2), np.random.default_rng(3), np.zeros((2, 5), np.float32)
    greedy = policy.act(observation, rng, explore=False, env_steps=0).action
    draws = [policy.act(observation, rng, explore=True, env_steps=1) for _ in range(3000)]
    noise = np.stack([draw.action for draw in draws]) - greedy
    assert np.abs(np.corrcoef(noise[1:, 0, 0], noise[:-1, 0, 0])[0, 1] - 0.75) < 0.06
    sigma = 0.05 * (HIGH - LOW) / 2
    expected = norm.logpdf(noise[7], 0.75 * noise[6], sigma).sum(axis=1)
    assert np.allclose(draws[7].log_prob, expected, atol=1e-3)


# Refusals


@BOTH
def test_what_cannot_work_is_refused(config: Any) -> None:
    with pytest.raises(ConfigError, match="bounded Box"):
        learner_of(config, DISCRETE)
    flat = msgspec.structs.replace(CONTINUOUS, actions=ContinuousActions((0.0, 1.0), (1.0, 1.0)))
    with pytest.raises(ConfigError, match="without room"):
        config.make_policy(flat, env_indices=range(1), total_envs=1)
    with pytest.raises(ValueError, match=r"sigma_low \(0.5\) is larger than sigma_high \(0.2\)"):
        type(config)(sigma_low=0.5, sigma_high=0.2)
