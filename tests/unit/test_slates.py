"""Slates: values by hand, optimizers against every slate there is, and the losses they are learnt with."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
import torch

from learners.acting.best_slates import OPTIMIZERS, check_slates, exact, greedy, random_slates, slate_counts, top_k
from learners.algorithm import seeded
from learners.losses.slate import choice_losses, consumed, slate_td_error, slate_values
from replay_server.errors import InvalidRecord

B, M, K = 64, 7, 3


def problem(seed: int, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values, scores and offers; a spread of 3 has scores that differ by factors of thousands."""
    generator = seeded(seed)
    q = 3 * torch.randn(B, M + 1, generator=generator, dtype=torch.float64)
    scores = (spread * torch.randn(B, M + 1, generator=generator, dtype=torch.float64)).exp()
    offered = torch.rand(B, M, generator=generator) < 0.8
    offered[:, :K] = True
    scores[:, :-1] *= offered
    return q, scores, offered


def value(q: torch.Tensor, scores: torch.Tensor, slate: tuple[int, ...]) -> float:
    shown = [*slate, M]
    mass = sum(float(scores[i]) for i in shown)
    return sum(float(scores[i]) * float(q[i]) for i in shown) / mass


def best_slate(q: torch.Tensor, scores: torch.Tensor, offered: torch.Tensor) -> tuple[list[int], float]:
    """By looking at every slate; its items by how much each adds to it."""
    candidates = [i for i in range(M) if offered[i]]
    slate = max(combinations(candidates, K), key=lambda s: value(q, scores, s))
    most = value(q, scores, slate)
    return sorted(slate, key=lambda i: -float(scores[i]) * (float(q[i]) - most)), most


@pytest.mark.parametrize("spread", [0.3, 1.0, 3.0])
def test_exact_finds_the_best_of_all_slates_in_order(spread: float) -> None:
    q, scores, offered = problem(0, spread)
    slates = exact(q, scores, offered, K)
    for row in range(B):
        slate, most = best_slate(q[row], scores[row], offered[row])
        assert slates[row].tolist() == slate
        assert value(q[row], scores[row], slates[row].tolist()) == pytest.approx(most)


def test_greedy_adds_what_makes_the_slate_most_valuable() -> None:
    q, scores, offered = problem(1)
    slates = greedy(q, scores, offered, K)
    for row in range(B):
        chosen: list[int] = []
        for _ in range(K):
            left = [i for i in range(M) if offered[row, i] and i not in chosen]
            chosen.append(max(left, key=lambda i: value(q[row], scores[row], (*chosen, i))))
        assert slates[row].tolist() == chosen  # in the order of the picks, not of the positions
    assert (slates.sort(dim=1).values != slates).any()


def test_top_k_is_score_times_value() -> None:
    q, scores, offered = problem(2)
    slates = top_k(q, scores, offered, K)
    for row in range(B):
        left = [i for i in range(M) if offered[row, i]]
        assert slates[row].tolist() == sorted(left, key=lambda i: -float(scores[row, i] * q[row, i]))[:K]


def test_exact_is_never_worse_and_sometimes_better() -> None:
    q, scores, offered = (torch.cat(parts) for parts in zip(*(problem(seed) for seed in range(20)), strict=True))
    values = {name: slate_values(q, scores, find(q, scores, offered, K)) for name, find in OPTIMIZERS.items()}
    for name in ("greedy", "top_k"):
        assert (values["exact"] >= values[name] - 1e-12).all()
        assert (values["exact"] > values[name] + 1e-6).any()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_slates_hold_different_items_on_offer_first(name: str) -> None:
    q, scores, _ = problem(4)
    few = torch.zeros(B, M, dtype=torch.bool)
    few[:, 5] = few[:, 2] = True
    scores[:, :-1] *= few
    slates = OPTIMIZERS[name](q, scores, few, K)
    check_slates(slates.numpy(), M)
    assert set(slates[:, :2].flatten().tolist()) == {2, 5}
    assert slates[:, 2].unique().tolist() == [0]  # too few are on offer: filled up from the first
    nothing = torch.zeros_like(few)
    assert OPTIMIZERS[name](q, scores * 0 + 1, nothing, K)[0].tolist() == [0, 1, 2]
    equals = OPTIMIZERS[name](torch.ones_like(q), torch.ones_like(q), torch.ones_like(few), K)
    assert equals[0].tolist() == [0, 1, 2]


def test_random_slates_are_all_alike() -> None:
    offered = torch.tensor([[True, False, True, True]]).expand(6000, 4)
    slates = random_slates(offered, 2, torch.rand(offered.shape, generator=seeded(0)))
    counts = torch.unique(slates[:, 0] * 4 + slates[:, 1], return_counts=True)
    assert counts[0].tolist() == [0 * 4 + 2, 0 * 4 + 3, 2 * 4 + 0, 2 * 4 + 3, 3 * 4 + 0, 3 * 4 + 2]
    assert (counts[1] - 1000).abs().max() < 120  # four standard deviations
    assert np.exp(slate_counts(offered[:1].numpy(), 2)) == pytest.approx([6.0])
    assert np.exp(slate_counts(np.ones((1, 3), bool), 3)) == pytest.approx([6.0])
    assert np.exp(slate_counts(np.array([[True, False, False]]), 2)) == pytest.approx([1.0])


@pytest.mark.parametrize(
    ("slate", "message"),
    [
        ([3, 1, 3], r"record 1: slate \[3, 1, 3\] shows an item twice; .* 0 to 6"),
        ([0, 7, 1], r"record 1: slate \[0, 7, 1\] shows one that is not among the 7 candidates"),
        ([0, -1, 1], "not among the 7"),
    ],
)
def test_slates_with_repeats_or_strangers_are_refused(slate: list[int], message: str) -> None:
    check_slates(np.array([[0, 1, 2], [6, 0, 5]]), M)
    with pytest.raises(InvalidRecord, match=message):
        check_slates(np.array([[0, 1, 2], slate]), M)


SLATE = torch.tensor([[2, 0], [1, 2]])
RESPONSE = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
Q = torch.tensor([[1.0, 2.0, 3.0, 0.5], [4.0, 5.0, 6.0, -1.0]])
SCORES = torch.tensor([[1.0, 9.0, 2.0, 1.0], [9.0, 0.5, 1.5, 2.0]])


def test_values_and_outcomes_by_hand() -> None:
    assert consumed(SLATE, RESPONSE, 3).tolist() == [0, 3]
    assert slate_values(Q, SCORES, SLATE).tolist() == pytest.approx([(6 + 1 + 0.5) / 4, (2.5 + 9 - 2) / 4])


def test_td_error_by_hand_and_only_what_was_consumed_learns() -> None:
    q_tm1, q_t = Q.clone().requires_grad_(), (Q + 1).requires_grad_()
    scores = SCORES.clone().requires_grad_()
    r_t, discount_t = torch.tensor([0.5, 1.0]), torch.tensor([0.9, 0.0])
    error = slate_td_error(q_tm1, consumed(SLATE, RESPONSE, 3), r_t, discount_t, q_t, scores, SLATE)
    assert error.tolist() == pytest.approx([0.5 + 0.9 * (7.5 / 4 + 1) - 1.0, 1.0 + 1.0])
    error.sum().backward()
    assert q_tm1.grad is not None and q_tm1.grad.tolist() == [[-1, 0, 0, 0], [0, 0, 0, -1]]
    assert q_t.grad is None and scores.grad is None


def test_choice_loss_by_hand() -> None:
    losses = choice_losses(SCORES.log(), SLATE, RESPONSE)
    assert losses.tolist() == pytest.approx([-math.log(1 / 4), -math.log(2 / 4)])


def test_wrong_shapes_are_refused() -> None:
    outcome, r_t = consumed(SLATE, RESPONSE, 3), torch.zeros(2)
    with pytest.raises(ValueError, match="r_t has shape"):
        slate_td_error(Q, outcome, r_t.unsqueeze(1), r_t, Q, SCORES, SLATE)
    with pytest.raises(ValueError, match="scores has shape"):
        slate_td_error(Q, outcome, r_t, r_t, Q, SCORES[:, :3], SLATE)
    with pytest.raises(ValueError, match="response has shape"):
        choice_losses(SCORES, SLATE, RESPONSE[:, :1])
    with pytest.raises(ValueError, match="response has shape"):
        consumed(SLATE, RESPONSE[:1], 3)
