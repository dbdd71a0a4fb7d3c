"""Losses and targets of BCQ against d3rlpy (`tests/golden/make_d3rlpy.py`)."""

from __future__ import annotations

import torch
from kit.golden import golden, gradient, same

from learners.losses.actor_critic import bootstrapped, soft_clipped_values
from learners.losses.cloning import gaussian_kl, likely_actions, negative_log_likelihood, squared_distances
from learners.losses.value_learning import huber, q_learning_td_error


def test_autoencoder_loss() -> None:
    given, expected = golden("d3rlpy", "vae")
    leaves = [getattr(given, name).requires_grad_() for name in ("reconstruction", "mean", "log_std")]
    reconstruction, mean, log_std = leaves
    loss = (squared_distances(reconstruction, given.action) + 0.5 * gaussian_kl(mean, log_std)).mean()
    same(loss, expected.loss)
    for ours, name in zip(torch.autograd.grad(loss, leaves), ("reconstruction", "mean", "log_std"), strict=True):
        same(ours, getattr(expected, f"gradient_{name}"))


def test_soft_clipped_target() -> None:
    given, expected = golden("d3rlpy", "soft_clipped_target")
    nothing = torch.zeros(given.q_t.shape[1], dtype=torch.float64)
    value = soft_clipped_values(given.q_t, vars(given)["lambda"])
    same(value, expected.value)
    same(bootstrapped(nothing + 2.0, nothing + 0.5, value), 2 + 0.5 * expected.value)


def test_discrete_batch_constrained_loss() -> None:
    given, expected = golden("d3rlpy", "discrete")
    allowed = likely_actions(given.logits_t, given.threshold)
    selector = given.q_t_selector.masked_fill(~allowed, -torch.inf)
    assert (selector.argmax(dim=1) != given.q_t_selector.argmax(dim=1)).any()
    assert torch.equal(selector.argmax(dim=1), expected.chosen)
    q_tm1, logits = given.q_tm1.requires_grad_(), given.logits_tm1.requires_grad_()
    error = q_learning_td_error(q_tm1, given.a_tm1, given.r_t, given.discount_t, given.q_t, selector)
    cloning = negative_log_likelihood(logits, given.a_tm1).mean()
    penalty = given.beta * logits.square().mean()
    same(huber(error, 1.0), expected.huber)
    same(cloning, expected.nll)
    same(cloning + penalty, expected.cloning)
    same(gradient(huber(error, 1.0).mean(), q_tm1), expected.gradient_q)
    same(gradient(cloning + penalty, logits), expected.gradient_logits)
