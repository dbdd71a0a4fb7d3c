"""Thousands of schedules of writers, readers, shards and faults: see `simulation`."""

from __future__ import annotations

import os

import pytest

from fault.simulation import run_seeds

_PARTS = 4


@pytest.mark.parametrize("part", range(_PARTS))
def test_no_promise_is_broken_in_any_schedule(part, soak, figures):
    """`HEADRACE_FIRST_SEED` moves on to other schedules than the usual ones."""
    count = soak.count(320, 6_000) // _PARTS
    first = int(os.environ.get("HEADRACE_FIRST_SEED", "0")) + part * count
    figures.seeds(first, count)
    outcome = run_seeds(first, count)
    troubles = outcome.troubles
    figures.note(**{name: value for name, value in vars(outcome).items() if name != "troubles"})
    figures.note(troubles=troubles)
    assert outcome.acknowledged and outcome.uncertain > outcome.surfaced > 0 and outcome.sampled and outcome.fenced
    assert outcome.crashes


def test_a_seed_is_a_schedule():
    """The same to the last number, or a failing seed could not be replayed."""
    for seed in range(1, 7):
        assert run_seeds(seed, 1) == run_seeds(seed, 1)
