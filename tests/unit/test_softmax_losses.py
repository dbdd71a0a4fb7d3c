"""Softmax and policy-gradient losses against numbers worked out by hand and against enumeration."""

from __future__ import annotations

import math

import pytest
import torch

from learners.losses.policy_gradient import (
    advantage,
    importance_ratio,
    policy_gradient_loss,
    self_normalised,
    top_k_multiplier,
)
from learners.losses.softmax import full_softmax, sampled_softmax
from learners.networks.negatives import NegativeSampler

CAP = math.exp(3.0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_full_softmax_of_three_items() -> None:
    logits = torch.tensor([[0.0, math.log(2.0), 0.0], [1.0, 1.0, 1.0]])
    scored = full_softmax(logits, torch.tensor([1, 2]))
    assert scored.log_prob.exp().tolist() == pytest.approx([0.5, 1 / 3])
    assert scored.entropy.tolist() == pytest.approx([0.5 * math.log(2) + 0.5 * math.log(4), math.log(3)])
    with pytest.raises(ValueError, match="a_tm1"):
        full_softmax(logits, torch.tensor([[1], [2]]))


def test_a_forbidden_item_costs_neither_probability_nor_entropy() -> None:
    logits = torch.tensor([[0.0, torch.finfo(torch.float32).min / 4, 0.0]], requires_grad=True)
    scored = full_softmax(logits, torch.tensor([0]))
    (scored.log_prob + scored.entropy).sum().backward()
    assert scored.log_prob.item() == pytest.approx(-math.log(2)) and scored.entropy.item() == pytest.approx(math.log(2))
    assert torch.isfinite(logits.grad).all()


def test_sampled_softmax_is_exact_when_every_item_is_sampled_once() -> None:
    logits = torch.randn(6, 9, generator=seeded(0), requires_grad=True)
    a, negatives = torch.tensor([0, 8, 3, 3, 1, 5]), torch.randperm(9, generator=seeded(1))
    full = full_softmax(logits, a)
    own = logits.gather(1, a[:, None]).squeeze(1)
    sampled = sampled_softmax(own, logits[:, negatives], a, negatives, torch.zeros(9))
    for one, other in zip(full, sampled, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    gradients = [
        torch.autograd.grad(scored.log_prob.sum() + scored.entropy.sum(), logits) for scored in (full, sampled)
    ]
    assert torch.allclose(gradients[0][0], gradients[1][0], atol=1e-6)
    with pytest.raises(ValueError, match="log_expected"):
        sampled_softmax(own, logits[:, negatives], a, negatives, torch.zeros(9, 1))


@pytest.mark.parametrize("alpha", [None, 0.75])
def test_sampled_normaliser_and_gradient_are_right_on_average(alpha: float | None) -> None:
    """The estimate of the normaliser has the right mean, and log pi and its gradient come close with many negatives."""
    items, size = 50, 40
    sampler, generator = NegativeSampler(items, size, alpha), seeded(2)
    sampler.observe(torch.randint(0, 7, (200,), generator=generator))
    logits = torch.randn(1, items, generator=generator, requires_grad=True)
    a = torch.tensor([3])
    ratios, gradient, uncorrected = [], torch.zeros(items), []
    true = full_softmax(logits, a).log_prob
    [expected] = torch.autograd.grad(true.sum(), logits)
    for _ in range(1500):
        negatives, log_expected = sampler.draw(generator)
        scored = sampled_softmax(logits[:, 3], logits[:, negatives], a, negatives, log_expected)
        gradient += torch.autograd.grad(scored.log_prob.sum(), logits)[0][0] / 1500
        ratios.append((true - scored.log_prob).exp().item())
        plain = sampled_softmax(logits[:, 3], logits[:, negatives], a, negatives, torch.zeros(size))
        uncorrected.append((true - plain.log_prob).exp().item())
    ratios, uncorrected = torch.tensor(ratios), torch.tensor(uncorrected)
    error = ratios.std() / math.sqrt(1500)
    assert abs(ratios.mean() - 1.0) < 4 * error < 0.1
    assert abs(uncorrected.mean() - 1.0) > 0.2
    assert (gradient - expected[0]).abs().max() < 0.05


def test_negatives_follow_their_stated_probabilities() -> None:
    for alpha in (None, 0.5, 0.0):
        sampler = NegativeSampler(6, 20_000, alpha)
        sampler.observe(torch.tensor([5, 5, 5, 2, 2, 0]))
        q = sampler.probabilities()
        assert q.sum().item() == pytest.approx(1.0)
        drawn, log_expected = sampler.draw(seeded(3))
        shares = torch.bincount(drawn, minlength=6) / 20_000
        assert (shares - q).abs().max() < 0.015
        assert torch.allclose(log_expected.exp(), (20_000 * q[drawn]).float())
    ranked = NegativeSampler(3, 1, None)
    ranked.observe(torch.tensor([2, 2, 1]))
    assert ranked.probabilities().tolist() == pytest.approx([math.log(r) / math.log(4) for r in (4 / 3, 3 / 2, 2)])
    powered = NegativeSampler(3, 1, 0.5)
    powered.observe(torch.tensor([2, 2, 2, 1, 1, 1]))
    assert powered.probabilities().tolist() == pytest.approx([1 / 5, 2 / 5, 2 / 5])


def test_top_k_multiplier_limits() -> None:
    log_prob = torch.tensor([-40.0, math.log(0.25), math.log(0.5), 0.0])
    assert top_k_multiplier(log_prob, 1).tolist() == [1.0] * 4
    assert top_k_multiplier(log_prob, 2).tolist() == pytest.approx([2.0, 1.5, 1.0, 0.0])
    assert top_k_multiplier(log_prob, 16).tolist() == pytest.approx([16.0, 16 * 0.75**15, 16 * 0.5**15, 0.0])


def test_ratios_are_those_of_the_logged_actions_capped_and_detached() -> None:
    logits = torch.zeros(3, 4, requires_grad=True)
    log_prob = full_softmax(logits, torch.tensor([0, 1, 2])).log_prob
    behaviour = torch.tensor([math.log(0.5), math.log(0.25), math.log(0.001)], requires_grad=True)
    ratio = importance_ratio(log_prob, behaviour, CAP)
    assert ratio.tolist() == pytest.approx([0.5, 1.0, CAP]) and not ratio.requires_grad
    assert importance_ratio(log_prob, behaviour, None).tolist() == pytest.approx([0.5, 1.0, 250.0])
    assert self_normalised(ratio, torch.ones(3)).mean().item() == pytest.approx(1.0)
    assert self_normalised(ratio, torch.tensor([1.0, 1.0, 0.0]))[:2].mean().item() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="behaviour_log_prob_tm1"):
        importance_ratio(log_prob, behaviour[:, None], CAP)


def test_gradient_of_the_loss_is_the_weight_also_where_it_is_capped() -> None:
    """Clamping inside the exponent, as ReAgent does, would give the third record no gradient."""
    log_prob = torch.tensor([-1.0, -2.0, -0.5], requires_grad=True)
    behaviour = torch.tensor([-1.0, -1.0, -9.0], requires_grad=True)
    gained = torch.tensor([2.0, -1.0, 3.0], requires_grad=True)
    weight = importance_ratio(log_prob, behaviour, CAP) * top_k_multiplier(log_prob, 2)
    loss = policy_gradient_loss(log_prob, gained, weight)
    loss.sum().backward()
    expected = [
        -2.0 * 1.0 * 2 * (1 - math.exp(-1)),
        math.exp(-1) * 2 * (1 - math.exp(-2)),
        -3.0 * CAP * 2 * (1 - math.exp(-0.5)),
    ]
    assert log_prob.grad.tolist() == pytest.approx(expected)
    assert behaviour.grad is None and gained.grad is None
    assert loss.shape == (3,)


def test_a_gather_of_b_by_b_is_refused() -> None:
    """`log_probs[:, actions]` gives [B, B]; DBRL learns from that."""
    log_probs, a = torch.randn(4, 5).log_softmax(dim=1), torch.tensor([0, 1, 2, 3])
    with pytest.raises(ValueError, match="log_prob_tm1 has shape"):
        policy_gradient_loss(log_probs[:, a], torch.ones(4), torch.ones(4))
    with pytest.raises(ValueError, match="advantage_tm1 has shape"):
        policy_gradient_loss(log_probs[:, 0], torch.ones(4, 1), torch.ones(4))


def test_advantages_bootstrap_only_where_the_discount_says_so() -> None:
    v_tm1 = torch.tensor([1.0, 2.0], requires_grad=True)
    gained = advantage(torch.tensor([3.0, 3.0]), torch.tensor([0.0, 0.5]), v_tm1, torch.tensor([7.0, 4.0]))
    assert gained.tolist() == [2.0, 3.0] and not gained.requires_grad
    with pytest.raises(ValueError, match="v_t has shape"):
        advantage(torch.ones(2), torch.ones(2), torch.ones(2), torch.ones(2, 1))
