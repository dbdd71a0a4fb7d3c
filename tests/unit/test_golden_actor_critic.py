"""Losses and networks of DDPG and TD3 against Stable-Baselines3 and rlax (`tests/golden/make_*.py`)."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from kit.golden import golden, gradient, same, single

from learners.algorithms.td3 import TD3Config
from learners.losses.actor_critic import (
    critic_losses,
    critic_td_errors,
    deterministic_policy_losses,
    pessimistic_target,
    smoothing_noise,
)
from learners.networks.actor_critic import Actor, Critics
from learners.networks.torsos import make_torso
from learners.task import ContinuousActions, Task

ACTIONS = ContinuousActions((-1.0, -1.0), (1.0, 1.0))
TASK = Task(observation_dtype="float32", observation_shape=(3,), actions=ACTIONS)
KINDS = ("td3", "ddpg")


def critics_of(weights: dict[str, torch.Tensor]) -> Critics:
    """Ours with the weights of theirs: `qf0.0.weight` [out, in] and so on."""
    count = 1 + int(max(name[2] for name in weights))
    critics = TD3Config(hidden_sizes=(6,)).make_critics(TASK, ACTIONS, torch.Generator(), count)
    with torch.no_grad():
        for layer, theirs in zip(critics.layers, ("0", "2"), strict=True):
            layer.weight.copy_(torch.stack([weights[f"qf{i}.{theirs}.weight"].T for i in range(count)]))
            layer.bias.copy_(torch.stack([weights[f"qf{i}.{theirs}.bias"][None] for i in range(count)]))
    return critics


def actor_of(weights: dict[str, torch.Tensor]) -> Actor:
    """Ours with the weights of theirs, which stand in the same order."""
    generator = torch.Generator()
    torso = make_torso(TD3Config(hidden_sizes=(6,)), TASK, generator)
    actor = Actor(torso, ACTIONS, generator)
    with torch.no_grad():
        for parameter, theirs in zip(actor.parameters(), weights.values(), strict=True):
            parameter.copy_(theirs)
    return actor


def target_of(given: SimpleNamespace) -> torch.Tensor:
    return pessimistic_target(given.rewards, given.discounts, given.q_t)


@pytest.mark.parametrize("kind", KINDS)
def test_smoothed_target(kind: str) -> None:
    given, expected = single(*golden("sb3", kind))
    actor, critics = actor_of(given.weights["actor_target"]), critics_of(given.weights["critics_target"])
    noise = smoothing_noise(given.noise, 1.0, given.noise_clip, torch.ones(2))
    smoothed = actor.bounds.clip(actor(given.next_observations) + noise)
    same(smoothed, expected.smoothed)
    same(critics(given.next_observations, smoothed), given.q_t)
    same(target_of(given), expected.target)


@pytest.mark.parametrize("kind", KINDS)
def test_critic_loss(kind: str) -> None:
    """Theirs is the sum of mean squared errors; ours has half the squared errors."""
    given, expected = single(*golden("sb3", kind))
    critics = critics_of(given.weights["critics"])
    q_tm1 = critics(given.observations, given.actions)
    loss = 2.0 * critic_losses(critic_td_errors(q_tm1, target_of(given))).mean()
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
