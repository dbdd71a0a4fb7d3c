"""REINFORCE's losses against rlax, and sampled softmax against TensorFlow (`tests/golden/make_*.py`)."""

from __future__ import annotations

import torch
from kit.golden import golden, gradient, same

from learners.losses.policy_gradient import advantage, importance_ratio, policy_gradient_loss, top_k_multiplier
from learners.losses.softmax import full_softmax, sampled_softmax


def test_policy_gradient_with_baseline() -> None:
    given, expected = golden("rlax", "policy_gradient")
    logits, nothing = given.logits.requires_grad_(), torch.zeros_like(given.returns)
    gained = advantage(given.returns, nothing, given.baseline, nothing)
    loss = policy_gradient_loss(full_softmax(logits, given.action).log_prob, gained, torch.ones_like(gained)).mean()
    same(loss, expected.mean)
    same(gradient(loss, logits), expected.gradient)


def test_policy_gradient_with_capped_importance_ratios() -> None:
    given, expected = golden("rlax", "policy_gradient_corrected")
    logits = given.logits.requires_grad_()
    log_prob = full_softmax(logits, given.action).log_prob
    same(importance_ratio(log_prob, given.log_beta, None), expected.ratio)
    capped = importance_ratio(log_prob, given.log_beta, given.cap)
    assert (capped < expected.ratio - 0.1).any() and (capped > expected.ratio - 1e-5).any()
    loss = policy_gradient_loss(log_prob, given.returns - given.baseline, capped).mean()
    same(loss, expected.mean)
    same(gradient(loss, logits), expected.gradient)


def test_entropy() -> None:
    given, expected = golden("rlax", "entropy")
    logits = given.logits.requires_grad_()
    entropy = full_softmax(logits, torch.zeros(len(logits), dtype=torch.int64)).entropy.mean()
    same(entropy, expected.mean)
    same(gradient(-entropy, logits), expected.gradient_of_loss)


def test_sampled_softmax() -> None:
    given, expected = golden("tensorflow", "sampled_softmax")
    state, items = given.state.requires_grad_(), given.items.requires_grad_()
    action_logit = (state * items[given.true]).sum(dim=1) + given.bias[given.true]
    negative_logits = state @ items[given.sampled].T + given.bias[given.sampled]
    assert (given.true.unsqueeze(1) == given.sampled).any()
    scored = sampled_softmax(action_logit, negative_logits, given.true, given.sampled, given.log_expected)
    same(-scored.log_prob, expected.loss)
    by_state, by_items = torch.autograd.grad(-scored.log_prob.mean(), (state, items))
    same(by_state, expected.gradient_state)
    same(by_items, expected.gradient_items)


def test_top_k_correction() -> None:
    """The corrected gradient, summed over items as often as they are logged, climbs the reward of all K shown items."""
    given, expected = golden("formulas", "top_k")
    logits = given.logits.requires_grad_()
    log_prob = logits.log_softmax(dim=0)
    weight = top_k_multiplier(log_prob, given.k) * log_prob.detach().exp()
    loss = policy_gradient_loss(log_prob, given.rewards, weight).sum()
    same(-gradient(loss, logits), expected.gradient)
