"""Losses and networks of DDPG and TD3 against Stable-Baselines3 and rlax (`tests/golden/make_*.py`)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from kit.golden import golden, gradient, same, single
from torch import nn

from learners.algorithms.td3 import TD3Config, TD3Rule
from learners.losses.actor_critic import (
    critic_losses,
    deterministic_policy_losses,
    pessimistic_target,
    smoothed,
)
from learners.networks.actor_critic import Actor, Critics
from learners.task import ContinuousActions, Task

ACTIONS = ContinuousActions((-1.0, -1.0), (1.0, 1.0))
TASK = Task(observation_dtype="float32", observation_shape=(3,), actions=ACTIONS)
KINDS = ("td3", "ddpg")


def critics_of(weights: dict[str, torch.Tensor]) -> Critics:
    """Ours with the weights of theirs."""
    count = 1 + int(max(name[2] for name in weights))
    settings, generator = TD3Config(hidden_sizes=(6,)), torch.Generator()
    critics = settings.make_critics(TASK, ACTIONS, generator, count)
    fill_critics(critics, weights)
    return critics


def fill_critics(critics: Critics, weights: dict[str, torch.Tensor]) -> None:
    """Copy `qf0.0.weight` [out, in], `qf0.0.bias` [out] and so on into ours, [count, in, out] and [count, 1, out]."""
    with torch.no_grad():
        for layer, theirs in zip(critics.layers, ("0", "2"), strict=True):
            for index in range(critics.count):
                layer.weight[index].copy_(weights[f"qf{index}.{theirs}.weight"].T)
                layer.bias[index, 0].copy_(weights[f"qf{index}.{theirs}.bias"])


def actor_of(weights: dict[str, torch.Tensor]) -> Actor:
    """Ours with the weights of theirs."""
    actor = TD3Config(hidden_sizes=(6,)).make_actor(TASK, ACTIONS, torch.Generator())
    fill(actor, weights)
    return actor


def fill(module: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Copy weights that stand in the same order."""
    with torch.no_grad():
        for parameter, theirs in zip(module.parameters(), weights.values(), strict=True):
            parameter.copy_(theirs)


def target_of(given: SimpleNamespace) -> torch.Tensor:
    return pessimistic_target(given.rewards, given.discounts, given.q_t)


@pytest.mark.parametrize("kind", KINDS)
def test_smoothed_target(kind: str) -> None:
    given, expected = single(*golden("sb3", kind))
    actor, critics = actor_of(given.weights["actor_target"]), critics_of(given.weights["critics_target"])
    noisy = smoothed(actor.unit(given.next_observations), given.noise.clone(), 1.0, given.noise_clip)
    same(noisy, expected.smoothed)
    same(critics.of_unit(given.next_observations, noisy), given.q_t)
    same(target_of(given), expected.target)


@pytest.mark.parametrize("kind", KINDS)
def test_critic_loss(kind: str) -> None:
    """Theirs is the sum of mean squared errors; ours has half the squared errors."""
    given, expected = single(*golden("sb3", kind))
    critics = critics_of(given.weights["critics"])
    q_tm1 = critics(given.observations, given.actions)
    loss = 2.0 * critic_losses(q_tm1, target_of(given)).mean()
    same(q_tm1, given.q_tm1)
    same(loss, expected.critic_loss)
    loss.backward()
    for layer, theirs in zip(critics.layers, ("0", "2"), strict=True):
        for index in range(critics.count):
            same(layer.weight.grad[index].T, expected.critic_gradients[f"qf{index}.{theirs}.weight"])
            same(layer.bias.grad[index, 0], expected.critic_gradients[f"qf{index}.{theirs}.bias"])


@pytest.mark.parametrize("kind", KINDS)
def test_actor_loss(kind: str) -> None:
    given, expected = single(*golden("sb3", kind))
    actor, critics = actor_of(given.weights["actor"]), critics_of(given.weights["critics"])
    losses = deterministic_policy_losses(critics.first(given.observations, actor(given.observations)))
    same(losses.mean(), expected.actor_loss)
    gradients = torch.autograd.grad(losses.mean(), list(actor.parameters()))
    for ours, theirs in zip(gradients, expected.actor_gradients.values(), strict=True):
        same(ours, theirs)


def test_deterministic_policy_gradient() -> None:
    given, expected = golden("rlax", "dpg")
    actor = given.actor.requires_grad_()
    joined = torch.cat([given.observation, torch.tanh(given.observation @ actor)], dim=1)
    q = torch.tanh(joined @ given.critic_first) @ given.critic_second
    same(q, expected.q)
    same(gradient(deterministic_policy_losses(q).mean(), actor), expected.gradient)


def test_whole_updates_of_td3() -> None:
    """Four updates on one batch without smoothing: order of steps, optimizers and targets included."""
    given, expected = single(*golden("sb3", "td3_updates"))
    config = TD3Config(
        hidden_sizes=(6,),
        learning_rate=given.learning_rate,
        max_grad_norm=None,
        smoothing_sigma=0.0,
        target_update_tau=0.05,
        final_layer_bound=None,
    )
    rule = TD3Rule(config, TASK, seed=0, device="cpu")
    fill(rule.actor, given.weights["actor"])
    fill(rule.target_actor, given.weights["actor_target"])
    fill_critics(rule.critics, given.weights["critics"])
    fill_critics(rule.target_critics, given.weights["critics_target"])
    t = {
        "observation": given.observations,
        "action": given.actions,
        "next_observation": given.next_observations,
        "reward": given.rewards,
        "discount": given.discounts,
    }
    for number in range(1, given.steps + 1):
        rule.update(t, torch.ones(len(given.rewards)), number=number, diagnose=False)
    for ours, name in ((rule.actor, "actor"), (rule.target_actor, "actor_target")):
        for parameter, theirs in zip(ours.parameters(), expected.weights[name].values(), strict=True):
            same(parameter, theirs)
    for critics, name in ((rule.critics, "critics"), (rule.target_critics, "critics_target")):
        theirs = critics_of(expected.weights[name])
        for parameter, other in zip(critics.parameters(), theirs.parameters(), strict=True):
            same(parameter, other.detach())
