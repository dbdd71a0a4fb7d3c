"""BCQ of continuous actions: losses by hand, candidates within reach of the data, actors that climb, moving targets."""

from __future__ import annotations

from itertools import pairwise

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
    policy_of,
    random_batch,
    random_columns,
    spec_of,
)
from torch import nn

from learners.algorithms.bcq import BCQConfig
from learners.losses.actor_critic import bootstrapped, soft_clipped_values
from learners.losses.cloning import gaussian_kl, squared_distances
from learners.task import ContinuousActions, Task
from replay_server.errors import ConfigError

SMALL = BCQConfig(hidden_sizes=(16,), vae_hidden_sizes=(16,), acting_candidates=20)
DECAY = {"final_learning_rate": 1e-5, "learning_rate_decay_env_steps": 300}
LOW, HIGH = np.float32(CONTINUOUS.actions.low), np.float32(CONTINUOUS.actions.high)
TINY = Task(observation_dtype="float32", observation_shape=(1,), actions=ContinuousActions((-1.0,), (1.0,)))


# Losses


def test_the_target_by_hand() -> None:
    q_t = torch.tensor([[[1.0, 4.0], [2.0, 0.0]], [[3.0, 2.0], [6.0, 8.0]]])  # [critic, record, candidate]
    r_t, discount_t = torch.tensor([0.5, 1.0]), torch.tensor([0.9, 0.0])
    # 0.75 min + 0.25 max: 1.5 and 2.5 for record 0, 3.0 and 2.0 for record 1, which is terminal.
    values = soft_clipped_values(q_t.requires_grad_(), 0.75)
    assert values.tolist() == pytest.approx([2.5, 3.0]) and not values.requires_grad
    assert bootstrapped(r_t, discount_t, values).tolist() == pytest.approx([0.5 + 0.9 * 2.5, 1.0])
    assert soft_clipped_values(q_t, 1.0).tolist() == pytest.approx([2.0, 2.0])
    assert soft_clipped_values(q_t, 0.0).tolist() == pytest.approx([4.0, 8.0])


def test_losses_of_the_auto_encoder_by_hand() -> None:
    mean, log_std = torch.tensor([[1.0, 0.0], [0.0, -2.0]]), torch.log(torch.tensor([[1.0, 1.0], [2.0, 0.5]]))
    # 0.5 (m^2 + s^2 - 1 - 2 log s) of each dimension, then their mean.
    expected = [0.25, 0.25 * ((4 - 1 - 2 * np.log(2)) + (4 + 0.25 - 1 + 2 * np.log(2)))]
    assert gaussian_kl(mean, log_std).tolist() == pytest.approx(expected)
    assert squared_distances(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0]])).tolist() == [2.5]


def test_other_shapes_are_refused() -> None:
    good, column = torch.zeros(4), torch.zeros(4, 1)
    for r_t, discount_t in ((column, good), (good, column)):
        with pytest.raises(ValueError, match=r"_t has shape \(4, 1\)"):
            bootstrapped(r_t, discount_t, good)
    with pytest.raises(ValueError, match="prediction"):
        squared_distances(torch.zeros(4, 1), torch.zeros(4, 2))
    with pytest.raises(ValueError, match="log_std"):
        gaussian_kl(torch.zeros(4, 2), torch.zeros(4, 1))


# Updates


def test_both_target_critics_make_the_target_and_no_gradient_flows_through_it() -> None:
    rule = learner_of(SMALL, CONTINUOUS)._rule
    seen = torch.randn(16, 5, generator=torch.Generator().manual_seed(0))
    state = rule.generator.get_state()
    outcomes = []
    for change in (None, 0, 1):
        rule.generator.set_state(state)
        last = rule.target_critics.layers[-1]
        with torch.no_grad():
            before = last.bias.clone()
            if change is not None:
                last.bias[change] += 5.0
            outcomes.append(rule.successor_values(seen))
            last.bias.copy_(before)
    assert not outcomes[0].requires_grad
    for raised in outcomes[1:]:
        assert (raised > outcomes[0] + 0.1).all()


def test_candidates_stay_near_what_was_decoded_and_within_the_bounds() -> None:
    config = msgspec.structs.replace(SMALL, phi=0.1)
    actor = learner_of(config, CONTINUOUS)._rule.actor
    with torch.no_grad():
        actor.perturbation.head.weight.fill_(100.0)  # as far as it can
        decoded = torch.rand(50, 4, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
        moved = actor.perturbed(torch.randn(50, 5), decoded, actor.perturbation)
    assert (moved - decoded).abs().max() <= 0.1 + 1e-6
    assert (moved - decoded).abs().amax(dim=(0, 1)).tolist() == pytest.approx([0.1, 0.1])
    assert moved.abs().max() <= 1.0


class Quadratic(nn.Module):
    """A frozen critic whose best action is known."""

    def first(self, observation: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return -(action - torch.tensor([0.9, -1.9])).square().sum(dim=1)


@pytest.mark.parametrize("max_grad_norm", [1e-3, 10.0])
def test_one_step_of_the_perturbation_raises_the_value_of_a_frozen_critic(max_grad_norm: float) -> None:
    config = msgspec.structs.replace(SMALL, phi=0.5, max_grad_norm=max_grad_norm)
    rule = learner_of(config, CONTINUOUS)._rule
    rule.actor.critics = Quadratic()
    observation, state = torch.randn(64, 5, generator=torch.Generator().manual_seed(1)), rule.generator.get_state()
    values = []
    for _ in range(20):
        rule.generator.set_state(state)  # the same candidates every time
        about = rule.improve_perturbation(observation, torch.ones(64), diagnose=True)
        values.append(float(about["expected_value_mean"].detach()))
    assert all(later > earlier for earlier, later in pairwise(values))


def test_every_network_learns_and_every_target_moves_by_tau() -> None:
    config = msgspec.structs.replace(SMALL, target_update_tau=0.25)
    learner = learner_of(config, CONTINUOUS)
    before = learner.state_dict()
    learner.step(random_batch(config, CONTINUOUS))
    after = learner.state_dict()
    trained_parts = ("encoder", "actor.decoder", "actor.perturbation", "actor.critics")
    for part in (*trained_parts, "target_critics", "target_perturbation"):
        names = [n for n in before if n.startswith(f"{part}.") and n.endswith(("weight", "bias"))]
        assert names
        for name in names:
            assert not torch.equal(before[name], after[name]), name
            if part.startswith("target_"):
                online = after["actor." + name.removeprefix("target_")]
                assert torch.allclose(after[name], 0.75 * before[name] + 0.25 * online, atol=1e-6)
    for critic in (0, 1):
        assert not torch.equal(
            before["actor.critics.layers.0.weight"][critic], after["actor.critics.layers.0.weight"][critic]
        )


def test_importance_weights_change_the_gradient_of_every_loss() -> None:
    skewed = np.linspace(0.2, 1.8, 16) / 16
    states = []
    for probabilities in (None, skewed):
        learner = learner_of(SMALL, CONTINUOUS)
        learner.step(random_batch(SMALL, CONTINUOUS, probabilities=probabilities))
        states.append(learner.state_dict())
    for part in ("encoder", "actor.decoder", "actor.critics"):
        names = [n for n in states[0] if n.startswith(f"{part}.") and n.endswith("weight")]
        assert all(not torch.equal(states[0][n], states[1][n]) for n in names), part
    perturbations = []
    for weights in (torch.ones(16), torch.linspace(0.2, 1.0, 16)):  # alone: the critics' change would show in it
        rule = learner_of(SMALL, CONTINUOUS)._rule
        rule.improve_perturbation(
            torch.randn(16, 5, generator=torch.Generator().manual_seed(2)), weights, diagnose=False
        )
        perturbations.append(rule.actor.perturbation.head.weight)
    assert not torch.equal(*perturbations)


def test_every_setting_does_something() -> None:
    changes = {
        "target_update_tau": 0.5,
        "vae_hidden_sizes": (4,),
        "vae_learning_rate": 0.1,
        "latent_size": 3,
        "latent_clip": 0.1,
        "kl_weight": 5.0,
        "phi": 0.3,
        "candidates": 3,
        "minimum_weight": 0.2,
        "final_learning_rate": (1e-4, DECAY),
        "learning_rate_decay_env_steps": (200, DECAY),
        "final_importance_beta": (0.5, {"importance_beta_env_steps": 200}),
        "importance_beta_env_steps": 300,
    }
    every_field_matters(SMALL, CONTINUOUS, changes, elsewhere={"acting_candidates", "sigma"})


def test_diagnostics_are_finite_and_have_the_names_of_the_other_learners() -> None:
    config = msgspec.structs.replace(SMALL, diagnose_every_updates=1)
    learner = learner_of(config, CONTINUOUS)
    learner.step(random_batch(config, CONTINUOUS))
    metrics = learner.take_metrics()
    common = {"loss", "q_mean", "q_std", "target_mean", "target_std", "td_error", "gradient_norm_critics", "action_std"}
    assert common | {"vae_loss", "vae_reconstruction", "vae_divergence", "perturbation"} <= metrics.keys()
    assert all(np.isfinite(value) for value in metrics.values())
    assert 0 < metrics["perturbation"] <= config.phi
    learner.step(batch_of(spec_of(config, CONTINUOUS), random_columns(config, CONTINUOUS, np.random.default_rng(0), 1)))
    assert learner.take_metrics()["expected_value_std"] == 0.0  # of one record, and not NaN


def test_updates_that_are_not_diagnosed_measure_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_of(msgspec.structs.replace(SMALL, diagnose_every_updates=2), CONTINUOUS)
    batch, reached = random_batch(SMALL, CONTINUOUS), []
    monkeypatch.setattr("learners.algorithms.bcq.spread", lambda **values: reached.append(learner.updates) or {})
    for _ in range(4):
        learner.step(batch)
    assert set(reached) == {2, 4}
    rule, t = learner._rule, {name: torch.from_numpy(column) for name, column in batch.columns.items()}
    assert rule._clone(t, torch.ones(len(batch)), diagnose=False) == {}


def test_discrete_actions_are_refused() -> None:
    with pytest.raises(ConfigError, match="bcq takes a bounded Box"):
        learner_of(SMALL, DISCRETE)


# Policies


def test_policies_act_within_bounds_and_only_with_the_generator_given() -> None:
    policy = policy_of(SMALL, CONTINUOUS, learner=learner_of(SMALL, CONTINUOUS))
    seen = np.random.default_rng(3).normal(size=(300, 5)).astype(np.float32)
    for explore in (False, True):
        one, other = (policy.act(seen, np.random.default_rng(5), explore=explore, env_steps=0) for _ in range(2))
        assert np.array_equal(one.action, other.action) and one.action.dtype == np.float32
        assert (one.action >= LOW).all() and (one.action <= HIGH).all()
        assert one.log_prob.shape == (300,) and np.isfinite(one.log_prob).all()
    greedy = policy.act(seen, np.random.default_rng(5), explore=False, env_steps=0).action
    inside = ((one.action > LOW) & (one.action < HIGH)).all(axis=1)
    noise = ((one.action - greedy) / (0.1 * (HIGH - LOW) / 2))[inside]
    assert inside.sum() > 100 and noise.std() == pytest.approx(1.0, abs=0.15)
    density = (-0.5 * noise**2 - np.log(0.1 * (HIGH - LOW) / 2) - 0.5 * np.log(2 * np.pi)).sum(axis=1)
    assert one.log_prob[inside] == pytest.approx(density, abs=1e-3)
    louder = policy_of(msgspec.structs.replace(SMALL, sigma=0.5), CONTINUOUS, learner=learner_of(SMALL, CONTINUOUS))
    wide = louder.act(seen, np.random.default_rng(5), explore=True, env_steps=0).action
    assert np.abs(wide - greedy).mean() > 2 * np.abs(one.action - greedy).mean()


def test_more_candidates_find_better_actions() -> None:
    learner = learner_of(SMALL, CONTINUOUS)
    seen = np.random.default_rng(3).normal(size=(50, 5)).astype(np.float32)
    values = []
    for count in (1, 50):
        policy = policy_of(msgspec.structs.replace(SMALL, acting_candidates=count), CONTINUOUS, learner=learner)
        action = policy.act(seen, np.random.default_rng(0), explore=False, env_steps=0).action
        with torch.no_grad():
            q = learner._rule.actor.critics.first(torch.from_numpy(seen), torch.from_numpy(action))
        values.append(q.mean())
    assert values[1] > values[0]


# A problem with a known answer


def test_what_nobody_tried_is_not_taken_however_promising_it_looks() -> None:
    """A bandit logged with actions near -0.5 and 0.3; reward rises all the way, so that critics promise most at 1."""
    config = BCQConfig(
        hidden_sizes=(32,),
        vae_hidden_sizes=(32,),
        learning_rate=3e-3,
        batch_size=64,
        acting_candidates=50,
        kl_weight=0.02,
    )
    rng, spec = np.random.default_rng(0), spec_of(config, TINY)
    learner = learner_of(config, TINY)
    for _ in range(400):
        columns = random_columns(config, TINY, rng, 64)
        columns["observation"][:] = columns["next_observation"][:] = 1.0
        centre = rng.choice([-0.5, 0.3], 64)
        columns["action"] = (centre + 0.03 * rng.normal(size=64)).astype(np.float32)[:, None]
        columns["reward"] = columns["action"][:, 0].copy()
        columns["discount"][:] = 0.0
        learner.step(batch_of(spec, columns))
    policy = policy_of(config, TINY, learner=learner)
    chosen = policy.act(np.ones((20, 1), np.float32), np.random.default_rng(1), explore=False, env_steps=0).action
    assert chosen.min() > 0.2 and chosen.max() < 0.5
    with torch.no_grad():
        actions = torch.linspace(-1, 1, 201)[:, None]
        q = learner._rule.actor.critics.first(torch.ones(201, 1), actions)
    assert float(actions[q.argmax()]) > 0.9  # what a learner without the constraint would do
