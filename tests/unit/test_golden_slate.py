"""SlateQ against its formulas in plain Python (`tests/golden/make_formulas.py`)."""

from __future__ import annotations

import torch
from kit.golden import golden, same

from learners.acting.best_slates import exact
from learners.losses.slate import choice_losses, consumed, slate_td_error, slate_values


def test_values_and_responses() -> None:
    given, expected = golden("formulas", "slateq")
    candidates = given.q_tm1.shape[1] - 1
    assert torch.equal(consumed(given.slate, given.response, candidates), expected.outcome)
    same(slate_values(given.q_t, given.logits.exp(), given.slate), expected.value)
    same(choice_losses(given.logits, given.slate, given.response), expected.choice_loss)


def test_best_slate_and_its_temporal_difference() -> None:
    given, expected = golden("formulas", "slateq")
    scores, (batch, outcomes) = given.logits.exp(), given.q_t.shape
    best = exact(given.q_t, scores, torch.ones(batch, outcomes - 1, dtype=torch.bool), given.slate.shape[1])
    assert torch.equal(best.sort(dim=1).values, expected.best_slate)
    same(slate_values(given.q_t, scores, best), expected.best_value)
    error = slate_td_error(
        given.q_tm1, expected.outcome, given.r_t, given.discount_t, given.q_t, scores, expected.best_slate
    )
    same(error, expected.td_error)
